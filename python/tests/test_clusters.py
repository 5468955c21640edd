"""rtformer.arrow, rtformer.ray and rtformer.daft. Each part is skipped if what it needs is not installed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rtformer

pa = pytest.importorskip("pyarrow")

import rtformer.arrow  # noqa: E402


@pytest.fixture(scope="module")
def digests(program, street, tiny):
    """The command line's digests, by path."""
    lines = program("segment", *street, "--weights", tiny, "--json", "-q").stdout.splitlines()
    return {line["path"]: line["digest"] for line in map(json.loads, lines)}


@pytest.fixture
def uris(street, tmp_path):
    """Every street photo and two bad ones."""
    (tmp_path / "bad.jpg").write_text("not a photo")
    return [str(path) for path in street] + [str(tmp_path / "bad.jpg"), str(tmp_path / "none.jpg")]


def check(rows, uris, digests, out="mask_png"):
    """Checks rows, as dictionaries in any order, against the command line."""
    assert sorted(row["uri"] for row in rows) == sorted(uris)
    for row in rows:
        assert row["digest"] == digests.get(row["uri"]), row["uri"]
        if row["uri"] in digests:
            assert row["error"] is None
            assert row[out].startswith(b"\x89PNG")
            assert sum(c["share"] for c in row["classes"]) == pytest.approx(1)
            assert 0 < row["mean_confidence"] <= 1
        else:
            assert row["uri"] in row["error"]
            assert row[out] is None and row["classes"] is None and row["mean_confidence"] is None


def test_rows_have_masks_or_errors(uris, digests, tiny):
    segment = rtformer.arrow.Segment("uri", str(tiny), "mask")
    table = pa.table({"n": range(len(uris)), "uri": uris}, metadata={"made by": "a test"})
    result = segment(table)
    check(result.to_pylist(), uris, digests, "mask")
    assert result["uri"].to_pylist() == uris, "in order"
    assert result.schema.names == ["n", "uri", "mask", "digest", "classes", "mean_confidence", "error"]
    assert result.schema.metadata == table.schema.metadata
    batch = table.slice(2, 1).to_batches()[0]
    assert segment(batch).to_pylist() == result.slice(2, 1).to_pylist()
    assert segment(table.slice(0, 0)).schema == result.schema
    for row in result.to_pylist()[:6]:
        scene = segment.segmenter(row["uri"])
        assert row["mask"] == scene.mask_png()
        assert row["mean_confidence"] == scene.mean_confidence


def test_uris_name_files_in_every_way(tmp_path, monkeypatch, street, digests, tiny):
    content = street[0].read_bytes()
    odd = tmp_path / "a b#%20?ü.jpg"
    odd.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    good = [str(odd), odd.name, odd.as_uri(), odd.as_uri().replace("file:///", "file://localhost/")]
    good += [f"file://{odd}", f"file://{odd.name}"]  # as Daft writes them
    bad = {
        None: "the URI is null",
        "": "",
        "file://elsewhere/a.jpg": "elsewhere/a.jpg",
        "nonsense://a/b.jpg": "nonsense",
        str(tmp_path): str(tmp_path),
    }
    try:
        import fsspec
    except ImportError:
        pass
    else:
        fsspec.filesystem("memory").pipe("/photos/a b#%20.jpg", content)
        good.append("memory://photos/a b#%20.jpg")
        bad["memory://photos/none.jpg"] = "FileNotFoundError"
    rows = list(rtformer.arrow.Segment(weights=str(tiny), readers=2).results([*good, *bad]))
    for uri, row in zip(good, rows):
        assert row["digest"] == digests[str(street[0])], (uri, row)
    for (uri, why), row in zip(bad.items(), rows[len(good) :]):
        assert row["digest"] is None and why in row["error"] and (uri or "") in row["error"], (uri, row)


@pytest.mark.parametrize(
    ("columns", "options", "error", "why"),
    [
        ({"path": ["a"]}, {}, ValueError, "the columns are path"),
        ({"uri": [1]}, {}, TypeError, "int64"),
        ({"uri": ["a"], "digest": ["b"]}, {}, ValueError, "'digest'"),
        ({"uri": ["a"]}, {"out": "uri"}, ValueError, "'uri'"),
        ({"uri": ["a"]}, {"readers": 0}, ValueError, "readers is 0"),
        ({"uri": ["a"]}, {"weights": "none.safetensors"}, FileNotFoundError, "none.safetensors"),
    ],
)
def test_wrong_arguments_are_named(columns, options, error, why, tiny):
    with pytest.raises(error, match=why):
        rtformer.arrow.Segment(**{"weights": str(tiny), **options})(pa.table(columns))


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


