"""What the tests share."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rtformer

DATA = Path(__file__).parents[2] / "tests/data"


@pytest.fixture(scope="session")
def street() -> list[Path]:
    photos = sorted((DATA / "street").rglob("*.jpg"))
    assert len(photos) == 6
    return photos


@pytest.fixture(scope="session")
def seg() -> rtformer.Segmenter:
    return rtformer.Segmenter(device="cpu")


@pytest.fixture(scope="session")
def tiny() -> Path:
    """Weights of a very small network with 5 classes."""
    return DATA / "golden/tiny.safetensors"


@pytest.fixture
def frame() -> np.ndarray:
    """A frame whose rows, columns and channels all differ: `[48, 64, 3]`."""
    return np.random.default_rng(7).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="session")
def program():
    """Runs the command line. `RTFORMER` names the program; the default is the package's own."""
    own = [os.environ["RTFORMER"]] if os.environ.get("RTFORMER") else [sys.executable, "-m", "rtformer"]

    def run(*arguments: object, **options) -> subprocess.CompletedProcess:
        command = [*own, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, timeout=300, check=False, **options)

    return run
