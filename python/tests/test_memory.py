"""Memory does not grow with the number of calls."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

import rtformer

STATUS = Path("/proc/self/statm")
MEGABYTE = 1 << 20


def resident() -> int:
    gc.collect()
    return int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc")
def test_a_thousand_calls_grow_memory_by_less_than_5_megabytes(tiny):
    seg = rtformer.Segmenter(tiny, "cpu", threads=1, logits=True)
    frame = np.random.default_rng(5).integers(0, 256, (96, 128, 3), np.uint8)

    def call():
        scene = seg(frame[:, ::-1])
        return scene.mask.sum() + scene.confidence.sum() + scene.logits.sum() + len(scene.digest + str(scene.classes)) + scene.overlay().width

    for _ in range(100):
        call()
    before = resident()
    for _ in range(1000):
        call()
    grown = resident() - before
    assert grown < 5 * MEGABYTE, f"{grown / MEGABYTE:.1f} MB"
