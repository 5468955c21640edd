"""`Segmenter.video`. Clips are y4m, which needs no ffmpeg, except where a test says so."""

import os
import shutil
import signal
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image

import rtformer


@pytest.fixture
def frames():
    return list(np.random.default_rng(5).integers(0, 256, (6, 24, 32), np.uint8))


@pytest.fixture
def clip(tmp_path, frames):
    """Six grey frames at 10 per second. Their range is full, so that grey levels are those of the file."""
    path = tmp_path / "clip.y4m"
    header = b"YUV4MPEG2 W32 H24 F10:1 Cmono XCOLORRANGE=FULL\n"
    path.write_bytes(header + b"".join(b"FRAME\n" + frame.tobytes() for frame in frames))
    return path


def test_every_frame_of_a_file_gives_the_scene_of_the_picture(seg, clip, frames):
    video = seg.video(clip)
    assert video.fps == 10
    scenes = list(video)
    assert [scene.digest for scene in scenes] == [seg(frame).digest for frame in frames]
    assert [scene.number for scene in scenes] == [1, 2, 3, 4, 5, 6]
    assert [scene.time for scene in scenes] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert np.array_equal(np.asarray(scenes[2].overlay(0))[:, :, 1], frames[2])
    assert video.dropped == 0 and list(video) == []
    assert seg(frames[0]).number is None and seg(frames[0]).time is None


def test_a_part_of_a_video(seg, clip):
    times = lambda **options: [round(scene.time, 3) for scene in seg.video(clip, **options)]  # noqa: E731
    assert times(every=2) == [0, 0.2, 0.4] and seg.video(clip, every=2).fps == 5
    assert times(start=0.3) == [0, 0.1, 0.2]
    assert times(start=0.1, duration=0.2) == [0, 0.1]


def test_numbered_pictures(seg, frames, tmp_path):
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{i + 6}.png")  # 6 to 11
    (tmp_path / "8.png").write_bytes(b"\x89PNG nothing")
    video = seg.video(tmp_path, fps=12.5)
    assert video.fps == 12.5
    digests = [next(video).digest, next(video).digest]
    with pytest.raises(rtformer.ImageError, match="8.png"):  # costs only its frame
        next(video)
    digests += [scene.digest for scene in video]
    assert digests == [seg(frame).digest for i, frame in enumerate(frames) if i != 2]


def test_a_live_source_drops_frames_and_counts_them(seg, clip):
    scenes = seg.video(clip, realtime=True)
    numbers = [scene.number for scene in scenes]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 6
    assert scenes.dropped == 6 - len(numbers)


def test_smoothing_needs_logits(seg, clip, tiny):
    with pytest.raises(rtformer.InputError, match="logits=True"):
        seg.video(clip, smooth=0.5)
    small = rtformer.Segmenter(tiny, "cpu", logits=True)
    with pytest.raises(rtformer.InputError, match="invalid strength 1"):
        small.video(clip, smooth=1)
    smoothed = list(small.video(clip, smooth=0))
    assert [scene.digest for scene in smoothed] == [scene.digest for scene in small.video(clip)]
    assert smoothed[0].logits is None


def test_errors_name_the_video(seg, clip, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.mp4"):
        seg.video(tmp_path / "none.mp4")
    empty = tmp_path / "empty.y4m"
    empty.write_bytes(b"YUV4MPEG2 W4 H4\n")
    with pytest.raises(rtformer.VideoError, match="empty.y4m: has no frames"):
        seg.video(empty)
    clip.write_bytes(clip.read_bytes()[:-1])
    video = seg.video(clip)
    assert [next(video).number for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="clip.y4m: is truncated: .* frame 6"):
        next(video)
    assert list(video) == []
    for wrong in [{"start": -1.0}, {"duration": float("nan")}, {"fps": 0.0}]:
        with pytest.raises(rtformer.InputError, match="invalid"):
            seg.video(clip, **wrong)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_other_videos_are_read_by_ffmpeg(seg, tmp_path, frames):
    for i, frame in enumerate(frames):
        Image.fromarray(np.dstack([frame, frame[::-1], frame[:, ::-1]])).save(tmp_path / f"{i}.png")
    path = tmp_path / "clip.mkv"
    make = ["ffmpeg", "-v", "error", "-framerate", "10", "-i", tmp_path / "%d.png", "-c:v", "ffv1", "-pix_fmt", "bgr0", path]
    subprocess.run(make, check=True)
    assert [scene.digest for scene in seg.video(path)] == [seg(tmp_path / f"{i}.png").digest for i in range(6)]
    path.write_bytes(b"no video" * 100)
    with pytest.raises(rtformer.VideoError, match="clip.mkv: ffmpeg"):
        seg.video(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_ctrl_c_ends_the_wait_for_a_frame(seg, tmp_path):
    """The first frame never comes."""
    pipe = tmp_path / "camera.y4m"
    os.mkfifo(pipe)
    keep = os.open(pipe, os.O_RDWR)
    # A background job of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            seg.video(pipe)
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(keep)
