#!/usr/bin/env python3
"""The measurements of `gpu.sh`: one file per GPU, and a table of all of them in the README.

    gpu_table.py merge RAW                    merges the files of one run into benches/results/<gpu>.json
    gpu_table.py table                        prints the table of all GPUs' files
    gpu_table.py table --readme README.md     writes it between the README's marks
    gpu_table.py table --check README.md      fails if the README shows anything else

Needs only Python 3.10.
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

from table import Marks, place, shown, speedup, typical  # noqa: E402

MARKS = Marks("<!-- gpu table -->", "<!-- /gpu table -->", "python3 benches/gpu_table.py table --readme README.md")
NOTHING = "Nothing has been measured on a GPU yet."
SANITIZERS = ["memcheck", "racecheck", "initcheck"]
SHOWN, SLOWEST = "slim 2048x1024", 10  # the case whose operations the README shows, and how many of them


def main() -> None:
    args = arguments()
    if args.command == "merge":
        results = merged(args.raw)
        out = args.results / f"{slug(results['gpu'])}.json"
        out.write_text(json.dumps(results, indent=1) + "\n")
        print(f"merged: {out}")
        return
    text = of(measured(args.results))
    if args.check:
        MARKS.check(text, args.check)
    elif args.readme:
        MARKS.put(text, args.readme)
    else:
        print(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    merge = commands.add_parser("merge", help="merge the files of one run")
    merge.add_argument("raw", type=Path, help="the folder that gpu.sh wrote")
    table = commands.add_parser("table", help="print the measurements as Markdown")
    where = table.add_mutually_exclusive_group()
    where.add_argument("--readme", type=Path, help="write it between this file's marks")
    where.add_argument("--check", type=Path, help="fail unless this file shows it")
    for command in (merge, table):
        command.add_argument("--results", type=Path, default=HERE / "results", help="default: benches/results")
    return parser.parse_args()


# ---- many files into one


def merged(raw: Path) -> dict:
    """Everything that one run wrote. A skipped part is null."""
    reports = [json.loads(path.read_text()) for path in sorted(raw.glob("bench.*.json"))]
    builds = {(report["version"], report["commit"]) for report in reports}
    if len(builds) != 1:
        sys.exit(f"error: {raw} has figures of {len(builds)} builds of rtformer, expected one")
    [(version, commit)] = builds
    with (raw / "gpu.csv").open(newline="") as file:
        gpu = next(csv.DictReader(file, skipinitialspace=True))
    torch = json.loads(text) if (text := read(raw / "torch.json")) else {}
    rates = torch.get("rates") or {"copy_bytes_per_s": None, "matmul_flops_per_s": None}
    reports.sort(key=lambda report: (*place(("", report["variant"], size(report))), report["batch"], report["precision"]))
    return {
        "gpu": gpu.pop("name"),
        "driver": gpu.pop("driver_version"),
        "settings": gpu,
        "date": min(report["date"] for report in reports)[:10],
        "commit": commit,
        "versions": {"rtformer": version, "torch": torch.get("torch")},
        "command": "benches/gpu.sh",
        "rates": rates,
        "cells": [cell(report) for report in reports],
        "torch": torch.get("timings"),
        "kernels": {f"{report['variant']} {size(report)}": kernels(report["profile"]["lines"], rates)
                    for report in reports if report.get("profile")},
        "tests": outcome(raw / "tests.txt", "test result:"),
        "sanitizer": {tool: outcome(raw / f"{tool}.txt", "SUMMARY:") for tool in SANITIZERS},
        "failed": [text.splitlines()[0] for path in sorted(raw.glob("*.txt")) if not ended_well(text := path.read_text())],
    }


def read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def size(report: dict) -> str:
    return "{}x{}".format(*report["size"])


def cell(report: dict) -> dict:
    """The figures of one `rtformer bench`; times are per batch."""
    mask, frame = report["stages"]["mask"], report["stages"]["frame"]
    where = {"model": report["variant"], "size": size(report), "batch": report["batch"], "precision": report["precision"]}
    times = {"mask_ms": mask["median_ms"], "mask_p90_ms": mask["p90_ms"], "frame_ms": frame["median_ms"], "frame_p90_ms": frame["p90_ms"]}
    return where | times | {"fps": mask["fps"], "frame_fps": frame["fps"], "runs": report["runs"]}


def kernels(lines: list[dict], rates: dict) -> list[dict]:
    """The measurements of each operation, also as shares of the GPU's rates for a plain copy and a plain matrix product.

    >>> line = {"name": "conv", "ms": 0.5, "gbytes_per_s": 1000.0, "gflops": 2e5, "share": 0.1}
    >>> kernels([line], {"copy_bytes_per_s": 2e12, "matmul_flops_per_s": 8e14})
    [{'name': 'conv', 'ms': 0.5, 'gbytes_per_s': 1000.0, 'gflops': 200000.0, 'copy_share': 0.5, 'matmul_share': 0.25}]
    >>> kernels([line], {"copy_bytes_per_s": None, "matmul_flops_per_s": None})[0]["copy_share"] is None
    True
    """
    def share(giga: float, most: float | None) -> float | None:
        return most and round(1e9 * giga / most, 4)

    kept = ("name", "ms", "gbytes_per_s", "gflops")
    return [{key: line[key] for key in kept}
            | {"copy_share": share(line["gbytes_per_s"], rates["copy_bytes_per_s"]),
               "matmul_share": share(line["gflops"], rates["matmul_flops_per_s"])} for line in lines]


def outcome(path: Path, word: str) -> dict | None:
    """Whether a program whose output `gpu.sh` recorded succeeded, and its lines with `word`; None if it did not run."""
    if (text := read(path)) is None:
        return None
    return {"passed": ended_well(text), "summary": [line.strip("= ") for line in text.splitlines() if word in line]}


def ended_well(text: str) -> bool:
    return text.splitlines()[-1:] == ["exit code 0"]


def slug(name: str) -> str:
    """
    >>> slug("NVIDIA H100 80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


# ---- and into a table


def measured(results: Path) -> list[dict]:
    """Every GPU's file. The folder also holds the peers' files, which name no GPU."""
    files = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    return [file for file in files if "gpu" in file and "cells" in file]


def of(files: list[dict]) -> str:
    """
    >>> of([])
    'Nothing has been measured on a GPU yet.'
    """
    return "\n\n".join(part for results in files for part in [source(results), times(results), *slowest(results)]) or NOTHING


def source(results: dict) -> str:
    """The origin of the figures, and which checks failed or did not run."""
    text = (f"{results['gpu']}, driver {results['driver']}; {results['date']}, commit {results['commit']}; milliseconds per batch, medians; "
            "f16 unless noted.")
    if version := results["versions"]["torch"]:
        text += (f" PyTorch {version} runs in f16 and channels_last, from CUDA graphs; the last column is the median of the rounds' "
                 "ratios, interleaved.")
    checks = {"tests": results["tests"], **results["sanitizer"]}
    names = {"passed": [name for name, one in checks.items() if one and one["passed"]],
             "failed": [name for name, one in checks.items() if one and not one["passed"]],
             "not run": [name for name, one in checks.items() if not one]}
    said = "; ".join(f"{what}: {', '.join(members)}" for what, members in names.items() if members)
    return f"{text} {said[0].upper()}{said[1:]}."


def times(results: dict) -> str:
    """
    >>> ours = {"model": "slim", "size": "2048x1024", "mask_ms": 1.0, "frame_ms": 2.0, "fps": 1000.0}
    >>> cells = [ours | {"batch": 1, "precision": "f16"}, ours | {"batch": 1, "precision": "f32", "mask_ms": 3.0}]
    >>> torch = {"model": "slim", "size": "2048x1024", "batch": 1,
    ...          "blocks_ms": {"torch eager": [4.0], "torch compile": [2.5], "rtformer": [1.0]}}
    >>> print(times({"cells": cells, "torch": [torch]}).splitlines()[-1])
    | Slim 2048x1024, batch 1 | 1.00 | 1000 | 2.00 | 3.00 | 4.00 | 2.50 | **2.50x** |
    >>> print(times({"cells": cells, "torch": None}).splitlines()[-1])
    | Slim 2048x1024, batch 1 | 1.00 | 1000 | 2.00 | 3.00 | - | - | - |
    """
    heads = ["network → mask", "**rtformer**", "frames/s", "8-bit frame → mask", "rtformer, f32", "PyTorch eager", "torch.compile",
             "speedup over the faster"]
    rows = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    key = lambda one: (one["model"], one["size"], one["batch"])
    # A run has f16 figures; only a dry run, on a CPU, has none.
    halves = {key(one): one for one in results["cells"] if one["precision"] == "f16"}
    singles = {key(one): one for one in results["cells"] if one["precision"] == "f32"}
    torch = {key(one): one["blocks_ms"] for one in results["torch"] or [] if "blocks_ms" in one}
    for where in dict.fromkeys(map(key, results["cells"])):
        half, single, blocks = halves.get(where), singles.get(where), torch.get(where, {})
        peers = [name for name in ("torch eager", "torch compile") if name in blocks]
        row = [f"{where[0].capitalize()} {where[1]}, batch {where[2]}"]
        row += [shown(half["mask_ms"]), f"{half['fps']:.0f}", shown(half["frame_ms"])] if half else ["-"] * 3
        row += [shown(single["mask_ms"]) if single else "-"]
        row += [shown(typical([blocks], name)) if name in peers else "-" for name in ("torch eager", "torch compile")]
        row += [f"**{speedup([blocks], peers, 'rtformer'):.2f}x**" if peers else "-"]
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)


def slowest(results: dict) -> list[str]:
    """The operations that take most of the time, of one network and size; the file has all of them."""
    if not results["kernels"]:
        return []
    name = SHOWN if SHOWN in results["kernels"] else next(iter(results["kernels"]))
    lines = results["kernels"][name]
    rows = [f"| the slowest of {len(lines)} operations, {name.capitalize()} | µs | GB/s | of a copy's | TFLOP/s | of a product's |",
            "| --- |" + " ---: |" * 5]
    percent = lambda share: "-" if share is None else f"{100 * share:.0f} %"
    for line in sorted(lines, key=lambda line: -line["ms"])[:SLOWEST]:
        flops = [f"{line['gflops'] / 1e3:.1f}", percent(line["matmul_share"])] if line["gflops"] else ["-", "-"]
        rows.append(f"| `{line['name']}` | {1e3 * line['ms']:.1f} | {line['gbytes_per_s']:.0f} | {percent(line['copy_share'])} | "
                    f"{' | '.join(flops)} |")
    return ["\n".join(rows)]


if __name__ == "__main__":
    main()
