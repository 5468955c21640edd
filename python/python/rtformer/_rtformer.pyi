import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, final, overload

import numpy as np
from numpy.typing import NDArray

from rtformer.errors import Error

__all__ = ["ClassShare", "Scene", "Segmenter", "Stream", "Timings", "Video", "__version__", "_main"]

__version__: str

class _ArrayInterface(Protocol):
    @property
    def __array_interface__(self) -> dict[str, Any]: ...

class _DLPack(Protocol):
    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> Any: ...

_Path: TypeAlias = str | os.PathLike[str]
_Frame: TypeAlias = _Path | bytes | bytearray | memoryview | NDArray[np.uint8] | _ArrayInterface | _DLPack
_Channels: TypeAlias = Literal["rgb", "bgr"]

class _Measures(TypedDict):
    miou: float | None
    pixel_accuracy: float | None
    ece: float | None
    iou: dict[str, float | None]
    classes: list[str]
    confusion: list[list[int]]
    images: int
    pixels: int
    ignored_share: float | None
    failed: int
    errors: list[str]

@final
class ClassShare:
    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def color(self) -> tuple[int, int, int]: ...
    @property
    def share(self) -> float: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class Timings:
    @property
    def decode(self) -> float: ...
    @property
    def prepare(self) -> float: ...
    @property
    def model(self) -> float: ...
    @property
    def argmax(self) -> float: ...
    @property
    def total(self) -> float: ...

@final
class Scene:
    @property
    def mask(self) -> NDArray[Any]: ...
    @property
    def confidence(self) -> NDArray[np.float32] | None: ...
    @property
    def mean_confidence(self) -> float | None: ...
    @property
    def logits(self) -> NDArray[np.float32] | None: ...
    @property
    def classes(self) -> list[ClassShare]: ...
    @property
    def palette(self) -> NDArray[np.uint8]: ...
    @property
    def digest(self) -> str: ...
    @property
    def timings(self) -> Timings: ...
    @property
    def compute_share(self) -> float: ...
    @property
    def number(self) -> int | None: ...
    @property
    def time(self) -> float | None: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    def overlay(self, alpha: float = 0.5) -> Any: ...
    def save_mask(self, path: _Path) -> None: ...
    def save_overlay(self, path: _Path, alpha: float = 0.5) -> None: ...
    def mask_png(self) -> bytes: ...

@final
class Stream:
    def __iter__(self) -> Stream: ...
    def __next__(self) -> Any: ...

@final
class Video:
    @property
    def fps(self) -> float: ...
    @property
    def dropped(self) -> int: ...
    def __iter__(self) -> Video: ...
    def __next__(self) -> Scene: ...

@final
class Segmenter:
    def __new__(
        cls,
        weights: _Path | None = None,
        device: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
        size: str = "native",
        confidence: bool = True,
        *,
        logits: bool = False,
        reject_below: float | None = None,
        pad: int | Literal["none"] | None = None,
        adaptive: float | None = None,
    ) -> Segmenter: ...
    def __call__(self, frame: _Frame, *, channels: _Channels = "rgb") -> Scene: ...
    @overload
    def batch(
        self, frames: Iterable[_Frame], *, channels: _Channels = "rgb", return_exceptions: Literal[False] = False
    ) -> list[Scene]: ...
    @overload
    def batch(
        self, frames: Iterable[_Frame], *, channels: _Channels = "rgb", return_exceptions: bool
    ) -> list[Scene | Error]: ...
    @overload
    def stream(
        self,
        frames: Iterable[_Frame],
        prefetch: int = 2,
        *,
        channels: _Channels = "rgb",
        return_exceptions: Literal[False] = False,
    ) -> Iterator[Scene]: ...
    @overload
    def stream(
        self,
        frames: Iterable[_Frame],
        prefetch: int = 2,
        *,
        channels: _Channels = "rgb",
        return_exceptions: bool,
    ) -> Iterator[Scene | Error]: ...
    def video(
        self,
        input: _Path,
        *,
        every: int = 1,
        start: float = 0.0,
        duration: float | None = None,
        fps: float | None = None,
        realtime: bool = False,
        smooth: float | None = None,
        reuse: bool = False,
    ) -> Video: ...
    def eval(
        self,
        images: _Path | Sequence[_Path],
        labels: _Path | Sequence[_Path],
        *,
        label_kind: Literal["auto", "index", "color", "train-id", "label-id"] = "auto",
        first_id: int | None = None,
        ignore_id: int | Sequence[int] | None = None,
        label_suffix: str | None = None,
    ) -> _Measures: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def palette(self) -> NDArray[np.uint8]: ...
    @property
    def dataset(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]: ...

def _main(args: list[str]) -> int: ...
