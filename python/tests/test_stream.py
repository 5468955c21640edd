"""`batch` and `stream`: order, laziness, and errors of single frames."""

import contextlib
import gc
import itertools
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

import rtformer

TASKS = Path("/proc/self/task")


@pytest.fixture
def frames():
    return list(np.random.default_rng(1).integers(0, 256, (7, 40, 56, 3), np.uint8))


def digests(scenes):
    return [scene.digest for scene in scenes]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 20])
def test_a_stream_is_in_order(seg, frames, prefetch):
    expected = digests(map(seg, frames))
    assert len(set(expected)) == len(frames)
    assert digests(seg.stream(iter(frames), prefetch)) == expected
    assert digests(seg.batch(iter(frames))) == expected


def test_frames_of_several_kinds_and_sizes(seg, frames, street):
    mixed = [street[0], frames[0], street[1].read_bytes(), frames[1][:16], street[0]]
    expected = digests(map(seg, mixed))
    assert digests(seg.batch(mixed)) == expected == digests(seg.stream(mixed))
    assert seg.batch([]) == [] == list(seg.stream([]))


def test_channels_apply_to_batches_and_streams(seg, frames):
    expected = digests(map(seg, frames))
    swapped = [frame[:, :, ::-1] for frame in frames]
    assert digests(seg.batch(swapped, channels="bgr")) == expected == digests(seg.stream(swapped, channels="bgr"))


@pytest.mark.parametrize("prefetch", [0, 2, 5])
def test_a_stream_is_lazy(seg, frames, prefetch):
    taken = itertools.count()
    source = (next(taken) and None or frame for frame in itertools.cycle(frames))  # endless
    stream = seg.stream(source, prefetch=prefetch)
    position = lambda: int(repr(taken)[6:-1])  # noqa: E731
    assert position() == 0, "nothing is taken before the first scene is asked for"
    for done in range(1, 10):
        next(stream)
        assert position() == done + prefetch


def test_a_stream_works_while_the_caller_does(seg):
    frames = np.random.default_rng(2).integers(0, 256, (3, 360, 480, 3), np.uint8)
    start = time.perf_counter()
    seg(frames[0])
    spent = time.perf_counter() - start
    stream = seg.stream(frames, prefetch=2)
    next(stream)
    time.sleep(10 * spent)  # a caller that works for longer than both frames need
    start = time.perf_counter()
    next(stream), next(stream)
    assert time.perf_counter() - start < spent


def test_scenes_that_are_dropped_are_freed(seg, frames):
    masks = []
    for scene in seg.stream(itertools.islice(itertools.cycle(frames), 30)):
        masks.append(weakref.ref(scene.mask))
    del scene
    gc.collect()
    assert len(masks) == 30 and not any(mask() is not None for mask in masks)


def test_one_bad_frame_costs_only_itself(seg, frames, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    mixed = [frames[0], tmp_path / "bad.jpg", frames[1], 7, frames[2]]
    expected = digests([seg(frames[i]) for i in range(3)])
    for results in [seg.batch(mixed, return_exceptions=True), list(seg.stream(mixed, return_exceptions=True))]:
        assert digests(results[::2]) == expected
        assert isinstance(results[1], rtformer.ImageError) and "bad.jpg" in str(results[1])
        assert isinstance(results[3], rtformer.FrameTypeError)
    with pytest.raises(rtformer.ImageError, match="bad.jpg"):
        seg.batch(mixed)

    stream, found = seg.stream(mixed), []
    while True:
        try:
            found.append(next(stream).digest)
        except StopIteration:
            break
        except rtformer.Error as error:
            found.append(type(error))
    assert found == [expected[0], rtformer.ImageError, expected[1], rtformer.FrameTypeError, expected[2]]


def test_an_array_that_fails_has_a_number(seg, frames):
    huge = np.broadcast_to(np.uint8(0), (8200, 8200))
    with pytest.raises(rtformer.InputError, match="^frame 1: .*64 megapixels"):
        seg.batch([frames[0], huge])
    stream = seg.stream([frames[0], huge])
    next(stream)
    with pytest.raises(rtformer.InputError, match="^frame 1: "):
        next(stream)


def test_an_error_of_the_source_ends_the_stream(seg, frames):
    def source():
        yield frames[0]
        raise KeyError("camera")

    stream = seg.stream(source(), prefetch=0)
    assert next(stream).digest == seg(frames[0]).digest
    with pytest.raises(KeyError, match="camera"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)
    with pytest.raises(TypeError):
        seg.stream(7)
    with pytest.raises(TypeError):
        seg.batch(7)


def test_a_source_cannot_advance_its_own_stream(seg, frames):
    def source():
        yield frames[0]
        yield next(stream)

    stream = seg.stream(source(), prefetch=1)
    with pytest.raises(RuntimeError, match="already being advanced"):
        next(stream)


@pytest.mark.skipif(not TASKS.exists(), reason="needs /proc")
def test_threads_of_a_dropped_stream_end(seg, frames):
    def running():
        found = 0
        for task in TASKS.iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended meanwhile
                found += (task / "comm").read_text().startswith(("rtformer-decode", "rtformer-segmen"))
        return found

    def becomes(count):
        return any(running() == count or time.sleep(0.1) for _ in range(300))

    assert becomes(0)  # those of other tests
    stream = seg.stream(frames)
    next(stream)
    assert running() == 2
    del stream
    assert becomes(0)
