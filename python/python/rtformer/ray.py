"""Segment millions of photos on a Ray cluster, with Ray Data.

.. code-block:: python

    import ray, rtformer.ray

    photos = ray.data.read_parquet("s3://bucket/photos.parquet")          # a column `uri`
    masks = rtformer.ray.segment(photos)                                  # a lazy dataset with masks
    rtformer.ray.segment_to_parquet(uris, "s3://bucket/masks")            # or a job that can be resumed

An actor reads, decodes, segments and encodes its photos, so only names and encoded masks, a few kilobytes per photo, pass through the object
store. It uses as many threads as it was assigned CPUs. Masks are bit-identical on every machine with the same weights and settings: a task that
Ray repeats produces the same bytes. It needs ``ray[data]`` on the driver, and this package on every node.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Optional, Union

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset

import rtformer
from rtformer import arrow

__all__ = ["ManifestError", "Segment", "Summary", "segment", "segment_to_parquet"]

MANIFEST = "_manifest.parquet"
"""Its name starts with `_`, so that readers of the folder skip it."""


class ManifestError(rtformer.Error, ValueError):
    """A folder holds the results of another job."""


class Segment(arrow.Segment):
    """A callable class for ``Dataset.map_batches``; the arguments are those of :class:`rtformer.arrow.Segment`.

    It takes and returns Arrow tables (``batch_format="pyarrow"``). The default of ``threads`` is the number of CPUs that were assigned to the
    actor, and one for a fraction of a CPU. The default of ``device`` is ``"auto"`` if a GPU was assigned, and otherwise ``"cpu"``.
    """

    def __init__(self, uri: str = "uri", weights: Optional[str] = None, out: str = "mask_png", **options: Any) -> None:
        assigned = ray.get_runtime_context().get_assigned_resources()
        options.setdefault("threads", max(1, int(assigned.get("CPU", 1))))
        options.setdefault("device", "auto" if assigned.get("GPU", 0) > 0 else "cpu")
        super().__init__(uri, weights, out, **options)


def segment(
    dataset: Dataset,
    uri: str = "uri",
    weights: Optional[str] = None,
    out: str = "mask_png",
    *,
    compute: Optional[ActorPoolStrategy] = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    batch_size: int = 32,
    rows_per_block: Optional[int] = 32,
    **options: Any,
) -> Dataset:
    """Segments the photos that the rows of a dataset name. Returns a lazy dataset: the rows with the columns of
    :func:`rtformer.arrow.fields`. A photo that fails is a row with an ``error``.

    Args:
        dataset: Rows with a URI; other columns are kept.
        uri, weights, out, options: As for :class:`rtformer.arrow.Segment`.
        compute: The pool of actors. The default grows from one actor as far as the cluster allows.
        num_cpus: CPUs per actor. Leave some CPUs to the tasks that read the dataset: if actors take all of them, the job waits for ever.
        num_gpus: GPUs per actor.
        batch_size: The number of photos per call.
        rows_per_block: Cuts the dataset into blocks of this many rows. One block is one task, and all actors have work only if there are more
            blocks than actors. ``None`` keeps the dataset's blocks.
    """
    if rows_per_block is not None:
        dataset = dataset.repartition(target_num_rows_per_block=rows_per_block)
    return dataset.map_batches(
        Segment,
        fn_constructor_kwargs={"uri": uri, "weights": weights, "out": out, **options},
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=compute or ActorPoolStrategy(min_size=1),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
        udf_modifying_row_count=False,
    )


@dataclass(frozen=True)
class Summary:
    """What :func:`segment_to_parquet` did."""

    rows: int
    """Photos in all shards."""
    errors: int
    """Photos among ``rows`` that have an ``error``."""
    shards: int
    """Shards in all."""
    skipped: int
    """Shards that an earlier run had finished."""


def segment_to_parquet(
    uris: Union[Iterable[str], Dataset],
    folder: str,
    *,
    uri: str = "uri",
    weights: Optional[str] = None,
    out: str = "mask_png",
    rows_per_shard: int = 10_000,
    batch_size: int = 32,
    compute: Optional[ActorPoolStrategy] = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **options: Any,
) -> Summary:
    """Segments photos and writes one Parquet file per shard of photos. If the driver is stopped, call it again with the same arguments.

    The job is fixed when it starts: the sorted URIs are cut into shards of ``rows_per_shard``, and ``_manifest.parquet`` in the folder records
    them with the settings. The shards are done one after another. ``shard-00000.parquet`` appears when all its photos are done: it is
    written with a temporary name and renamed, after a check that every URI of the shard occurs exactly once. A later call skips finished shards,
    so at most one shard is repeated. Run one driver per folder at a time.

    Rows with an ``error`` count as done. To repeat a shard, delete its file.

    Args:
        uris: The photos' URIs, in any order; or a dataset, of which the column ``uri`` is used.
        folder: Where to write: a local path that the driver can write to, or a URI for ``pyarrow.fs`` or ``fsspec``. Workers do not write.
        rows_per_shard: The driver holds one shard in memory: about 5 KB per photo of 480x360 pixels, and 30 KB for 2048x1024. Each
            shard starts its own actors, so a shard should take minutes.
        uri, weights, out, compute, num_cpus, num_gpus, batch_size, options: As for :func:`segment`.

    Raises:
        ManifestError: The folder's manifest or a shard is from other photos or settings. The message names the first difference.
        ValueError: A URI occurs twice, there are none, or ``rows_per_shard`` is not positive.
    """
    if rows_per_shard < 1:
        raise ValueError(f"rows_per_shard is {rows_per_shard}; expected at least 1")
    manifest = _Manifest(_sorted(uris, uri), rows_per_shard, _settings(weights, uri=uri, out=out, **options))
    store = _Store(*arrow.locate(folder))
    store.agree(manifest)

    rows = errors = skipped = 0
    for shard, ids in enumerate(manifest.shards()):
        done = store.finished(shard, ids, manifest)
        if done is None:
            # Made here, not by tasks, which would need CPUs that actors hold.
            photos = ray.data.from_items([{uri: id} for id in ids], override_num_blocks=math.ceil(len(ids) / batch_size))
            masks = segment(
                photos,
                uri,
                weights,
                out,
                compute=compute,
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                batch_size=batch_size,
                rows_per_block=None,
                **options,
            )
            done = store.write(shard, ids, masks, manifest)
        else:
            skipped += 1
        rows, errors = rows + len(ids), errors + done
    return Summary(rows, errors, shard + 1, skipped)


def _settings(weights: Optional[str], **others: Any) -> dict[str, Any]:
    """What decides the content of the shards, as JSON keeps it."""
    settings = {"rtformer": rtformer.__version__, "weights": weights, **others}
    if weights is not None and os.path.isfile(weights):
        with open(weights, "rb") as file:
            settings["weights_sha256"] = hashlib.sha256(file.read()).hexdigest()
    for key in ("device", "threads", "readers"):  # do not change masks, or not the settings that people compare
        settings.pop(key, None)
    return json.loads(json.dumps(settings, default=str))


def _sorted(uris: Union[Iterable[str], Dataset], column: str) -> list[str]:
    if isinstance(uris, Dataset):
        batches = uris.select_columns([column]).iter_batches(batch_size=None, batch_format="pyarrow")
        ids = [uri for batch in batches for uri in batch.column(column).to_pylist()]
    else:
        ids = list(uris)
    if not ids:
        raise ValueError("there are no photos: expected at least one URI")
    if wrong := [uri for uri in ids if not isinstance(uri, str)][:1]:
        raise ValueError(f"the URI {wrong[0]!r} is not a string")
    ids.sort()
    twice = next((uri for uri, following in itertools.pairwise(ids) if uri == following), None)
    if twice is not None:
        raise ValueError(f"{twice} occurs twice; expected each URI once, because it is the row's id")
    return ids


@dataclass(frozen=True)
class _Manifest:
    """What a job does, fixed when it starts."""

    ids: list[str]
    rows_per_shard: int
    settings: dict[str, Any]

    def shards(self) -> Iterator[list[str]]:
        return (self.ids[i : i + self.rows_per_shard] for i in range(0, len(self.ids), self.rows_per_shard))

    def table(self) -> pa.Table:
        columns = {"id": self.ids, "shard": [i // self.rows_per_shard for i in range(len(self.ids))]}
        schema = pa.schema([("id", pa.string()), ("shard", pa.int32())], metadata={"rtformer": self._about()})
        return pa.table(columns, schema=schema)

    def _about(self) -> str:
        return json.dumps({"rows_per_shard": self.rows_per_shard, "settings": self.settings}, sort_keys=True)

    @functools.cached_property
    def digest(self) -> str:
        """Identifies the job in its shards."""
        hashed = hashlib.sha256(self._about().encode())
        for uri in self.ids:
            hashed.update(b"\0" + uri.encode(errors="surrogateescape"))
        return hashed.hexdigest()

    @classmethod
    def of(cls, table: pa.Table) -> _Manifest:
        about = json.loads(table.schema.metadata[b"rtformer"])
        return cls(table.column("id").to_pylist(), about["rows_per_shard"], about["settings"])

    def difference(self, now: _Manifest) -> Optional[str]:
        """The first difference to the job that was started now, for people."""
        if self.rows_per_shard != now.rows_per_shard:
            return f"rows_per_shard was {self.rows_per_shard} and is {now.rows_per_shard}"
        for key in sorted(self.settings.keys() | now.settings.keys()):
            before, after = self.settings.get(key), now.settings.get(key)
            if before != after:
                return f"{key} was {before!r} and is {after!r}"
        gone, new = sorted(set(self.ids) - set(now.ids)), sorted(set(now.ids) - set(self.ids))
        counts = [f"{len(ids)} photos {what}, such as {ids[0]}" for ids, what in [(gone, "are gone"), (new, "are new")] if ids]
        return " and ".join(counts) or None


class _Store:
    """The folder with the manifest and the shards."""

    def __init__(self, system: pyarrow.fs.FileSystem, folder: str) -> None:
        self.system, self.folder = system, folder

    def agree(self, manifest: _Manifest) -> None:
        """Writes the manifest, or checks that it is the one in the folder. Removes unfinished files."""
        self.system.create_dir(self.folder, recursive=True)
        path = self._path(MANIFEST)
        files = self.system.get_file_info(pyarrow.fs.FileSelector(self.folder))
        if self._exists(path):
            difference = self._manifest(path).difference(manifest)
            if difference is not None:
                raise ManifestError(
                    f"{path}: describes another job: {difference}; resume with the same photos and settings, or choose another folder"
                )
        elif shards := [file.path for file in files if file.base_name.startswith("shard-")]:
            raise ManifestError(f"{shards[0]}: is from a job whose {MANIFEST} is missing; choose another folder")
        else:
            self._put(MANIFEST, manifest.table())
        for file in files:
            if file.base_name.startswith(".") and file.base_name.endswith(".part"):
                self.system.delete_file(file.path)

    def finished(self, shard: int, ids: list[str], manifest: _Manifest) -> Optional[int]:
        """The number of errors in a finished shard; ``None`` if it has to be done."""
        path = self._path(_name(shard))
        if not self._exists(path):
            return None
        try:
            with self.system.open_input_file(path) as file:
                footer = pq.ParquetFile(file)
                rows, about = footer.metadata.num_rows, footer.schema_arrow.metadata or {}
        except pa.ArrowInvalid:
            return None  # cut off, for example by a crash of the machine
        about = json.loads(about.get(b"rtformer", b"{}"))
        if (about.get("manifest"), about.get("shard"), rows) != (manifest.digest, shard, len(ids)):
            raise ManifestError(f"{path}: is not shard {shard} of this job; move it away, or choose another folder")
        return about["errors"]

    def write(self, shard: int, ids: list[str], masks: Dataset, manifest: _Manifest) -> int:
        """Does a shard. Returns its number of errors."""
        batches = masks.iter_batches(batch_size=None, batch_format="pyarrow")
        table = pa.concat_tables(batches)
        found = table.column(manifest.settings["uri"]).to_pylist()
        if sorted(found) != ids:
            raise rtformer.InternalError(f"shard {shard}: {len(found)} rows came back for {len(ids)} photos; please report it")
        # Tasks finish in any order. Sorted, a repeated shard is equal to the first.
        table = table.take(sorted(range(len(found)), key=found.__getitem__))
        errors = len(found) - table.column("error").null_count
        about = json.dumps({"manifest": manifest.digest, "shard": shard, "errors": errors})
        self._put(_name(shard), table.replace_schema_metadata({"rtformer": about}))
        return errors

    def _manifest(self, path: str) -> _Manifest:
        try:
            with self.system.open_input_file(path) as file:
                return _Manifest.of(pq.read_table(file))
        except (pa.ArrowInvalid, KeyError, TypeError) as error:
            raise ManifestError(f"{path}: is not a manifest of rtformer ({error}); choose another folder") from error

    def _put(self, name: str, table: pa.Table) -> None:
        """Writes a file completely or not at all."""
        part = self._path(f".{name}.{uuid.uuid4().hex}.part")
        with self.system.open_output_stream(part) as file:
            pq.write_table(table, file, row_group_size=1024)
        self.system.move(part, self._path(name))

    def _exists(self, path: str) -> bool:
        return self.system.get_file_info(path).type == pyarrow.fs.FileType.File

    def _path(self, name: str) -> str:
        return f"{self.folder.rstrip('/')}/{name}"


def _name(shard: int) -> str:
    return f"shard-{shard:05}.parquet"
