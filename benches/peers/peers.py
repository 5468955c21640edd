#!/usr/bin/env python3
"""Time other engines against ours: same network, weights, frame and threads, interleaved.

        python3 benches/peers/peers.py measure      everything, into benches/results/
        python3 benches/peers/peers.py measure --quick
        python3 benches/peers/peers.py table        prints the table of the measurements

    Needs only Python: the peers are installed into an environment in target/peers/. README.md beside this file explains how
    it measures and what the numbers mean.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "target/peers"
PYTHON = WORK / "venv/bin/python"
RESULTS = ROOT / "benches/results"
PHOTO = ROOT / "tests/data/street/0016E5_07959.jpg"

MODELS, GRAPHS, SIZES = ["slim", "base"], ["logits", "mask"], ["480x360", "1024x512", "2048x1024"]
STAGES = {"logits": "paper", "mask": "mask"}  # their names in `rtformer bench`
RELATIVE = 3e-4  # f32 engines differ from each other by this share of the largest logit
AGREEMENT = 0.999  # of a random network's pixels, many of which are close calls
WARMUP = 2
MEMORY_AT = ("slim", "2048x1024")


@dataclass(frozen=True)
class Peer:
    """An engine with its settings; `precision` selects which of ours it is compared with."""

    library: str
    precision: str
    hint: str | None = None

    @property
    def name(self) -> str:
        return " ".join(filter(None, [self.library, self.precision, self.hint]))

    def command(self, graph: Path, frame: Path, threads: int) -> list:
        settings = ["--threads", threads, "--precision", self.precision, *(["--hint", self.hint] if self.hint else [])]
        return [PYTHON, HERE / "engine.py", self.library, "--graph", graph, "--photo", frame, *settings]


PEERS = [
    Peer("onnxruntime", "f32"),
    Peer("openvino", "f32", "latency"),
    Peer("openvino", "f32", "throughput"),
    Peer("openvino", "bf16", "latency"),
    Peer("openvino", "bf16", "throughput"),
]


class Running:
    """A peer in its own process, which sleeps until it gets a request."""

    def __init__(self, peer: Peer, graph: Path, frame: Path, threads: int):
        self.peer = peer
        command = [str(word) for word in peer.command(graph, frame, threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: {self.peer.name} ended unexpectedly; see its output above")
        return json.loads(line)

    def ask(self, **order) -> dict:
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self.answer()

    def block(self, runs: int, warmup: int = WARMUP) -> float:
        return statistics.median(self.ask(do="time", warmup=warmup, runs=runs)["ms"])

    def end(self) -> int:
        """Ends the process; returns its peak memory in bytes."""
        self.process.stdin.close()
        self.process.stdout.close()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * 1024


class Ours:
    """`rtformer` on one frame and one file of weights."""

    def __init__(self, program: Path, weights: Path, frame: Path, threads: int):
        self.program, self.weights, self.frame, self.threads = program, weights, frame, threads

    def command(self, *words) -> list[str]:
        where = ["--weights", self.weights, "--threads", self.threads]
        return [str(word) for word in [self.program, *words, *where]]

    def bench(self, graph: str, precision: str, runs: int, warmup: int = WARMUP) -> list[str]:
        return self.command("bench", "--quiet", "--json", "-", "--stages", STAGES[graph], "--photo", self.frame,
                            "--precision", precision, "--runs", runs, "--warmup", warmup)

    def report(self, *bench) -> dict:
        done = subprocess.run(self.bench(*bench), stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def block(self, graph: str, precision: str, runs: int) -> float:
        return self.report(graph, precision, runs)["stages"][STAGES[graph]]["median_ms"]

    def memory(self, graph: str, precision: str) -> int:
        process = subprocess.Popen(self.bench(graph, precision, 3), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit("error: rtformer failed; see its output above")
        return usage.ru_maxrss * 1024

    def logits(self, precision: str, folder: Path) -> Path:
        command = self.command("segment", self.frame, "--out", folder, "--emit", "logits", "--overwrite", "--quiet",
                               "--precision", precision)
        subprocess.run(command, check=True)
        return folder / f"{self.frame.stem}.logits.npy"


def main() -> None:
    args = arguments()
    if args.command == "table":
        show(args)
        return
    set_up()
    bf16 = not args.f32_only and has_bf16(args)
    about = machine(args)
    out = args.out or RESULTS / f"peers-{slug(about)}.json"
    results = begun(args, about, out)
    cells = [(model, size, graph) for model in args.models for size in args.sizes for graph in args.graphs]
    for repeat in range(args.repeats):
        for cell in cells:
            say(f"run {repeat + 1} of {args.repeats}: {', '.join(cell)}")
            measure(args, bf16, cell, results)
            save(results, out)
    if args.memory:
        results["memory"] = memory(args, bf16)
        results["first_mask_ms"] = first_mask(args)
        save(results, out)
    print(table.of(results))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure", help="measure, write JSON, print the table")
    one.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    one.add_argument("--sizes", nargs="+", default=SIZES, metavar="WxH")
    one.add_argument("--graphs", nargs="+", choices=GRAPHS, default=GRAPHS)
    one.add_argument("--repeats", type=int, default=3, help="repetitions of everything (default 3)")
    one.add_argument("--rounds", type=int, default=5, help="rounds per repetition; each engine runs once per round (default 5)")
    one.add_argument("--block", type=float, default=0.6, help="minimum seconds per turn (default 0.6)")
    one.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: the number of cores")
    one.add_argument("--f32-only", action="store_true", help="skip bf16")
    one.add_argument("--no-memory", dest="memory", action="store_false", help="skip memory and the time to the first mask")
    one.add_argument("--quick", action="store_true", help="Slim at 480x360, two rounds, into target/peers/quick.json")
    one.add_argument("--append", action="store_true", help="add to OUT, if it is from the same commit and versions")
    one.add_argument("--out", type=Path, help="default: benches/results/peers-MACHINE.json")
    one.add_argument("--rtformer", type=Path, default=ROOT / "target/release/rtformer", metavar="PROGRAM")
    other = commands.add_parser("table", help="print the tables of one JSON file or of all")
    other.add_argument("file", type=Path, nargs="?", help="default: those of all machines in benches/results/")
    other.add_argument("--readme", type=Path, help="also write it between this file's marks")
    other.add_argument("--check", type=Path, help="print nothing; fail if this file shows anything else")
    args = parser.parse_args()
    if args.command == "measure" and args.quick:
        args.models, args.sizes, args.repeats, args.rounds, args.memory = ["slim"], ["480x360"], 1, 2, False
        args.out = args.out or WORK / "quick.json"
    return args


def show(args: argparse.Namespace) -> None:
    found = [args.file] if args.file else sorted(RESULTS.glob("peers-*.json"))
    if not found:
        sys.exit(f"error: no results in {RESULTS}; run `make peers` first")
    text = "\n\n".join(table.of(json.loads(file.read_text())) for file in found)
    if args.check:
        table.MARKS.check(text, args.check)
        return
    if args.readme:
        table.MARKS.put(text, args.readme)
    print(text)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- what is measured


def set_up() -> None:
    """Creates the environment; again when the pinned versions change."""
    wanted, done = (HERE / "requirements.txt").read_text(), WORK / "venv/requirements.txt"
    if done.exists() and done.read_text() == wanted:
        return
    say("installing the pinned versions into target/peers/venv: six gigabytes, mostly PyTorch's CUDA libraries")
    venv.create(WORK / "venv", with_pip=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True)
    done.write_text(wanted)


def installed() -> dict[str, str]:
    """The versions in the environment of the packages that requirements.txt names."""
    lines = (HERE / "requirements.txt").read_text().splitlines()
    names = [line.split("==")[0] for line in lines if "==" in line]
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run([PYTHON, "-c", code, *names], stdout=subprocess.PIPE, text=True, check=True)
    return dict(zip(names, done.stdout.split()))


def made(path: Path, *command) -> Path:
    """A file made by `export.py`; reused if the same script and network made it."""
    sources = [HERE / "export.py", ROOT / "weights/train/model.py", PHOTO, WORK / "venv/requirements.txt"]
    if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part.{path.name}")
        subprocess.run([str(w) for w in [PYTHON, HERE / "export.py", *command, "--out", part]], check=True)
        part.rename(path)
    return path


def frame(size: str) -> Path:
    return made(WORK / f"frame.{size}.png", "frame", "--photo", PHOTO, "--size", size)


def checkpoint(model: str) -> Path:
    return made(WORK / f"{model}.pth", "weights", "--model", model, "--photo", PHOTO)


def graph_of(model: str, size: str, graph: str) -> Path:
    weights = checkpoint(model)
    return made(WORK / f"{model}.{size}.{graph}.onnx", "graph", "--model", model, "--size", size, "--graph", graph,
                "--weights", weights)


def ours(args: argparse.Namespace, model: str, size: str) -> Ours:
    source, weights = checkpoint(model), WORK / f"{model}.safetensors"
    if not weights.exists() or weights.stat().st_mtime < source.stat().st_mtime:
        command = [args.rtformer, "convert", source, "-o", weights, "--dataset", "cityscapes", "--overwrite", "--quiet"]
        subprocess.run(command, check=True)
    return Ours(args.rtformer, weights, frame(size), args.threads)


def has_bf16(args: argparse.Namespace) -> bool:
    command = [args.rtformer, "bench", "--size", "32x32", "--stages", "mask", "--runs", "1", "--precision", "bf16"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        say(f"SKIPPED: bf16, for the peers too; rtformer reports `{done.stderr.strip().splitlines()[0]}`")
    return done.returncode == 0


def measure(args: argparse.Namespace, bf16: bool, cell: tuple[str, str, str], results: dict) -> None:
    """One model at one size with one read-out: checks that all engines agree, then times them, interleaved."""
    model, size, graph = cell
    us, onnx = ours(args, model, size), graph_of(*cell)
    precisions = ["f32", "bf16"] if bf16 else ["f32"]
    peers = [Running(peer, onnx, us.frame, args.threads) for peer in PEERS if peer.precision in precisions]
    try:
        checks = check(us, peers, graph, precisions)
        turns = {peer.peer.name: peer.block for peer in peers}
        for precision in precisions:
            turns[f"rtformer {precision}"] = lambda runs, precision=precision: us.block(graph, precision, runs)
        # As many runs per block as the slowest peer can do in its time; at least three, so that the median ignores one outlier.
        slowest = max(peer.block(1, warmup=0) for peer in peers)
        runs = max(3, round(1e3 * args.block / slowest))
        blocks = {name: [] for name in turns}
        for round_ in range(args.rounds):
            # Rotate the order, so that no engine always follows the same neighbour and inherits its caches and heat.
            names = list(turns)
            for name in names[round_ % len(names):] + names[:round_ % len(names)]:
                blocks[name].append(round(turns[name](runs), 4))
    finally:
        for peer in peers:
            peer.end()
    where = {"model": model, "size": size, "graph": graph}
    results["checks"] = [one for one in results["checks"] if not where.items() <= one.items()]
    results["checks"].append({**where, "engines": checks})
    results["timings"].append({**where, "runs_per_block": runs, "blocks_ms": blocks})


def check(us: Ours, peers: list[Running], graph: str, precisions: list[str]) -> dict:
    """Every f32 peer must give our logits; the share of pixels that bf16 changes is recorded for every engine."""
    answers = {}
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        logits = us.logits("f32", Path(folder))
        for peer in peers:
            answers[peer.peer.name] = answer = peer.ask(do="check", logits=str(logits))
            shown = ", ".join(f"{key} {value:.6g}" for key, value in answer.items())
            say(f"  {peer.peer.name}: {shown}")
            wrong = answer.get("relative", 0) > RELATIVE or answer["agreement"] < AGREEMENT
            if wrong and peer.peer.precision == "f32":
                sys.exit(f"error: {peer.peer.name} does not compute our network ({shown}); nothing is timed")
        if "bf16" in precisions and graph == "logits":
            # Our own bf16 by the same measure: against our f32, like the peer's.
            half = us.logits("bf16", Path(folder) / "bf16")
            answers["rtformer bf16"] = peers[0].ask(do="compare", theirs=str(half), logits=str(logits))
    return answers


def memory(args: argparse.Namespace, bf16: bool) -> dict:
    """The peak memory of a process of each engine, for a frame of Slim at 2048x1024; the peers' includes Python."""
    model, size = MEMORY_AT
    us, held = ours(args, model, size), {}
    for graph in GRAPHS:
        onnx = graph_of(model, size, graph)
        for peer in PEERS:
            if peer.hint == "throughput" or (peer.precision == "bf16" and not bf16):
                continue
            running = Running(peer, onnx, us.frame, args.threads)
            running.block(3)
            held.setdefault(graph, {})[peer.name] = running.end()
        for precision in ["f32", "bf16"] if bf16 else ["f32"]:
            held[graph][f"rtformer {precision}"] = us.memory(graph, precision)
    return held


