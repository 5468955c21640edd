"""Scenes: their arrays, pictures and files, and their equality with the command line's."""

import json
import subprocess
import sys

import numpy as np
import pytest
import weights_files
from PIL import Image

import rtformer


def test_masks_are_those_of_the_command_line(seg, street, program, tmp_path):
    done = program("segment", *street, "-o", tmp_path, "--emit", "mask,json", "--json")
    assert done.returncode == 0, done.stderr
    digests = [json.loads(line)["digest"] for line in done.stdout.splitlines()]
    assert len(digests) == len(street)
    for path, digest in zip(street, digests, strict=True):
        file = Image.open(tmp_path / f"{path.stem}.mask.png")
        scene = seg(path)
        assert scene.mask.tobytes() == np.asarray(file).tobytes(), path
        assert scene.digest == digest, path
        scene.save_mask(tmp_path / "own.png")
        own = Image.open(tmp_path / "own.png")
        assert (own.mode, own.getpalette()) == ("P", file.getpalette())
        assert own.tobytes() == file.tobytes(), path


def test_a_scene_has_arrays_of_its_size(frame):
    scene = rtformer.Segmenter(device="cpu", logits=True)(frame)
    assert (scene.height, scene.width, repr(scene)) == (48, 64, "Scene(width=64, height=48)")
    assert (scene.mask.dtype, scene.mask.shape) == (np.uint8, (48, 64))
    assert (scene.confidence.dtype, scene.confidence.shape) == (np.float32, (48, 64))
    assert (scene.logits.dtype, scene.logits.shape) == (np.float32, (11, 48, 64))
    assert (scene.palette.dtype, scene.palette.shape) == (np.uint8, (11, 3))
    assert np.array_equal(scene.logits.argmax(0), scene.mask)
    assert 0 < scene.confidence.min() <= scene.confidence.max() <= 1
    assert scene.mean_confidence == pytest.approx(scene.confidence.mean(), rel=1e-5)
    timings = scene.timings
    stages = timings.decode + timings.prepare + timings.model + timings.argmax
    assert timings.decode == 0 < timings.model < timings.total == pytest.approx(stages)


def test_what_was_not_asked_for_is_none(tiny, frame):
    scene = rtformer.Segmenter(tiny, "cpu", confidence=False)(frame)
    assert (scene.confidence, scene.mean_confidence, scene.logits) == (None, None, None)


def test_the_mask_is_not_copied(seg, frame):
    scene = seg(frame)
    assert scene.mask is scene.mask
    assert scene.confidence is scene.confidence
    assert scene.mask.flags.writeable and scene.mask.flags.c_contiguous and scene.mask.flags.aligned
    # The array keeps the network's own memory alive, and that alone.
    assert not scene.mask.flags.owndata and type(scene.mask.base).__name__ == "_Memory"
    kept = scene.mask
    expected = kept.copy()
    del scene
    for _ in range(20):
        seg(frame[::-1])
    assert np.array_equal(kept, expected)


def test_classes_and_palette_describe_the_mask(seg, street):
    scene = seg(street[0])
    counts = np.bincount(scene.mask.ravel(), minlength=11) / scene.mask.size
    assert [c.share for c in scene.classes] == sorted((counts[counts > 0]).tolist(), reverse=True)
    for c in scene.classes:
        assert (c.share, c.name) == (counts[c.id], seg.classes[c.id])
        assert c.color == tuple(scene.palette[c.id].tolist())
    first = scene.classes[0]
    assert first == scene.classes[0] and first != scene.classes[1]
    assert repr(first).startswith(f'ClassShare(id={first.id}, name="{first.name}", color=(')


def test_a_changed_mask_shows_everywhere(seg, frame, tmp_path):
    scene = seg(frame)
    before = scene.digest
    scene.mask[:] = 3
    assert [(c.id, c.share) for c in scene.classes] == [(3, 1.0)]
    assert scene.digest != before
    scene.save_mask(tmp_path / "mask.png")
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == 3).all()
    assert (np.asarray(scene.overlay(1.0)) == scene.palette[3]).all()
    scene.mask[0, 0] = 200
    with pytest.raises(rtformer.InputError, match="id 200 at index 0"):
        scene.save_mask(tmp_path / "mask.png")
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == 3).all(), "the file is unchanged"


def test_overlays(seg, frame, tmp_path):
    scene = seg(frame)
    assert np.array_equal(np.asarray(scene.overlay(0.0)), frame)
    assert np.array_equal(np.asarray(scene.overlay(1.0)), scene.palette[scene.mask])
    half = scene.overlay()
    assert isinstance(half, Image.Image) and half.mode == "RGB"
    expected = (frame.astype(float) + scene.palette[scene.mask]) / 2
    assert abs(np.asarray(half) - expected).max() <= 0.5
    scene.save_overlay(tmp_path / "overlay.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "overlay.png")), np.asarray(half))
    assert np.array_equal(np.asarray(seg(frame[:, :, ::-1], channels="bgr").overlay(0.0)), frame)


def test_without_pillow_an_overlay_is_an_array(street):
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "import numpy, rtformer\n"
        "picture = rtformer.Segmenter(device='cpu')(sys.argv[1]).overlay()\n"
        "assert type(picture) is numpy.ndarray and picture.dtype == numpy.uint8, type(picture)\n"
        "assert picture.shape == (360, 480, 3), picture.shape\n"
    )
    subprocess.run([sys.executable, "-c", code, street[0]], check=True, timeout=120)


def test_the_bytes_of_a_mask_are_its_file(seg, frame, tmp_path):
    scene = seg(frame)
    scene.save_mask(str(tmp_path / "mask.png"))
    assert scene.mask_png() == (tmp_path / "mask.png").read_bytes()


def test_more_than_256_classes_are_16_bits(tiny, tmp_path, frame):
    """Weights with 300 classes, made from those with 5."""
    tensors, metadata = weights_files.read(tiny)
    for name in ["seghead.conv2.weight", "seghead.conv2.bias", "seghead_extra.conv2.weight", "seghead_extra.conv2.bias"]:
        tensors[name] = np.concatenate([tensors[name]] * 60)
    config = json.loads(metadata["config"]) | {"num_classes": 300}
    colors = [[i % 256, i // 256, 9] for i in range(300)]
    metadata |= {
        "config": json.dumps(config),
        "classes": json.dumps([f"class {i}" for i in range(300)]),
        "palette": json.dumps(colors),
    }
    path = tmp_path / "many.safetensors"
    weights_files.write(path, tensors, metadata)
    scene = rtformer.Segmenter(path, "cpu")(frame)
    assert (scene.mask.dtype, scene.mask.shape, scene.palette.shape) == (np.uint16, (48, 64), (300, 3))
    scene.mask[:] = 299
    assert scene.classes[0].id == 299
    scene.save_mask(tmp_path / "mask.png")
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == 299).all()
