"""Errors: their classes, and that they survive a trip to another process."""

import pickle

import numpy as np
import pytest

import rtformer

BUILT_IN = {
    rtformer.NotFoundError: FileNotFoundError,
    rtformer.FileError: OSError,
    rtformer.ImageError: ValueError,
    rtformer.VideoError: ValueError,
    rtformer.WeightsError: ValueError,
    rtformer.InputError: ValueError,
    rtformer.FrameTypeError: TypeError,
    rtformer.DeviceError: RuntimeError,
    rtformer.OutOfMemoryError: MemoryError,
    rtformer.DownloadError: OSError,
    rtformer.InternalError: RuntimeError,
}


@pytest.mark.parametrize(("own", "built_in"), BUILT_IN.items())
def test_each_error_is_rtformers_and_a_built_in(own, built_in):
    assert issubclass(own, rtformer.Error) and issubclass(own, built_in)
    error = pickle.loads(pickle.dumps(own("a.jpg: is empty")))
    assert (type(error), str(error)) == (own, "a.jpg: is empty")


def test_every_class_is_in_the_table():
    classes = {value for value in vars(rtformer).values() if isinstance(value, type) and issubclass(value, rtformer.Error)}
    assert classes == {rtformer.Error, *BUILT_IN}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"weights": "none.safetensors"}, rtformer.NotFoundError, "none.safetensors: cannot be read"),
        ({"weights": __file__}, rtformer.WeightsError, "test_errors.py"),
        ({"device": "cuda:77"}, rtformer.DeviceError, "cuda:77"),
        ({"device": "gpu"}, rtformer.DeviceError, "unknown device"),
        ({"device": "cpu", "precision": "f16"}, rtformer.DeviceError, "f32 and bf16"),
        ({"precision": "f64"}, rtformer.InputError, "unknown precision `f64`"),
        ({"size": "huge"}, rtformer.InputError, "huge"),
        ({"threads": 5000}, rtformer.DeviceError, "5000 threads"),
        ({"threads": -1}, OverflowError, None),
        ({"pad": 0}, rtformer.InputError, "invalid padding `0`"),
        ({"pad": "some"}, rtformer.InputError, "invalid padding `some`"),
        ({"reject_below": 2.0}, rtformer.InputError, "expected 0 to 1"),
        ({"colour": 1}, TypeError, "colour"),
    ],
)
def test_arguments_are_checked(arguments, error, text):
    with pytest.raises(error, match=text):
        rtformer.Segmenter(**{"device": "cpu", **arguments})


def test_files_are_named(seg, frame, tmp_path):
    (tmp_path / "photo.jpg").write_text("no photo")
    with pytest.raises(rtformer.ImageError, match="photo.jpg: "):
        seg(tmp_path / "photo.jpg")
    with pytest.raises(rtformer.FileError, match="mask.png: cannot be written"):
        seg(frame).save_mask(tmp_path / "photo.jpg/mask.png")


def test_a_size_that_is_too_large_says_so(frame):
    large = rtformer.Segmenter(device="cpu", size="65535x65535")
    with pytest.raises(rtformer.InputError, match="64 megapixels"):
        large(frame)


def test_options_are_used(frame):
    seg = rtformer.Segmenter(None, "cpu", "f32", 1, "64x32", False, pad=32, reject_below=1.0)
    assert (seg.threads, seg.precision, seg.device) == (1, "f32", "cpu")
    assert (seg(frame).mask == 255).any()
    default = rtformer.Segmenter(device="cpu")
    # The embedded weights ask for multiples of 32.
    assert np.array_equal(rtformer.Segmenter(device="cpu", pad=32)(frame).confidence, default(frame).confidence)
    assert not np.array_equal(rtformer.Segmenter(device="cpu", pad="none")(frame).confidence, default(frame).confidence)
    assert (default.weights, default.dataset, len(default.classes), default.palette.shape) == ("embedded", "camvid", 11, (11, 3))
    assert "11 classes of camvid (embedded), f32 on cpu" in repr(default)


def test_segmenters_can_be_pickled(tiny, frame):
    seg = rtformer.Segmenter(tiny, "cpu", threads=1, size="within:32x32", logits=True)
    copy = pickle.loads(pickle.dumps(seg))
    assert (copy.threads, copy.weights) == (1, str(tiny))
    assert np.array_equal(copy(frame).logits, seg(frame).logits)
