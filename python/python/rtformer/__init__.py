"""Real-time semantic segmentation of street scenes: the class of every pixel of a photo.

OpenCV's arrays are BGR. Say so, or the masks are worse without an error::

    seg = rtformer.Segmenter()
    scene = seg(cv2.imread("street.jpg"), channels="bgr")

Everything else is RGB by default: `seg("street.jpg")`, Pillow images, and arrays `[height, width, 3]`.
"""

from rtformer._rtformer import ClassShare, Scene, Segmenter, Stream, Timings, Video, __version__
from rtformer.errors import (
    DeviceError,
    DownloadError,
    Error,
    FileError,
    FrameTypeError,
    ImageError,
    InputError,
    InternalError,
    NotFoundError,
    OutOfMemoryError,
    VideoError,
    WeightsError,
)

__all__ = [
    "ClassShare",
    "DeviceError",
    "DownloadError",
    "Error",
    "FileError",
    "FrameTypeError",
    "ImageError",
    "InputError",
    "InternalError",
    "NotFoundError",
    "OutOfMemoryError",
    "Scene",
    "Segmenter",
    "Stream",
    "Timings",
    "Video",
    "VideoError",
    "WeightsError",
    "__version__",
]
