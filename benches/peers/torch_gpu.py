#!/usr/bin/env python3
"""Time PyTorch against ours on one NVIDIA GPU: the same network, weights and frame, interleaved.

    torch_gpu.py --rtformer target/gpu/rtformer --out target/gpu/raw/torch.json
        torch_gpu.py --rtformer target/gpu/rtformer --check      a dry run with one small frame on the CPU

Needs PyTorch 2.4 or newer with CUDA, NumPy and Pillow; no network. PyTorch runs in half precision and channels_last, both eager in a CUDA
graph and compiled with `mode="max-autotune"`, which also captures one. Each run ends with a synchronisation. The figure is network → mask
for a batch, which is one repeated frame; input and masks stay on the GPU. Failures, for lack of memory or of a compiler, are recorded in
place of the figure. The rates behind the shares are the card's own, measured in the same run: a copy of 1 GiB, and a product of 8192 by
8192 in half precision.
"""

import argparse
import gc
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from export import CONFIGS, MEAN, ROOT, STD, ReadOut, frame, seeded

PHOTO = ROOT / "tests/data/street/0016E5_07959.jpg"
SIZES = ["2048x1024", "1024x512", "960x720"]
BATCHES = [1, 8]
WARMUP = 5
AGREEMENT = 0.95  # of a random network's pixels, many of which are close calls in half precision
PEERS = ("torch eager", "torch compile")


def main() -> None:
    args = arguments()
    if args.check:
        args.models, args.sizes, args.batch, args.rounds, args.runs = ["slim"], ["96x64"], [1, 2], 1, 1
    device = torch.device("cpu" if args.check else "cuda")
    results = begun(args, None if args.check else torch.cuda.get_device_name(device))
    if not args.check and not results["rates"]:
        results["rates"] = {"copy_bytes_per_s": copy_rate(device), "matmul_flops_per_s": matmul_rate(device)}
        save(args, results)
    with tempfile.TemporaryDirectory() as folder:
        for model, size, batch in itertools.product(args.models, args.sizes, args.batch):
            where = {"model": model, "size": size, "batch": batch}
            if any(where.items() <= one.items() and "error" not in one for one in results["timings"]):
                continue
            results["timings"] = [one for one in results["timings"] if not where.items() <= one.items()]
            try:
                timing = measure(args, Path(folder), model, size, batch, device)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                if args.check:
                    raise
                timing = {"error": short(error)}
            results["timings"].append(where | timing)
            print(json.dumps(results["timings"][-1]), file=sys.stderr, flush=True)
            save(args, results)
            tidy(device)
    print(table(results))


def begun(args: argparse.Namespace, gpu: str | None) -> dict:
    """Empty results; or the contents of OUT, to resume an interrupted run."""
    empty = {"torch": torch.__version__, "gpu": gpu, "rates": None, "timings": []}
    if args.check or not args.out or not args.out.exists():
        return empty
    results = json.loads(args.out.read_text())
    differs = [key for key in ("torch", "gpu") if results[key] != empty[key]]
    if differs:
        sys.exit(f"error: {args.out} is from another {' and '.join(differs)} and cannot be combined; remove it first")
    return results


