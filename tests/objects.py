"""Tests `rtformer segment` on an S3 server with injected failures: `make objects`.

The server is moto, on the loopback interface. Of its answers, 5 % fail in one of five ways: the server reports an error before or after it
did what was asked, the connection breaks off before or after, or the body is cut short. Needs moto[server] and boto3.
"""

import argparse
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections import Counter

import boto3
import botocore.config
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = ROOT / "tests/data/golden/tiny.safetensors"
BUCKET = "photos"


class Faults:
    """A WSGI application around moto that counts requests and breaks some of them."""

    def __init__(self, share):
        self.inner = DomainDispatcherApplication(create_backend_app)
        self.share, self.random, self.lock = share, random.Random(1), threading.Lock()
        self.active, self.log, self.injected = False, [], Counter()
        self.broken = set()  # keys that always fail
        self.before_put = {}  # key: what to do before it is written

    def kind(self):
        with self.lock:
            if not self.active or self.random.random() >= self.share:
                return None
            kind = self.random.choice(["error", "error after", "reset", "reset after", "cut"])
            self.injected[kind] += 1
            return kind

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], urllib.parse.unquote(environ["PATH_INFO"])
        if not environ.get("HTTP_USER_AGENT", "").startswith("object_store"):
            return self.inner(environ, start_response)
        with self.lock:
            self.log.append((method, path, environ.get("QUERY_STRING", "")))
        kind = "error" if path in self.broken else self.kind()
        if method == "PUT" and path in self.before_put:
            self.before_put.pop(path)()
        if kind in ("error", "reset"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return self.fail(start_response) if kind == "error" else self.reset(environ)
        answer = []
        body = b"".join(self.inner(environ, lambda status, headers, *_: answer.extend([status, headers])))
        if kind == "error after":
            return self.fail(start_response)
        if kind == "reset after":
            return self.reset(environ)
        status, headers = answer
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        if kind == "cut" and body:
            environ["werkzeug.socket"].settimeout(5)
            return Cut(body[: len(body) // 2], environ["werkzeug.socket"])
        return [b""] if method == "HEAD" else [body]

    @staticmethod
    def fail(start_response):
        start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", "38")])
        return [b"<Error><Code>SlowDown</Code></Error>  "]

    @staticmethod
    def reset(environ):
        shut(environ["werkzeug.socket"])
        raise ConnectionAbortedError("injected")

    def count(self, method, pattern):
        with self.lock:
            return sum(m == method and re.search(pattern, path) is not None for m, path, _ in self.log)

    def clear(self):
        with self.lock:
            self.log.clear()


class Cut:
    """The first half of a body, then the end of the connection."""

    def __init__(self, body, connection):
        self.body, self.connection = body, connection

    def __iter__(self):
        yield self.body
        shut(self.connection)
        raise ConnectionAbortedError("injected")


def shut(connection):
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass

    def run_wsgi(self):
        try:
            super().run_wsgi()
        except (ConnectionError, OSError):
            self.close_connection = True


def serve(application):
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def lister(names):
    """A server that only lists: `names[bucket]` is the number of keys and their form. Answers in pages of 1000, like S3."""

    def application(environ, start_response):
        query = urllib.parse.parse_qs(environ["QUERY_STRING"])
        count, form = names[environ["PATH_INFO"].strip("/")]
        first = int(query.get("continuation-token", ["0"])[0])
        prefix = query.get("prefix", [""])[0]
        row = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"{:032x}\"</ETag><Size>9</Size></Contents>"
        last = min(first + 1000, count)
        rows = "".join(row.format(prefix + form.format(i), i) for i in range(first, last))
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
        more = more if last < count else "<IsTruncated>false</IsTruncated>"
        body = f'<?xml version="1.0"?><ListBucketResult>{more}<KeyCount>{last - first}</KeyCount>{rows}</ListBucketResult>'.encode()
        start_response("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return application


class Program:
    def __init__(self, path, endpoint):
        self.path = path
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def start(self, *arguments):
        command = [self.path, "segment", "--weights", TINY, *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments, code=0):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, f"{arguments}: exit code {process.returncode}, expected {code}\n{err[-3000:]}"
        return out, err

    def memory(self, *arguments):
        """The lines of standard output, and the maximum resident memory in MB. Needs Linux.

        The figure of `wait4` would be no use: it includes the memory of this process at the time of the fork.
        """
        process = self.start(*arguments)
        status, lines, most = pathlib.Path(f"/proc/{process.pid}/status"), 0, 0
        for _ in process.stdout:
            lines += 1
            if lines % 100 == 0:
                found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
                most = max(most, int(found[1])) if found else most
        assert process.wait() == 0, process.stderr.read()
        return lines, most / 1000


def save_photos(folder, count):
    """Small pictures in subfolders, each different. PPM needs no packages."""
    for i in range(count):
        path = folder / f"clip{i % 7}" / f"{i:06}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.Random(i)
        row = bytes(noise.randrange(256) for _ in range(64 * 3))
        pixels = b"".join(bytes((v * (y + 1)) % 256 for v in row) for y in range(48))
        path.write_bytes(b"P6 64 48 255\n" + pixels)


def tree(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def objects(client, prefix, before=""):
    """The visible objects below a prefix, without the program's fingerprints. `before` is put before their names."""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix + "/"):
        for entry in page.get("Contents", []):
            name = entry["Key"][len(prefix) + 1 :]
            if not name.startswith(".rtformer/"):
                found[before + name] = client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
    return found


def wait(process, condition):
    """Waits until a running program has got so far."""
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end, "the program makes no progress"
        time.sleep(0.01)


def same(found, want, why):
    missing, more = sorted(want.keys() - found.keys()), sorted(found.keys() - want.keys())
    differ = sorted(name for name in want.keys() & found.keys() if want[name] != found[name])
    assert not (missing or more or differ), f"{why}: missing {missing[:3]}, unexpected {more[:3]}, different {differ[:3]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/rtformer")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--keys", type=int, default=100_000)
    options = parser.parse_args()

    faults = Faults(0.05)
    endpoint = serve(faults)
    program = Program(options.program.resolve(), endpoint)
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test",
        config=botocore.config.Config(proxies={}),
    )
    client.create_bucket(Bucket=BUCKET)
    started = time.monotonic()

    def step(text):
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        save_photos(folder / "in", options.photos)
        program.run(folder / "in", "-o", folder / "local", "--emit", "mask")
        want = tree(folder / "local")
        assert len(want) == options.photos
        stored = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # without HTTP, which would take longer than the rest
        for name, content in tree(folder / "in").items():
            stored.put_object(BUCKET, f"in/{name}", content)
        client.put_object(Bucket=BUCKET, Key="in/notes.txt", Body=b"not a photo")
        step(f"{options.photos} photos stored")

        source, masks = f"s3://{BUCKET}/in", r"/out/.*\.mask\.png$"
        arguments = [source, "-o", f"s3://{BUCKET}/out", "--emit", "mask"]
        faults.active = True
        running = program.start(*arguments)
        wait(running, lambda: faults.count("PUT", masks) >= options.photos // 2)
        running.kill()
        running.communicate()
        faults.active = False
        half = objects(client, "out")
        assert options.photos // 3 < len(half) < options.photos, len(half)
        same(half, {name: want[name] for name in half}, "after SIGKILL, every visible object is complete")
        step(f"killed with {len(half)} masks stored")

        faults.active = True
        faults.clear()
        _, err = program.run(*arguments, "--resume")
        faults.active = False
        same(objects(client, "out"), want, "after --resume")
        repeated, heads = faults.count("GET", "/in/.*ppm$"), faults.count("HEAD", "")
        assert heads == 0, f"{heads} HEAD requests"
        step(f"resumed: {err.strip().splitlines()[-1]}; {repeated} photos read; injected {dict(faults.injected)}")
        assert sum(faults.injected.values()) > options.photos / 20, faults.injected

        faults.clear()
        _, err = program.run(*arguments, "--resume")
        requests = Counter((method, path.split("/")[1:3][-1]) for method, path, _ in faults.log)
        assert f"{options.photos} photos done before" in err, err
        pages = 2 * (options.photos // 1000 + 2) + 1
        assert faults.count("GET", r"\.ppm$|\.png$") == 0 and faults.count("GET", f"/{BUCKET}/?$") <= pages, requests
        assert {method for method, _ in requests} == {"GET"}, requests
        step(f"nothing left to do: {sum(requests.values())} requests, none for a photo or mask")

        faults.clear()
        _, err = program.run(*arguments, code=1)
        assert err.count("exists already") == options.photos and faults.count("PUT", "") == 0, err[-500:]
        step("without flags, outputs that exist are errors, and nothing is written")

        # A new version of a photo, a lost fingerprint, and an object of another program.
        one, other = "clip0/000000", "clip1/000001"
        client.put_object(Bucket=BUCKET, Key=f"in/{one}.ppm", Body=(folder / f"in/{other}.ppm").read_bytes())
        client.put_object(Bucket=BUCKET, Key=f"out/{other}.mask.png", Body=b"of another program")
        faults.clear()
        _, err = program.run(*arguments, "--resume", code=1)
        assert f"{other}.mask.png: does not say which photo it was made from" in err and "1 replaced" in err, err
        assert faults.count("GET", r"\.ppm$") == 2 and faults.count("PUT", masks) == 1, faults.log
        for clip in ("clip0", "clip1"):
            program.run(f"{source}/{clip}", "-o", f"s3://{BUCKET}/out/{clip}", "--emit", "mask", "--overwrite")
        got = {**objects(client, "out/clip0", "clip0/"), **objects(client, "out/clip1", "clip1/")}
        assert got[f"{other}.mask.png"] == want[f"{other}.mask.png"] and got[f"{one}.mask.png"] != want[f"{one}.mask.png"]
        client.put_object(Bucket=BUCKET, Key=f"in/{one}.ppm", Body=(folder / f"in/{one}.ppm").read_bytes())
        step("changed photos are replaced, foreign objects are kept, and --overwrite replaces all")

        # One photo cannot be read, one mask cannot be written, and one is written by another program in the meantime.
        few = f"s3://{BUCKET}/in/clip2"
        names = sorted(name for name in want if name.startswith("clip2/"))
        first, second, third = names[:3]
        faults.broken = {f"/{BUCKET}/in/{first[:-9]}.ppm", f"/{BUCKET}/few/{second[6:]}"}
        faults.before_put[f"/{BUCKET}/few/{third[6:]}"] = lambda: client.put_object(
            Bucket=BUCKET, Key=f"few/{third[6:]}", Body=b"of another program"
        )
        out, err = program.run(few, "-o", f"s3://{BUCKET}/few", "--emit", "mask", "--retries", "2", "--json", code=1)
        faults.broken = set()
        assert len(out.splitlines()) == len(names) and err.count("error: ") == 3, err
        for text in (f"s3://{BUCKET}/in/{first[:-9]}.ppm: cannot be read", f"s3://{BUCKET}/few/{second[6:]}: cannot be written",
                     f"s3://{BUCKET}/few/{third[6:]}: exists already"):
            assert text in err, err
        few_want = {name[6:]: want[name] for name in names if name not in (first, second)}
        few_want[third[6:]] = b"of another program"
        same(objects(client, "few"), few_want, "other photos are done")
        step("failures that last cost one photo each")

        # Interrupted: photos in progress are finished, all others can be resumed.
        part = [f"{source}/clip3", f"{source}/clip4"]
        part_want = {name[6:]: content for name, content in want.items() if name[:5] in ("clip3", "clip4")}
        running = program.start(*part, "-o", f"s3://{BUCKET}/stop", "--emit", "mask")
        wait(running, lambda: faults.count("PUT", "/stop/.*png$") >= 10)
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130 and "failed" not in err, (running.returncode, err)
        stopped = objects(client, "stop")
        assert 10 <= len(stopped) < len(part_want), len(stopped)
        faults.clear()
        program.run(*part, "-o", f"s3://{BUCKET}/stop", "--emit", "mask", "--resume")
        same(objects(client, "stop"), part_want, "after an interruption")
        assert faults.count("PUT", "/stop/.*png$") == len(part_want) - len(stopped), "a photo was repeated"
        assert faults.count("GET", r"/in/.*\.ppm$") == len(part_want) - len(stopped), "a photo was read again"
        step(f"interrupted with {len(stopped)} masks stored, and resumed without repeated work")

        # Mixed with files, single objects, lists and shards.
        program.run(few, "-o", folder / "mixed", "--emit", "mask", "--prefetch", "20kB")
        same(tree(folder / "mixed"), {name[6:]: want[name] for name in names}, "from objects to files")
        program.run(folder / "in/clip2", "-o", f"s3://{BUCKET}/mixed", "--emit", "mask")
        same(objects(client, "mixed"), {name[6:]: want[name] for name in names}, "from files to objects")
        _, err = program.run(folder / "in/clip2", "-o", f"s3://{BUCKET}/mixed", "--emit", "mask", "--resume")
        assert f"{len(names)} photos done before" in err, err
        client.put_object_acl(Bucket=BUCKET, Key=f"in/{names[1][:-9]}.ppm", ACL="public-read")
        (folder / "list.txt").write_text(f"{source}/{names[0][:-9]}.ppm\n{endpoint}/{BUCKET}/in/{names[1][:-9]}.ppm\n")
        program.run(folder / "list.txt", f"{source}/{names[2][:-9]}.ppm", "-o", folder / "single", "--emit", "mask")
        same(tree(folder / "single"), {name[6:]: want[name] for name in names[:3]}, "single objects")
        planned = []
        for shard in (1, 2, 3):
            out, _ = program.run(source, "-o", f"s3://{BUCKET}/new", "--emit", "mask", "--dry-run", "--shard", f"{shard}/3")
            local, _ = program.run(folder / "in", "-o", folder / "new", "--emit", "mask", "--dry-run", "--shard", f"{shard}/3")
            assert len(out.splitlines()) == len(local.splitlines()) > 0
            planned += out.splitlines()
        expected = [f"{source}/{name[:-9]}.ppm -> s3://{BUCKET}/new/{name}" for name in want]
        assert sorted(planned) == sorted(expected), "shards are disjoint and complete"
        step("mixed inputs and outputs, lists and shards")

    # Memory: listings of inputs and outputs are compared, nothing is read.
    program.environment["AWS_ENDPOINT_URL"] = serve(lister({
        "few": (1000, "{:07}.jpg"), "few-out": (1000, "{:07}.mask.png"),
        "many": (options.keys, "{:07}.jpg"), "many-out": (options.keys, "{:07}.mask.png"),
    }))
    used = {}
    for name, count in (("few", 1000), ("many", options.keys)):
        lines, used[name] = program.memory(f"s3://{name}/in", "-o", f"s3://{name}-out/out", "--emit", "mask", "--dry-run")
        assert lines == count, (lines, count)
    more = used["many"] - used["few"]
    assert used["few"] > 5 and more < 20, used
    step(f"listing {options.keys} keys and outputs uses {more:.1f} MB more than 1000 ({used['few']:.1f} MB)")
    print("ok")


if __name__ == "__main__":
    main()
