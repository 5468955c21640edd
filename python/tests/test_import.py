"""Importing is fast and needs only NumPy; the stubs describe what there is."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import rtformer


def test_importing_takes_less_than_150_milliseconds():
    """The fastest of several: other programs on the machine only make an import slower."""
    code = "import time; start = time.perf_counter(); import rtformer; print(time.perf_counter() - start)"
    times = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(7)]
    assert min(times) < 0.15, times


def test_importing_needs_only_numpy():
    code = (
        "import sys; before = set(sys.modules); import rtformer; import pathlib, numpy\n"
        "seg = rtformer.Segmenter(device='cpu'); seg(numpy.zeros((32, 32, 3), 'uint8')).mask\n"
        "packages = {m.__spec__.origin for m in list(sys.modules.values()) if getattr(m, '__spec__', None)}\n"
        "print('\\n'.join(sorted(str(p) for p in packages if p and 'site-packages' in p)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {line.split("site-packages")[1].strip("/\\").replace("\\", "/").split("/")[0] for line in done.stdout.splitlines()}
    assert {"rtformer", "numpy"} <= packages
    assert {name for name in packages if not name.startswith(("_", "distutils"))} <= {"rtformer", "numpy"}, packages


def test_the_stubs_describe_the_package(tmp_path):
    pytest.importorskip("mypy", reason="needs mypy")
    # Not the whole package: rtformer.arrow, rtformer.ray and rtformer.daft import what may not be installed.
    command = [sys.executable, "-m", "mypy.stubtest", "rtformer._rtformer"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_typed_programs_pass_and_wrong_ones_do_not(tmp_path):
    pytest.importorskip("mypy", reason="needs mypy")
    good = """
import numpy as np, rtformer
seg = rtformer.Segmenter("slim.safetensors", threads=2)
scene = seg(np.zeros((4, 4, 3), np.uint8), channels="bgr")
shares: list[float] = [c.share for c in scene.classes]
for other in seg.stream(["a.jpg", b"..."]): other.save_mask("m.png")
both: list[rtformer.Scene | rtformer.Error] = seg.batch([], return_exceptions=True)
times: list[float | None] = [scene.time for scene in seg.video("a.mp4", start=1, smooth=0.5)]
miou: float | None = seg.eval("a", "b")["miou"]
"""
    wrong = {"seg(7)": "arg-type", 'seg("a", channels="rbg")': "arg-type", "scene.masks": "attr-defined"}
    path = tmp_path / "program.py"
    for text, error in [(good, None), *((good + line, error) for line, error in wrong.items())]:
        path.write_text(text)
        command = [sys.executable, "-m", "mypy", "--strict", path]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode == 0) == (error is None), done.stdout
        assert error is None or f"[{error}]" in done.stdout


def test_everything_is_documented():
    for name in rtformer.__all__:
        value = getattr(rtformer, name)
        if not isinstance(value, type):
            continue
        assert value.__doc__, name
        for member, attribute in vars(value).items():
            if not member.startswith("_") and not issubclass(value, rtformer.Error):
                assert attribute.__doc__, f"{name}.{member}"


def test_the_wheel_is_smaller_than_15_megabytes():
    """A wheel is a ZIP file, and the extension module is nearly all of it."""
    extension = Path(rtformer._rtformer.__file__)
    assert len(zlib.compress(extension.read_bytes())) < 15e6
