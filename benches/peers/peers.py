#!/usr/bin/env python3
"""Time other engines against ours: same network, weights, frame and threads, in turns.

    python3 benches/peers/peers.py measure      everything, into benches/results/
    python3 benches/peers/peers.py measure --quick
    python3 benches/peers/peers.py table        the table of what was measured

Needs nothing but Python: the peers live in an environment that is made in target/peers/. README.md beside this file
says how it measures and what the numbers mean.
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
STAGES = {"logits": "paper", "mask": "mask"}  # what `rtformer bench` calls them
RELATIVE = 3e-4  # f32 engines differ by so much of the greatest logit among themselves
AGREEMENT = 0.999  # of a random network's pixels, many of which are close calls
WARMUP = 2
MEMORY_AT = ("slim", "2048x1024")


@dataclass(frozen=True)
class Peer:
    """An engine with its settings; `precision` says against which of ours it runs."""

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
    """A peer in its own process, asleep until it is asked."""

    def __init__(self, peer: Peer, graph: Path, frame: Path, threads: int):
        self.peer = peer
        command = [str(word) for word in peer.command(graph, frame, threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: {self.peer.name} died; what it said is above")
        return json.loads(line)

    def ask(self, **order) -> dict:
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self.answer()

    def block(self, runs: int, warmup: int = WARMUP) -> float:
        return statistics.median(self.ask(do="time", warmup=warmup, runs=runs)["ms"])

    def end(self) -> int:
        """Ends it; the most memory that it ever held, in bytes."""
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
            sys.exit("error: rtformer failed; what it said is above")
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
    one.add_argument("--repeats", type=int, default=3, help="of everything, one after the other (default 3)")
    one.add_argument("--rounds", type=int, default=5, help="in each of which every engine has its turn (default 5)")
    one.add_argument("--block", type=float, default=0.6, help="seconds that a turn lasts, at least (default 0.6)")
    one.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: as many as cores")
    one.add_argument("--f32-only", action="store_true", help="leave bf16 out")
    one.add_argument("--no-memory", dest="memory", action="store_false", help="nor time to the first mask")
    one.add_argument("--quick", action="store_true", help="Slim at 480x360, two rounds; target/peers/quick.json")
    one.add_argument("--append", action="store_true", help="to what OUT holds from the same commit and versions")
    one.add_argument("--out", type=Path, help="default: benches/results/peers-MACHINE.json")
    one.add_argument("--rtformer", type=Path, default=ROOT / "target/release/rtformer", metavar="PROGRAM")
    other = commands.add_parser("table", help="print the table of a JSON")
    other.add_argument("file", type=Path, nargs="?", help="default: the only one in benches/results/")
    other.add_argument("--readme", type=Path, help="put it between this file's marks, too")
    other.add_argument("--check", type=Path, help="only fail where something else stands there")
    args = parser.parse_args()
    if args.command == "measure" and args.quick:
        args.models, args.sizes, args.repeats, args.rounds, args.memory = ["slim"], ["480x360"], 1, 2, False
        args.out = args.out or WORK / "quick.json"
    return args


def show(args: argparse.Namespace) -> None:
    found = [args.file] if args.file else sorted(RESULTS.glob("peers-*.json"))
    if len(found) != 1:
        sys.exit(f"error: {len(found)} results in {RESULTS}: name one, or `make peers` first")
    text = table.of(json.loads(found[0].read_text()))
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
    """The environment, made again when the pinned versions change."""
    wanted, done = (HERE / "requirements.txt").read_text(), WORK / "venv/requirements.txt"
    if done.exists() and done.read_text() == wanted:
        return
    say("making target/peers/venv with the pinned versions: six gigabytes, mostly the CUDA that PyTorch brings")
    venv.create(WORK / "venv", with_pip=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True)
    done.write_text(wanted)


def made(path: Path, *command) -> Path:
    """A file that `export.py` makes, unless it is there from the same script and network."""
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
        say(f"SKIPPED: bf16, the peers' too: rtformer says `{done.stderr.strip().splitlines()[0]}`")
    return done.returncode == 0


def measure(args: argparse.Namespace, bf16: bool, cell: tuple[str, str, str], results: dict) -> None:
    """One model at one size with one read-out: first whether all answer alike, then how fast, in turns."""
    model, size, graph = cell
    us, onnx = ours(args, model, size), graph_of(*cell)
    precisions = ["f32", "bf16"] if bf16 else ["f32"]
    peers = [Running(peer, onnx, us.frame, args.threads) for peer in PEERS if peer.precision in precisions]
    try:
        checks = check(us, peers, graph, precisions)
        turns = {peer.peer.name: peer.block for peer in peers}
        for precision in precisions:
            turns[f"rtformer {precision}"] = lambda runs, precision=precision: us.block(graph, precision, runs)
        # As many runs a block as the slowest peer can do in its time; three are needed to shrug one outlier off.
        slowest = max(peer.block(1, warmup=0) for peer in peers)
        runs = max(3, round(1e3 * args.block / slowest))
        blocks = {name: [] for name in turns}
        for round_ in range(args.rounds):
            # Whoever comes after the same neighbour each time would inherit its caches and its heat.
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
    """Every f32 peer must give our logits; how many pixels bf16 changes is written down, whoever computes in it."""
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
            # Our own bf16, by the same measure: against our f32 as the peer's.
            half = us.logits("bf16", Path(folder) / "bf16")
            answers["rtformer bf16"] = peers[0].ask(do="compare", theirs=str(half), logits=str(logits))
    return answers


def memory(args: argparse.Namespace, bf16: bool) -> dict:
    """The most that a process of each engine holds, for a frame of Slim at 2048x1024; peers' includes Python."""
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
    """From the start of the process to its end: embedded weights, one photo in, its mask on the disk."""
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
    """What `rtformer bench` says of itself and of this machine, among other things."""
    command = [args.rtformer, "bench", "--quiet", "--json", "-", "--size", "32x32", "--stages", "mask", "--runs", "1"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def slug(about: dict) -> str:
    name = f"{about['machine']['cpu']} {about['machine']['cores']} cores {about['instruction_set']}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def begun(args: argparse.Namespace, about: dict, out: Path) -> dict:
    """Empty results with all that says where they are from; or what OUT holds, if it is from the same."""
    pinned = dict(line.split("==") for line in (HERE / "requirements.txt").read_text().splitlines() if "==" in line)
    versions = {"rtformer": about["version"], "python": sys.version.split()[0], **pinned}
    source = {key: about[key] for key in ("machine", "instruction_set", "commit")}
    source |= {"versions": versions, "threads": args.threads, "photo": str(PHOTO.relative_to(ROOT))}
    command = " ".join(["python3", "benches/peers/peers.py", *sys.argv[1:]])
    if args.append and out.exists():
        results = json.loads(out.read_text())
        differs = [key for key, value in source.items() if results[key] != value]
        if differs:
            sys.exit(f"error: {out} is from another {' and '.join(differs)}: it is not to be mixed; leave --append out")
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