def first_mask(args: argparse.Namespace, runs: int = 11) -> list[float]:
    """Milliseconds from process start to end: embedded weights, one photo in, its mask on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        command = [args.rtformer, "segment", PHOTO, "--out", folder, "--emit", "mask", "--overwrite", "--quiet",
                   "--threads", str(args.threads)]
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            subprocess.run(command, check=True)
            times.append(round(1e3 * (time.perf_counter() - start), 3))
    return times


# ---- where the figures are from


def machine(args: argparse.Namespace) -> dict:
    """What `rtformer bench` reports about itself and this machine."""
    command = [args.rtformer, "bench", "--quiet", "--json", "-", "--size", "32x32", "--stages", "mask", "--runs", "1"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def slug(about: dict) -> str:
    name = f"{about['machine']['cpu']} {about['machine']['cores']} cores {about['instruction_set']}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def begun(args: argparse.Namespace, about: dict, out: Path) -> dict:
    """Empty results with their origin; or the contents of OUT, if their origin is the same."""
    versions = {"rtformer": about["version"], "python": sys.version.split()[0], **installed()}
    source = {key: about[key] for key in ("machine", "instruction_set", "commit")}
    source |= {"versions": versions, "threads": args.threads, "photo": str(PHOTO.relative_to(ROOT))}
    command = " ".join(["python3", "benches/peers/peers.py", *sys.argv[1:]])
    if args.append and out.exists():
        results = json.loads(out.read_text())
        differs = [key for key, value in source.items() if results[key] != value]
        if differs:
            sys.exit(f"error: {out} is from another {' and '.join(differs)} and cannot be combined; omit --append")
        results["commands"].append(command)
        return results
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    return {**source, "date": date, "commands": [command], "checks": [], "timings": []}


def save(results: dict, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.rename(out)


if __name__ == "__main__":
    main()
