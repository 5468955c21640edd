"""Segment photos that a table names, and return their masks as a table.

This is the part that :mod:`rtformer.ray` and :mod:`rtformer.daft` share. Use it directly wherever rows arrive as Arrow data, for example in
Spark's ``mapInArrow``. It needs ``pyarrow``.

A row that fails has an ``error`` and no mask. No photo raises an exception, so one bad file never stops a job.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Optional, TypeVar, Union
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.fs

import rtformer

__all__ = ["LONGEST", "Segment", "check", "fields", "locate", "read"]

LONGEST = 2 << 30
"""The longest file that is read from a remote store, in bytes. It is also the limit for local files."""

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)
_CLASS = pa.struct([("id", pa.int32()), ("name", pa.string()), ("share", pa.float64())])


def fields(out: str = "mask_png") -> list[pa.Field]:
    """The columns that :class:`Segment` adds.

    - ``mask_png`` (the name is ``out``): an indexed PNG as bytes; the index is the class id
    - ``digest``: the SHA-256 of the mask, equal to ``digest`` of ``rtformer segment --json``
    - ``classes``: ``{id, name, share}`` of the classes that occur, largest share first; the share is 0 to 1
    - ``mean_confidence``: the mean probability of the pixels' classes, 0 to 1
    - ``error``: why the photo has no mask; null if it has one
    """
    return [
        pa.field(out, pa.binary()),
        pa.field("digest", pa.string()),
        pa.field("classes", pa.list_(_CLASS)),
        pa.field("mean_confidence", pa.float64()),
        pa.field("error", pa.string()),
    ]


class Segment:
    """Segments the photos that a column names.

    Args:
        uri: The column with the photos' URIs: local paths, ``file://``, and what ``pyarrow.fs`` (``s3://``, ``gs://``, ``hdfs://``) or an
            installed ``fsspec`` file system reads.
        weights: As for :class:`rtformer.Segmenter`. A path must exist on every machine.
        out: The name of the column with the masks.
        readers: The number of remote photos that are read at the same time.
        options: The other arguments of :class:`rtformer.Segmenter`: ``device``, ``precision``, ``threads``, ``size``.

    The segmenter is opened when the object is created, so create it where it is used: in the actor or task.
    """

    def __init__(
        self,
        uri: str = "uri",
        weights: Optional[str] = None,
        out: str = "mask_png",
        *,
        readers: int = 4,
        **options: Any,
    ) -> None:
        if readers < 1:
            raise ValueError(f"readers is {readers}; expected at least 1")
        self.uri = uri
        self.fields = fields(out)
        options.setdefault("confidence", True)
        self.segmenter = rtformer.Segmenter(weights, **options)
        self._ahead = readers
        self._readers = ThreadPoolExecutor(readers, "rtformer-read")

    def __call__(self, rows: Rows) -> Rows:
        """Returns the rows with the columns of :func:`fields` appended.

        Raises:
            ValueError: The column of URIs is missing, or a column has the name of a new one.
            TypeError: The column does not contain strings.
        """
        check(rows.schema, self.uri, self.fields)
        found = list(self.results(rows.column(self.uri).to_pylist()))
        columns = [pa.array([row[field.name] for row in found], field.type) for field in self.fields]
        schema = pa.schema([*rows.schema, *self.fields], metadata=rows.schema.metadata)
        return type(rows).from_arrays([*rows.columns, *columns], schema=schema)

    def results(self, uris: Iterable[Optional[str]]) -> Iterator[dict[str, Any]]:
        """For each photo, in order, the values of :func:`fields` by name. Missing values are null."""
        for uri, photo in self._read_ahead(uris):
            yield self._result(uri, photo)

    def _read_ahead(self, uris: Iterable[Optional[str]]) -> Iterator[tuple[Optional[str], Future]]:
        waiting: deque[tuple[Optional[str], Future]] = deque()
        for uri in uris:
            waiting.append((uri, self._readers.submit(read, uri)))
            if len(waiting) > self._ahead:
                yield waiting.popleft()
        yield from waiting

    def _result(self, uri: Optional[str], photo: Future) -> dict[str, Any]:
        try:
            scene = self.segmenter(photo.result())
            values = [
                scene.mask_png(),
                scene.digest,
                [{"id": c.id, "name": c.name, "share": c.share} for c in scene.classes],
                scene.mean_confidence,
                None,
            ]
        except Exception as error:  # of any kind: decoders, stores and the network fail in different ways
            ours = isinstance(error, rtformer.Error)
            reason = str(error).removeprefix("bytes: ") if ours else f"{type(error).__name__}: {error}"
            values = [None, None, None, None, reason if uri is None or uri in reason else f"{uri}: {reason}"]
        return {field.name: value for field, value in zip(self.fields, values)}


def check(schema: pa.Schema, uri: str, added: list[pa.Field]) -> None:
    """Checks that rows with this schema can be segmented.

    Raises:
        ValueError: The column of URIs is missing, or a column has the name of a new one.
        TypeError: The column of URIs does not contain strings.
    """
    if uri not in schema.names:
        raise ValueError(f"there is no column {uri!r}; the columns are {', '.join(schema.names) or 'none'}")
    kind = schema.field(uri).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise TypeError(f"the column {uri!r} has the type {kind}; expected strings that name photos")
    taken = [field.name for field in added if field.name in schema.names]
    if taken:
        raise ValueError(f"the rows already have a column {taken[0]!r}; drop or rename it, or choose another `out`")


def read(uri: Optional[str]) -> Union[str, bytes]:
    """A remote photo's bytes, or a local photo's path.

    Raises:
        ValueError: The URI is null, or no installed file system reads it.
        OSError: The file cannot be read, or is longer than :data:`LONGEST`.
    """
    if uri is None:
        raise ValueError("the URI is null; expected a path or a URI")
    if "://" not in uri:
        return uri
    if uri.startswith("file://"):
        return _file(uri)
    system, path = locate(uri)
    with system.open_input_file(path) as file:
        if file.size() > LONGEST:
            raise OSError(f"is {file.size()} bytes long; the limit is {LONGEST}")
        return file.read()


def locate(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a path or URI, and the path in it. Options follow a `?`, as in ``pyarrow.fs.FileSystem.from_uri``.

    Raises:
        ValueError: No installed file system reads this URI.
    """
    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), os.path.abspath(uri)
    scheme, rest = uri.split("://", 1)
    if scheme == "file":
        return pyarrow.fs.LocalFileSystem(), os.path.abspath(_file(uri))
    rest, _, options = (rest, "", "") if scheme.startswith("http") else rest.partition("?")
    host, _, path = rest.partition("/")
    # Only the host: pyarrow rejects spaces in the rest, which keys and file names may contain.
    system, start = _system(scheme, host, options)
    return system, f"{start.rstrip('/')}/{path}" if start else path


def _file(uri: str) -> str:
    """The path of a `file://` URI. Some programs, such as Daft, write relative paths and do not escape characters."""
    path = uri.removeprefix("file://").removeprefix("localhost")
    return path if os.path.exists(path) else url2pathname(path)


@functools.lru_cache(maxsize=64)
def _system(scheme: str, host: str, options: str) -> tuple[pyarrow.fs.FileSystem, str]:
    base = f"{scheme}://{host}/" + (f"?{options}" if options else "")
    try:
        return pyarrow.fs.FileSystem.from_uri(base)
    except pa.ArrowInvalid as unknown:
        # Such as `https://` and `az://`.
        try:
            import fsspec
        except ImportError:
            raise ValueError(f"pyarrow does not read {scheme}:// ({unknown}), and fsspec is not installed") from None
        system, start = fsspec.core.url_to_fs(base)
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(system)), start
