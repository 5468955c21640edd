"""Segments photos on a local Ray cluster of two nodes while an actor, a driver and a node die. Run by `make cluster`.

Each node has one CPU and each actor half of one. A server on the loopback interface delivers the photos and counts which were read, so that work
that is done twice is visible. The script fails unless every photo has exactly one row, all masks equal those of the command line, and nothing
was spilled.
"""

from __future__ import annotations

import argparse
import collections
import functools
import http.server
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict

# Ray's own switch for the loopback interface. Other machines cannot reach the cluster.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import numpy as np
import pyarrow.parquet as pq
import ray
from PIL import Image
from ray.cluster_utils import Cluster

STREET = pathlib.Path(__file__).parents[2] / "tests/data/street"
BAD = {"bad-empty.jpg": b"", "bad-text.jpg": b"not a photo", "bad-cut.jpg": None}
NODE = {"num_cpus": 1, "object_store_memory": 150 << 20}


def photos(folder: pathlib.Path, count: int) -> None:
    """Different crops of the street photos, and a few files that are no photos."""
    street = [Image.open(path) for path in sorted(STREET.rglob("*.jpg"))]
    for i in range(count - len(BAD)):
        photo = street[i % len(street)]
        photo.crop((i % 13, i % 7, photo.width, photo.height)).save(folder / f"{i:04}.jpg", quality=90)
    whole = (folder / "0000.jpg").read_bytes()
    for name, content in BAD.items():
        (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)


class Server:
    """Serves a folder and counts how often each file was read."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.reads: collections.Counter[str] = collections.Counter()
        self.times: list[float] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(handler):
                self.reads[handler.path.rsplit("/", 1)[-1]] += 1
                self.times.append(time.monotonic())
                super().do_GET()

            def log_message(self, *_):
                pass

        handler = functools.partial(Handler, directory=os.fspath(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def drive(address: str, out: str, rows: int, uris: list[str]) -> None:
    """A driver, in a process of its own so that it can be killed."""
    import rtformer.ray
    from ray.data import ActorPoolStrategy, DataContext

    ray.init(address, log_to_driver=False)
    DataContext.get_current().enable_progress_bars = False
    started = time.monotonic()
    pool = ActorPoolStrategy(size=4)
    done = rtformer.ray.segment_to_parquet(uris, out, rows_per_shard=rows, batch_size=8, num_cpus=0.5, compute=pool)
    # Not printed: Ray's messages about dead nodes can follow on standard output.
    pathlib.Path(f"{out}.json").write_text(json.dumps({**asdict(done), "seconds": time.monotonic() - started}))


class Driver:
    def __init__(self, address: str, out: pathlib.Path, rows: int, uris: list[str]) -> None:
        self.log = tempfile.TemporaryFile("w+")
        self.done = pathlib.Path(f"{out}.json")
        command = [sys.executable, __file__, "--drive", address, os.fspath(out), str(rows)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, text=True)
        self.process.stdin.write("\n".join(uris))
        self.process.stdin.close()

    def summary(self) -> dict:
        if self.process.wait() != 0:
            self.log.seek(0)
            sys.exit(f"the driver failed:\n{self.log.read()[-5000:]}")
        return json.loads(self.done.read_text())


def actors() -> list[dict]:
    """The living actors that segment."""
    alive = [actor for actor in ray._private.state.actors().values() if actor["State"] == "ALIVE"]
    return [actor for actor in alive if "MapWorker" in actor["ActorClassName"]]


def stores(head: ray._private.node.Node) -> tuple[int, int]:
    """Bytes in the object stores of all nodes, and bytes that they spilled."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    stats = get_memory_info_reply(get_state_from_address(None), head.node_ip_address, head.node_manager_port).store_stats
    return stats.object_store_bytes_used, stats.spilled_bytes_total


