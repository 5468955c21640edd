"""The exceptions of rtformer. Each is also the built-in exception that fits, so `except FileNotFoundError` works."""

__all__ = [
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
    "VideoError",
    "WeightsError",
]


class Error(Exception):
    """The base of all exceptions of rtformer. The text names the file and says what is wrong and what to do."""


class NotFoundError(Error, FileNotFoundError):
    """A file does not exist."""


class FileError(Error, OSError):
    """A file cannot be read or written."""


class ImageError(Error, ValueError):
    """A file or bytes are not an image that can be decoded."""


class VideoError(Error, ValueError):
    """A video cannot be read: it is damaged or empty, or the program ffmpeg, which it needs, is missing or failed."""


class WeightsError(Error, ValueError):
    """A weights file is damaged, unknown, or does not fit the network."""


class InputError(Error, ValueError):
    """An argument or a frame is invalid, such as an array of the wrong shape or dtype."""


class FrameTypeError(Error, TypeError):
    """An object is not a frame, or not one on the CPU."""


class DeviceError(Error, RuntimeError):
    """A device or precision is not available."""


class OutOfMemoryError(Error, MemoryError):
    """The machine or the device has too little memory."""


class DownloadError(Error, OSError):
    """A download failed or is not allowed."""


class InternalError(Error, RuntimeError):
    """A defect of rtformer. Please report it."""
