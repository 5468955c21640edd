"""The examples of both READMEs and of the book's chapter run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    pytest.param(code, id=f"{path.parent.name}-{path.stem}-{number}")
    for path in [ROOT / "README.md", ROOT / "python/README.md", ROOT / "docs/book/src/python.md"]
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL))
]


def test_there_are_examples():
    assert len(EXAMPLES) >= 7


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs(code, tmp_path):
    if code.startswith("# Needs"):  # as in the book's console blocks: what the tests do not have
        compile(code, "example", "exec")
        return
    if "import cv2" in code:
        pytest.importorskip("cv2", reason="needs OpenCV")
    (tmp_path / "tests").symlink_to(ROOT / "tests", target_is_directory=True)
    (tmp_path / "photos").mkdir()  # the book's photos
    for name, photo in [("corner", "0016E5_07959"), ("crossing", "0016E5_08007")]:
        (tmp_path / f"photos/{name}.jpg").symlink_to(ROOT / f"tests/data/street/{photo}.jpg")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
