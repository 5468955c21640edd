#!/usr/bin/env python3
"""Tests the guarantee of `rtformer calibrate` on photos: splits their units at random into calibration and test, many times.

    rtformer calibrate --images PHOTOS --epsilon 0.02 -o calibrated.safetensors --write-losses losses.csv
    python3 tests/resplits.py --program target/release/rtformer --losses losses.csv [--beyond 0.04]

For each split, one part of the units certifies a policy of each family (tiles and sizes), and the other part measures its risk. A split is a
violation if the risk of either policy exceeds epsilon. `mean` is the control: it takes the last policy whose mean loss is at most epsilon.

--beyond SHARE replaces the losses by 0 and 1: whether a photo differs by more than SHARE. The risk is then the share of such photos.

Exits with 1 if hb or wsr have more violations than delta and two standard errors allow, or if crc's mean risk exceeds epsilon.
"""

import argparse
import csv
import json
import random
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import log
from pathlib import Path

Units = list[list[float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--losses", required=True, help="what calibrate --write-losses wrote")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.02, 0.03, 0.05, 0.08, 0.1])
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--bound", nargs="+", default=["hb", "wsr", "crc", "mean"])
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--beyond", type=float, help="count photos that differ by more than this share")
    args = parser.parse_args()
    with open(args.losses, newline="") as file:
        names, *rows = csv.reader(file)
    units = [[float(loss) for loss in row] for row in rows]
    if args.beyond is not None:
        units = [[float(loss > args.beyond) for loss in unit] for unit in units]
    first_size = next((i for i, name in enumerate(names) if name.startswith("size")), len(names))
    families = [family for family in (range(first_size), range(first_size, len(names))) if len(family)]
    failed = False
    n = len(units) // 2
    print(f"{len(units)} units, {n} of them calibrate, {args.splits} splits, delta {args.delta}; risks are those of the test part")
    print(f"no valid bound certifies a risk above epsilon - ln({len(families)} / delta) / n = epsilon - {log(len(families) / args.delta) / n:.4f}")
    for bound in args.bound:
        # Conformal risk control holds for one sequence.
        tested = families[:1] if bound == "crc" else families
        for epsilon in args.epsilon:
            tally = Tally(epsilon)
            shuffle = random.Random(1)
            orders = [shuffle.sample(range(len(units)), len(units)) for _ in range(args.splits)]
            with ThreadPoolExecutor(2) as pool:
                certified = list(pool.map(lambda order: [certify(args, bound, epsilon, len(tested), names, family, [units[i] for i in order[:n]])
                                                         for family in tested], orders))
            for order, columns in zip(orders, certified):
                tally.add([units[i] for i in order[:n]], [units[i] for i in order[n:]], columns)
            print(f"{bound:4}  epsilon {epsilon:.2f}: {tally}", flush=True)
            failed |= tally.fails(bound, args.delta)
    return int(failed)


@dataclass
class Tally:
    """What happened in the splits so far."""

    epsilon: float
    splits: int = 0
    violations: int = 0
    used: int = 0
    calibrated: list[float] = field(default_factory=list)
    tested: list[float] = field(default_factory=list)

    def add(self, calibration: Units, test: Units, columns: list[int | None]) -> None:
        certified = [column for column in columns if column is not None]
        self.calibrated += [mean(calibration, column) for column in certified]
        risks = [mean(test, column) for column in certified]
        self.tested += risks
        self.splits += 1
        self.used += bool(risks)
        self.violations += any(risk > self.epsilon for risk in risks)

    def fails(self, bound: str, delta: float) -> bool:
        if bound == "mean":
            return False
        if bound == "crc":
            return sum(self.tested) / self.splits > self.epsilon
        return self.violations / self.splits > delta + 2 * (delta * (1 - delta) / self.splits) ** 0.5

    def __str__(self) -> str:
        text = f"{self.violations:3} violations ({100 * self.violations / self.splits:4.1f} %); a policy certified in {self.used:3} splits"
        if not self.tested:
            return text
        average = lambda values: 100 * sum(values) / len(values)
        return f"{text}; mean risk {average(self.calibrated):.2f} % in calibration, {average(self.tested):.2f} % in test, at most {100 * max(self.tested):.2f} %"


def mean(units: Units, column: int) -> float:
    return sum(unit[column] for unit in units) / len(units)


def certify(args, bound: str, epsilon: float, families: int, names: list[str], family: range, units: Units) -> int | None:
    """The column that is certified."""
    if bound == "mean":
        certified = 0
        while certified < len(family) and mean(units, family[certified]) <= epsilon:
            certified += 1
        return family[certified - 1] if certified else None
    rows = [[unit[i] for i in family] for unit in units]
    if bound == "crc":  # as calibrate --images does: losses that never fall
        for row in rows:
            for i in range(1, len(row)):
                row[i] = max(row[i], row[i - 1])
    with tempfile.NamedTemporaryFile("w", newline="", suffix=".csv") as table:
        csv.writer(table).writerows([[names[i] for i in family], *rows])
        table.flush()
        command = [args.program, "--quiet", "calibrate", "--losses", table.name, "--epsilon", str(epsilon), "--delta", str(args.delta / families)]
        done = subprocess.run([*command, "--bound", bound, "--json"], check=True, capture_output=True, text=True)
    chosen = json.loads(done.stdout)["chosen"]
    return None if chosen is None else names.index(chosen)


if __name__ == "__main__":
    raise SystemExit(main())
