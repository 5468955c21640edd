"""Segment the photos of a Daft data frame.

.. code-block:: python

    import daft, rtformer.daft

    photos = daft.from_glob_path("s3://bucket/photos/*.jpg")
    rtformer.daft.segment(photos, uri="path").write_parquet("s3://bucket/masks")

It runs on one machine, and on a Ray cluster after ``daft.set_runner_ray()``. Masks are bit-identical everywhere. It needs ``daft``.
"""

from __future__ import annotations

from typing import Any, Optional

import daft
import pyarrow as pa
from daft import DataFrame, DataType, Series

from rtformer import arrow

__all__ = ["Segment", "segment"]

_RESULT = DataType.from_arrow_type(pa.struct(arrow.fields()))


class Segment:
    """For ``daft.cls``: returns the columns of :func:`rtformer.arrow.fields` as one structure.

    The arguments are those of :class:`rtformer.arrow.Segment`, without the names of the columns.
    """

    def __init__(self, weights: Optional[str] = None, **options: Any) -> None:
        self._segment = arrow.Segment("uri", weights, **options)

    @daft.method.batch(return_dtype=_RESULT, batch_size=32)
    def __call__(self, uri: Series) -> pa.Array:
        rows = self._segment(pa.table({"uri": uri.to_arrow()}))
        return rows.drop_columns("uri").to_struct_array().combine_chunks()


def segment(
    frame: DataFrame,
    uri: str = "uri",
    weights: Optional[str] = None,
    out: str = "mask_png",
    *,
    cpus: Optional[int] = None,
    gpus: float = 0,
    max_concurrency: Optional[int] = None,
    **options: Any,
) -> DataFrame:
    """Segments the photos that a column names. Returns a lazy frame with the columns of :func:`rtformer.arrow.fields` appended. A photo that
    fails is a row with an ``error``.

    Args:
        frame: Rows with a URI; other columns are kept.
        uri, weights, out, options: As for :class:`rtformer.arrow.Segment`.
        cpus: CPUs per process, and the default of ``threads``. By default one process uses all CPUs of a machine.
        gpus: GPUs per process.
        max_concurrency: The largest number of processes.

    Raises:
        ValueError: The column of URIs is missing, or a column has the name of a new one.
        TypeError: The column does not contain strings.
    """
    arrow.check(frame.schema().to_pyarrow_schema(), uri, arrow.fields(out))
    if cpus is not None:
        options.setdefault("threads", max(1, cpus))
    options.setdefault("device", "auto" if gpus > 0 else "cpu")
    segmenter = daft.cls(Segment, cpus=cpus, gpus=gpus, max_concurrency=max_concurrency)(weights, **options)
    names = frame.column_names
    temporary = next(name for name in ("_rtformer" + "_" * i for i in range(len(names) + 1)) if name not in names)
    result = daft.col(temporary)
    columns = [result[field.name].alias(out if i == 0 else field.name) for i, field in enumerate(arrow.fields())]
    return frame.with_column(temporary, segmenter(frame[uri])).select(*names, *columns)