def main(count: int) -> None:
    work = pathlib.Path(tempfile.mkdtemp(prefix="rtformer-cluster-"))
    (work / "photos").mkdir()
    photos(work / "photos", count)
    server = Server(work / "photos")
    uris = [f"{server.uri}/{path.name}" for path in sorted((work / "photos").iterdir())]

    started = time.monotonic()
    command = [sys.executable, "-m", "rtformer", "segment", work / "photos", "-o", work / "one", "--emit", "mask", "--json", "-q"]
    one = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    one_rate = count / (time.monotonic() - started)
    lines = [json.loads(line) for line in one.stdout.splitlines()]
    expected = {pathlib.Path(line["path"]).name: line.get("digest") for line in lines}
    assert one.returncode == 1 and len(expected) == count, "the command line reports every photo and fails for the bad ones"

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    second = cluster.add_node(**NODE)
    ray.init(cluster.address, log_to_driver=False)

    whole = Driver(cluster.address, work / "whole", count, uris).summary()
    whole_rate = count / (max(server.times) - min(server.times))
    first_reads = sum(server.reads.values()) // count
    check(work / "whole", work / "one", uris, expected)
    server.reads.clear()

    events: dict[str, int] = {}
    largest = spilled = drivers = 0
    rows = count // 5
    started = time.monotonic()
    driver = Driver(cluster.address, work / "killed", rows, uris)
    while driver.process.poll() is None:
        read = len(server.reads)
        used, spilled_now = stores(cluster.head_node)
        largest, spilled = max(largest, used), max(spilled, spilled_now)
        if "actor" not in events and read >= count / 3 and (alive := actors()):
            os.kill(alive[0]["Pid"], signal.SIGKILL)
            events["actor"] = read
        elif "driver" not in events and read >= count / 2:
            driver.process.kill()
            driver.process.wait()
            events["driver"] = read
            finished = len(list((work / "killed").glob("shard-*.parquet")))
            started_shards = {uris.index(f"{server.uri}/{name}") // rows for name in list(server.reads)}
            driver = Driver(cluster.address, work / "killed", rows, uris)
        elif "node" not in events and read >= 2 * count / 3 and any(a["Address"]["NodeID"] == second.node_id for a in actors()):
            cluster.remove_node(second, allow_graceful=False)
            events["node"] = read
            cluster.add_node(**NODE)
        time.sleep(0.1)
    killed = driver.summary()
    seconds = time.monotonic() - started
    assert len(events) == 3, f"not everything was killed: {events}"
    assert killed["skipped"] >= finished >= len(started_shards) - 1, "the second driver repeats at most one shard"
    check(work / "killed", work / "one", uris, expected)
    assert spilled == 0, f"{spilled} bytes were spilled"
    repeated = {name: reads for name, reads in server.reads.items() if reads > first_reads}

    report = {
        "photos": count,
        "rows": killed["rows"],
        "rows_with_an_error": killed["errors"],
        "killed_after_photos_read": events,
        "photos_done_again": len(repeated),
        "shards": killed["shards"],
        "shards_finished_before_the_driver_died": finished,
        "shards_skipped_by_the_second_driver": killed["skipped"],
        "spilled_bytes": spilled,
        "largest_object_stores_bytes": largest,
        "photos_per_second": {
            "one process": round(one_rate, 1),
            "cluster": round(count / whole["seconds"], 1),
            "cluster, once its actors have started": round(whole_rate, 1),
            "cluster with deaths": round(count / seconds, 1),
        },
    }
    print(json.dumps(report, indent=2))
    ray.shutdown()
    cluster.shutdown()


def check(folder: pathlib.Path, one: pathlib.Path, uris: list[str], expected: dict[str, str | None]) -> None:
    """Checks every row against the command line's results."""
    table = pq.read_table(folder)
    assert sorted(table["uri"].to_pylist()) == uris, "every photo has exactly one row"
    for row in table.to_pylist():
        name = row["uri"].rsplit("/", 1)[-1]
        assert row["digest"] == expected[name], f"{name}: {row['digest']} instead of {expected[name]}; {row['error']}"
        assert (row["error"] is not None) == (name in BAD), f"{name}: {row['error']}"
        if row["error"] is None:
            mask = np.asarray(Image.open(io.BytesIO(row["mask_png"])))
            assert np.array_equal(mask, np.asarray(Image.open(one / name.replace(".jpg", ".mask.png")))), name
            assert abs(sum(c["share"] for c in row["classes"]) - 1) < 1e-9 and 0 < row["mean_confidence"] <= 1, name
        else:
            assert row["uri"] in row["error"] and row["mask_png"] is None, row["error"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        address, out, rows = arguments.drive
        drive(address, out, int(rows), sys.stdin.read().splitlines())
    else:
        main(arguments.photos)