def test_ray_uses_the_cpus_that_it_was_assigned(ray, tiny):
    import rtformer.ray

    weights = str(tiny)

    def threads():
        return rtformer.ray.Segment(weights=weights).segmenter.threads

    remote = ray.remote(threads)
    assert ray.get([remote.options(num_cpus=cpus).remote() for cpus in (0.5, 1, 2)]) == [1, 1, 2]


def test_ray_adds_columns(ray, uris, digests, tiny):
    import rtformer.ray

    dataset = ray.data.from_items([{"uri": uri, "n": n} for n, uri in enumerate(uris)])
    rows = rtformer.ray.segment(dataset, weights=str(tiny), out="mask", num_cpus=0.5, rows_per_block=3).take_all()
    check(rows, uris, digests, "mask")
    assert all(uris[row["n"]] == row["uri"] for row in rows)


def test_ray_resumes_by_shard(ray, uris, digests, tiny, tmp_path):
    import pyarrow.parquet as pq
    import rtformer.ray

    out = tmp_path / "out"

    def run(uris=uris, **options):
        options = {"weights": str(tiny), "rows_per_shard": 3, "batch_size": 2, "num_cpus": 0.5, **options}
        return rtformer.ray.segment_to_parquet(uris, str(out), **options)

    assert run() == rtformer.ray.Summary(rows=8, errors=2, shards=3, skipped=0)
    check(pq.read_table(out).to_pylist(), uris, digests)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(before) == ["_manifest.parquet", "shard-00000.parquet", "shard-00001.parquet", "shard-00002.parquet"]

    # As after a crash: one shard is missing, one is cut off, and there is an unfinished file.
    (out / "shard-00001.parquet").unlink()
    (out / "shard-00002.parquet").write_bytes(before["shard-00002.parquet"][:100])
    (out / ".shard-00001.parquet.1234.part").write_bytes(b"half")
    dataset = ray.data.from_items([{"uri": uri} for uri in reversed(uris)])
    assert run(dataset) == rtformer.ray.Summary(rows=8, errors=2, shards=3, skipped=1)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before, "a repeated shard has the same bytes"

    (out / "shard-00000.parquet").write_bytes(before["shard-00001.parquet"])
    with pytest.raises(rtformer.ray.ManifestError, match="shard-00000.parquet: is not shard 0 of this job"):
        run()
    for photos, options, why in [
        (uris[1:], {}, "1 photos are gone"),
        ([*uris, "new.jpg"], {}, "1 photos are new, such as new.jpg"),
        (uris, {"rows_per_shard": 4}, "rows_per_shard was 3 and is 4"),
        (uris, {"size": "64x64"}, "size was None and is '64x64'"),
    ]:
        with pytest.raises(rtformer.ray.ManifestError, match=why):
            run(photos, **options)
    (out / "_manifest.parquet").unlink()
    with pytest.raises(rtformer.ray.ManifestError, match="_manifest.parquet is missing"):
        run()
    for photos, why in [([], "no photos"), (["a", "b", "a"], "a occurs twice"), (["a", None], "None is not a string")]:
        with pytest.raises(ValueError, match=why):
            run(photos)


def test_daft_adds_columns(uris, digests, tiny):
    daft = pytest.importorskip("daft")
    import rtformer.daft

    frame = daft.from_pydict({"uri": uris, "n": list(range(len(uris)))})
    rows = rtformer.daft.segment(frame, "uri", str(tiny), "mask", cpus=1).to_pylist()
    check(rows, uris, digests, "mask")
    assert all(uris[row["n"]] == row["uri"] for row in rows)
    with pytest.raises(ValueError, match="no column 'path'"):
        rtformer.daft.segment(frame, uri="path")


BOOK = Path(__file__).parents[2] / "docs/book/src/clusters.md"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", BOOK.read_text(encoding="utf-8"), re.DOTALL))
def test_the_books_examples_run(code, street, tmp_path):
    """PySpark also needs Java."""
    import pyarrow.parquet as pq

    for module in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE) + re.findall(r"rtformer\.(ray|daft)", code):
        pytest.importorskip(module)
    (tmp_path / "photos").mkdir()
    for name, photo in zip(["corner", "crossing"], street):
        (tmp_path / f"photos/{name}.jpg").symlink_to(photo)
    env = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0, done.stderr
    seg = rtformer.Segmenter(device="cpu")
    assert sorted(pq.read_table(tmp_path / "masks")["digest"].to_pylist()) == sorted(seg(photo).digest for photo in street[:2])
