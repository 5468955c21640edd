"""Forked children: the threads of the parent do not exist there, so they are started again."""

import multiprocessing
import os
import threading
import warnings

import numpy as np
import pytest

import rtformer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
TIMEOUT = 120


def in_child(work):
    """Runs `work` in a forked child, and returns its result."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: sender.send(work()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    try:
        assert receiver.poll(TIMEOUT), "the child hangs"
        return receiver.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_segmenter_works_in_a_child(frame, threads):
    seg = rtformer.Segmenter(device="cpu", threads=threads)
    expected = seg(frame).digest
    assert in_child(lambda: seg(frame).digest) == expected
    assert in_child(lambda: in_child(lambda: seg(frame).digest)) == expected, "a grandchild"
    assert seg(frame).digest == expected, "the parent goes on"


def test_everything_else_works_in_a_child(seg, frame, street):
    scene = seg(frame)
    overlay = np.asarray(scene.overlay())
    assert in_child(lambda: np.asarray(scene.overlay()).tobytes()) == overlay.tobytes()
    assert in_child(lambda: (scene.digest, seg(street[0]).digest)) == (scene.digest, seg(street[0]).digest)
    assert in_child(lambda: [s.digest for s in seg.batch([frame, frame])]) == [scene.digest] * 2
    assert in_child(lambda: [s.digest for s in seg.stream([frame, street[0]])]) == [scene.digest, seg(street[0]).digest]
    assert in_child(lambda: rtformer.Segmenter(device="cpu")(frame).digest) == scene.digest, "opened in the child"


def test_a_video_must_be_opened_in_the_child(tiny, tmp_path):
    clip = tmp_path / "clip.y4m"
    clip.write_bytes(b"YUV4MPEG2 W32 H24 F10:1 Cmono\n" + 2 * (b"FRAME\n" + bytes(range(256)) * 3))
    seg = rtformer.Segmenter(tiny, "cpu", logits=True)
    video = seg.video(clip, smooth=0.5, reuse=True)
    first = next(video).digest

    def advance():
        with pytest.raises(RuntimeError, match="forked child"):
            next(video)
        return [scene.digest for scene in seg.video(clip, smooth=0.5, reuse=True)]

    assert in_child(advance) == [first] + [scene.digest for scene in video]


def test_the_reference_works_in_a_child(tiny, frame):
    seg = rtformer.Segmenter(tiny, "reference")
    expected = seg(frame).digest
    assert in_child(lambda: seg(frame).digest) == expected


def test_a_fork_in_the_middle_of_a_frame(frame):
    """Another thread is inside the network, and may hold any of its locks, at the moment of the fork."""
    seg = rtformer.Segmenter(device="cpu", threads=2)
    expected, ended = seg(frame).digest, threading.Event()

    def work():
        while not ended.is_set():
            seg(frame)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(8):
            assert in_child(lambda: seg(frame).digest) == expected
    finally:
        ended.set()
        thread.join()


def test_a_stream_of_the_parent_is_refused(seg, frame):
    stream = seg.stream([frame] * 3)
    next(stream)

    def advance():
        try:
            next(stream)
        except RuntimeError as error:
            return str(error)
        return ""

    assert "forked child" in in_child(advance)
    assert next(stream).digest == seg(frame).digest


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_every_kind(tiny, frame, method):
    seg = rtformer.Segmenter(tiny, "cpu", threads=1)
    expected = seg(frame).digest
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap_async(digest, [(seg, frame)] * 4).get(TIMEOUT) == [expected] * 4


def digest(seg, frame):
    return seg(frame).digest


def test_data_loaders_of_torch(seg, street):
    data = pytest.importorskip("torch.utils.data")

    class Masks(data.Dataset):
        def __len__(self):
            return len(street)

        def __getitem__(self, index):
            return seg(street[index]).mask

    masks = [seg(path).mask for path in street]
    loader = data.DataLoader(Masks(), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=TIMEOUT)
    loaded = [mask.numpy() for batch in loader for mask in batch]
    assert all(np.array_equal(a, b) for a, b in zip(loaded, masks, strict=True))
