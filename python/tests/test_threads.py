"""Threads: the interpreter is free during inference, and one segmenter serves several threads."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rtformer

# Minima over rounds of frames: other programs on the machine only make a round slower.
SPEED = """
import threading, time
import numpy as np, rtformer

seg = rtformer.Segmenter(device="cpu", threads=1)
segmenters = [seg, rtformer.Segmenter(device="cpu", threads=1)]
frame = np.random.default_rng(0).integers(0, 256, (360, 480, 3), np.uint8)
FRAMES = 4

def work(seg):
    for _ in range(FRAMES):
        seg(frame)

def alone():
    start = time.perf_counter()
    work(segmenters[0]), work(segmenters[1])
    return time.perf_counter() - start

def together():
    threads = [threading.Thread(target=work, args=(seg,)) for seg in segmenters]
    start = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return time.perf_counter() - start

alone(), together()
one, two = [], []
for _ in range(ROUNDS):
    one.append(alone())
    two.append(together())
print(min(one) / min(two))
"""


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
@pytest.mark.skipif(os.environ.get("RTFORMER_SPEED") != "1", reason="set RTFORMER_SPEED=1 on an idle machine")
def test_two_threads_are_nearly_twice_as_fast_as_one():
    code = SPEED.replace("ROUNDS", "15")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert float(done.stdout) >= 1.8


def test_the_interpreter_runs_during_inference():
    """A call computes for a while; the time that another thread waits for the interpreter is a small part of it."""
    seg = rtformer.Segmenter(device="cpu", threads=1)
    frame = np.zeros((1024, 2048, 3), np.uint8)
    seg(frame)
    ended, ticks = threading.Event(), []

    def tick():
        while not ended.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    seg(frame)
    spent = time.perf_counter() - start
    ended.set()
    thread.join()
    during = [moment for moment in ticks if start <= moment <= start + spent]
    assert len(during) >= 10, f"{len(during)} ticks in {spent:.2f} s"


def test_threads_share_a_segmenter(seg, street):
    expected = [seg(path).digest for path in street]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda path: seg(path).digest, street)) == expected


def test_threads_share_a_scene(seg, frame):
    scene = seg(frame)
    reads = [lambda: scene.mask, lambda: scene.digest, lambda: scene.confidence, lambda: scene.classes, lambda: scene.overlay()]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda i: reads[i % len(reads)](), range(200)))
    assert all(mask is scene.mask for mask in done[0 :: len(reads)])
    assert {digest for digest in done[1 :: len(reads)]} == {scene.digest}


def test_the_gil_stays_off_where_it_is_off():
    """Importing an extension that needs the GIL would turn it on."""
    if not hasattr(sys, "_is_gil_enabled"):
        pytest.skip("this Python has always a GIL")
    if sys._is_gil_enabled():
        pytest.skip("this Python has a GIL")
    code = "import sys, rtformer; sys.exit(sys._is_gil_enabled())"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
