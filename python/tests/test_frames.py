"""Everything that is a frame gives the same mask, and everything else an error that says what to do."""

import array
import io

import numpy as np
import pytest
from PIL import Image

import rtformer


def mask(seg, frame, **options):
    return seg(frame, **options).mask


def test_every_kind_of_frame_gives_the_same_mask(seg, street, tmp_path):
    photo = Image.open(street[0]).convert("RGB")
    path = tmp_path / "photo.png"
    photo.save(path)
    pixels = np.asarray(photo)

    class Interface:
        __array_interface__ = pixels.__array_interface__

    class DLPack:
        def __dlpack__(self, **options):
            return pixels.copy().__dlpack__(**options)

        def __dlpack_device__(self):
            return pixels.__dlpack_device__()

    expected = mask(seg, pixels)
    frames = {
        "path": path,
        "name": str(path),
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "memoryview of a file": memoryview(path.read_bytes()),
        "memoryview of pixels": memoryview(pixels),
        "Pillow image": photo,
        "Pillow image from a file": Image.open(path),
        "RGBA image": photo.convert("RGBA"),
        "RGBA array": np.dstack([pixels, np.full(pixels.shape[:2], 9, np.uint8)]),
        "__array_interface__": Interface(),
        "__dlpack__": DLPack(),
        "read-only array": np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
    }
    for kind, frame in frames.items():
        assert np.array_equal(mask(seg, frame), expected), kind


def test_torch_tensors_are_frames(seg, frame):
    torch = pytest.importorskip("torch")
    assert np.array_equal(mask(seg, torch.from_numpy(frame)), mask(seg, frame))


def test_views_give_the_mask_of_their_copy(seg):
    big = np.random.default_rng(3).integers(0, 256, (100, 140, 4), np.uint8)
    views = {
        "crop": big[20:68, 30:94, :3],
        "reversed rows": big[::-1, :, :3],
        "reversed columns": big[:, ::-1, :3],
        "reversed channels": big[:, :, 2::-1],
        "every second": big[::2, ::2, :3],
        "all reversed": big[::-1, ::-1, ::-1][..., :3],
        "transposed": big[..., :3].transpose(1, 0, 2),
        "Fortran order": np.asfortranarray(big[..., :3]),
        "channels first in memory": np.ascontiguousarray(big[..., :3].transpose(2, 0, 1)).transpose(1, 2, 0),
        "broadcast grey": np.broadcast_to(big[:, :, :1], (100, 140, 3)),
        "grey": big[::-1, :, 1],
        "grey with a channel": big[:, ::3, 1:2],
    }
    for kind, view in views.items():
        assert np.array_equal(mask(seg, view), mask(seg, view.copy(order="C"))), kind


def test_channels_are_the_order_of_arrays(seg, frame):
    reversed_frame = frame[:, :, ::-1]
    assert np.array_equal(mask(seg, reversed_frame, channels="bgr"), mask(seg, frame))
    assert not np.array_equal(mask(seg, frame, channels="bgr"), mask(seg, frame))
    with_alpha = np.dstack([reversed_frame, frame[..., 0]])
    assert np.array_equal(mask(seg, with_alpha, channels="bgr"), mask(seg, frame))
    # Pillow and files know their own order.
    assert np.array_equal(mask(seg, Image.fromarray(frame), channels="bgr"), mask(seg, frame))
    grey = frame[..., 0]
    assert np.array_equal(mask(seg, grey, channels="bgr"), mask(seg, grey))
    assert np.array_equal(mask(seg, grey), mask(seg, np.dstack([grey] * 3)))


def test_every_mode_of_pillow_is_converted_or_refused(seg, frame):
    photo = Image.fromarray(frame)
    for mode in ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA"]:
        converted = photo.convert(mode)
        assert np.array_equal(mask(seg, converted), mask(seg, np.asarray(converted.convert("RGB")))), mode
    for mode in ["I", "F", "HSV", "LAB"]:
        image = photo.convert("L").convert(mode) if mode in {"I", "F"} else Image.new(mode, (64, 48))
        with pytest.raises(rtformer.InputError, match=f'mode "{mode}"'):
            seg(image)


def test_the_frame_is_copied(seg, frame):
    """Changing a frame while others are computed does not change the results."""
    expected = mask(seg, frame)

    def frames():
        buffer = frame.copy()
        for _ in range(4):
            buffer[:] = frame
            yield buffer
            buffer[:] = 0

    for scene in seg.stream(frames(), prefetch=3):
        assert np.array_equal(scene.mask, expected)


@pytest.mark.parametrize(
    ("frame", "error", "text"),
    [
        (np.zeros((48, 64, 3), np.float32), rtformer.InputError, "dtype float32 .* expected uint8"),
        (np.zeros((48, 64, 3), np.uint16), rtformer.InputError, "dtype uint16"),
        (np.zeros((48, 64, 3), bool), rtformer.InputError, "dtype bool"),
        (np.zeros((3, 48, 64), np.uint8), rtformer.InputError, r"shape \[3, 48, 64\] .*transpose\(1, 2, 0\)"),
        (np.zeros((2, 48, 64, 3), np.uint8), rtformer.InputError, "batch"),
        (np.zeros((48, 64, 2), np.uint8), rtformer.InputError, "1, 3 or 4 channels"),
        (np.zeros(48, np.uint8), rtformer.InputError, r"shape \[48\]"),
        (np.zeros((0, 64, 3), np.uint8), rtformer.InputError, "no pixels"),
        (7, rtformer.FrameTypeError, "int is not a frame: expected a path"),
        (None, rtformer.FrameTypeError, "NoneType"),
        ([[1, 2], [3, 4]], rtformer.FrameTypeError, "list"),
        (io.BytesIO(b""), rtformer.FrameTypeError, "BytesIO"),
        (array.array("B", [1, 2]), rtformer.FrameTypeError, "array"),
        (b"no image", rtformer.ImageError, "bytes: "),
        ("none.jpg", rtformer.NotFoundError, "none.jpg: cannot be read"),
    ],
)
def test_what_is_no_frame_says_so(seg, frame, error, text):
    with pytest.raises(error, match=text):
        seg(frame)


def test_channels_have_two_names(seg, frame):
    with pytest.raises(ValueError, match='invalid channels "RGB": expected "rgb" or "bgr"'):
        seg(frame, channels="RGB")
    with pytest.raises(TypeError):
        seg(frame, channels=3)


def test_a_device_array_is_refused_with_its_reason(seg):
    class OnGpu:
        def __dlpack__(self, **options):
            raise BufferError("device cuda:0")

        def __dlpack_device__(self):
            return (2, 0)

    with pytest.raises(rtformer.FrameTypeError, match="copy it to the CPU first"):
        seg(OnGpu())