def save(args: argparse.Namespace, results: dict) -> None:
    """Called after every cell, so that an interrupted run keeps its measurements."""
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n")


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def tidy(device: torch.device) -> None:
    """Releases a cell's memory for the next cell and for rtformer's process."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtformer", type=Path, required=True, metavar="PROGRAM")
    parser.add_argument("--models", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WxH")
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES, metavar="N", help="frames at once (default 1 8)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; each engine runs once per round (default 5)")
    parser.add_argument("--runs", type=int, default=50, help="timed runs per turn, after five warm-up runs (default 50)")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file; cells already in it are not measured again")
    parser.add_argument("--check", action="store_true", help="a dry run on the CPU")
    return parser.parse_args()


def measure(args: argparse.Namespace, folder: Path, model: str, size: str, batch: int, device: torch.device) -> dict:
    """One model at one size and batch: checks that PyTorch gives our mask, then times all engines, interleaved."""
    torch.backends.cudnn.benchmark = True
    picture = frame(PHOTO, tuple(map(int, size.split("x"))))
    network = seeded(CONFIGS[model], PHOTO)
    torch.save(network.state_dict(), folder / f"{model}.pth")
    picture.save(folder / "frame.png")
    ours = Ours(args, folder, model, batch)

    kind = torch.float32 if args.check else torch.float16
    half = ReadOut(network, mask=True).eval().to(device, kind).to(memory_format=torch.channels_last)
    pixels = (np.asarray(picture, np.float32) / 255 - MEAN) / STD
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device, kind)
    x = x.repeat(batch, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    result = {"agreement": None, "runs_per_block": args.runs}
    with torch.inference_mode():
        result["agreement"] = float((half(x).cpu().numpy() == ours.mask()).mean())
        if result["agreement"] < (0.999 if args.check else AGREEMENT):
            raise RuntimeError(f"PyTorch computes another mask: only {result['agreement']:.4f} of the pixels agree")
        turns = {"torch eager": timed(args, captured(half, x), device)}
        try:
            turns["torch compile"] = timed(args, compiled(half, x, args), device)
        except Exception as error:  # of many kinds: Triton, its compiler, the driver
            if args.check:
                raise
            result["compile_error"] = short(error)
        turns["rtformer"] = ours.block
        blocks = {name: [] for name in turns}
        for round_ in range(args.rounds):
            # Rotate the order, so that no engine always follows the same neighbour and inherits its caches and heat.
            names = list(turns)
            for name in names[round_ % len(names):] + names[:round_ % len(names)]:
                blocks[name].append(round(turns[name](), 5))
    return result | {"blocks_ms": blocks}


class Ours:
    """`rtformer` on one frame and one file of weights."""

    def __init__(self, args: argparse.Namespace, folder: Path, model: str, batch: int):
        self.batch = batch
        self.args, self.frame, self.weights = args, folder / "frame.png", folder / f"{model}.safetensors"
        self.where = ["--device", "cpu"] if args.check else ["--device", "cuda", "--precision", "f16"]
        convert = ["convert", folder / f"{model}.pth", "-o", self.weights, "--dataset", "cityscapes", "--overwrite"]
        self.run(*convert, "--quiet")

    def run(self, *words) -> bytes:
        command = [str(word) for word in [self.args.rtformer, *words]]
        return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout

    def mask(self) -> np.ndarray:
        with tempfile.TemporaryDirectory() as out:
            self.run("segment", self.frame, "--out", out, "--emit", "mask", "--weights", self.weights, "--overwrite", "--quiet",
                     *self.where)
            (path,) = Path(out).iterdir()
            return np.asarray(Image.open(path))  # a palette's indices

    def block(self) -> float:
        words = ["bench", "--quiet", "--json", "-", "--stages", "mask", "--photo", self.frame, "--weights", self.weights,
                 "--batch", self.batch]
        report = json.loads(self.run(*words, "--runs", self.args.runs, "--warmup", WARMUP, *self.where))
        return report["stages"]["mask"]["median_ms"]


def captured(network: torch.nn.Module, x: torch.Tensor):
    """Runs the network from a CUDA graph, if CUDA is available."""
    if x.device.type != "cuda":
        return lambda: network(x)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # one-time choices and allocations must not be in the graph
        for _ in range(5):
            network(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(x)
    return graph.replay


def compiled(network: torch.nn.Module, x: torch.Tensor, args: argparse.Namespace):
    """Compiles the network for exactly this shape, and runs the result."""
    # A dry run only checks that it compiles; choosing among kernels takes minutes.
    mode = {"backend": "aot_eager"} if args.check else {"mode": "max-autotune"}
    run = torch.compile(network, dynamic=False, **mode)
    torch._dynamo.mark_static_address(x)  # otherwise the graph would first copy it into its own memory
    for _ in range(3):
        run(x)
    return lambda: run(x)


def timed(args: argparse.Namespace, run, device: torch.device):
    def synchronised() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)

    def turn() -> float:
        for _ in range(WARMUP):
            synchronised()
        return statistics.median(synchronised() for _ in range(args.runs))

    return turn


def rate(work: float, run) -> float:
    """`work` per second, the best of twenty runs, by the device's clock."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    best = float("inf")
    for _ in range(20):
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        best = min(best, begin.elapsed_time(end))
    return work / (best / 1e3)


def copy_rate(device: torch.device) -> float:
    a = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return rate(2.0 * a.numel(), lambda: b.copy_(a))  # read and written


def matmul_rate(device: torch.device) -> float:
    side = 8192
    a, b = (torch.randn(side, side, dtype=torch.float16, device=device) for _ in range(2))
    return rate(2.0 * side**3, lambda: a @ b)


def table(results: dict) -> str:
    """Markdown: medians of the rounds, and our speedup over each peer.

    >>> blocks = {"torch eager": [3.0, 3.0], "torch compile": [2.0, 2.0], "rtformer": [1.0, 1.0]}
    >>> cell = {"model": "slim", "size": "2048x1024", "batch": 1, "agreement": 1.0, "blocks_ms": blocks}
    >>> print(table({"timings": [cell, cell | {"batch": 8, "blocks_ms": {}, "error": "no memory"}]}))
    | model | size | batch | torch eager, ms | torch compile, ms | rtformer, ms | over eager | over compile |
    | --- | --- | --- | --- | --- | --- | --- | --- |
    | slim | 2048x1024 | 1 | 3.000 | 2.000 | 1.000 | 3.00 | 2.00 |
    | slim | 2048x1024 | 8 | - | - | - | - | - |
    """
    heads = ["model", "size", "batch", *(f"{name}, ms" for name in (*PEERS, "rtformer")), "over eager", "over compile"]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for one in results["timings"]:
        blocks = one.get("blocks_ms", {})
        shown = [f"{statistics.median(blocks[name]):.3f}" if name in blocks else "-" for name in (*PEERS, "rtformer")]
        for peer in PEERS:
            ratios = [theirs / ours for theirs, ours in zip(blocks.get(peer, []), blocks.get("rtformer", []))]
            shown.append(f"{statistics.median(ratios):.2f}" if ratios else "-")
        lines.append(f"| {' | '.join([one['model'], one['size'], str(one['batch']), *shown])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
