#!/usr/bin/env python3
"""Tests the guarantee of `rtformer calibrate` on photos: splits their units at random into calibration and test, many times.

    rtformer calibrate --images PHOTOS --group-by REGEX --epsilon 0.02 -o calibrated.safetensors --write-losses losses.csv
    python3 tests/resplits.py --program target/release/rtformer --losses losses.csv

For each split, half of the units certify a policy of each family, and the other half measure its risk. A split is a violation if the risk
of either policy exceeds epsilon. Exits with 1 if more splits are violations than delta and two standard errors allow.
"""

import argparse
import csv
import json
import random
import subprocess
import tempfile
from collections import Counter
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--losses", required=True, help="what calibrate --write-losses wrote")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.02, 0.06, 0.08, 0.1, 0.12])
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--bound", default="wsr")
    parser.add_argument("--splits", type=int, default=200)
    args = parser.parse_args()
    with open(args.losses, newline="") as file:
        names, *rows = csv.reader(file)
    units = [[float(loss) for loss in row] for row in rows]
    first_size = next((i for i, name in enumerate(names) if name.startswith("size")), len(names))
    families = [family for family in (range(first_size), range(first_size, len(names))) if len(family)]
    worst = 0.0
    for epsilon in args.epsilon:
        violations, chosen = 0, Counter()
        shuffle = random.Random(1)
        for _ in range(args.splits):
            order = shuffle.sample(units, len(units))
            calibration, test = order[: len(order) // 2], order[len(order) // 2 :]
            violated = False
            for family in families:
                last = certify(args, epsilon, args.delta / len(families), [names[i] for i in family], [[u[i] for i in family] for u in calibration])
                chosen[last or "nothing"] += 1
                if last is not None:
                    column = names.index(last)
                    violated |= sum(unit[column] for unit in test) / len(test) > epsilon
            violations += violated
        rate, error = violations / args.splits, (args.delta * (1 - args.delta) / args.splits) ** 0.5
        worst = max(worst, rate - args.delta - 2 * error)
        print(f"epsilon {epsilon}: {violations} violations in {args.splits} splits of {len(units)} units, {100 * rate:.1f} %; certified: "
              + ", ".join(f"{name} {count}" for name, count in chosen.most_common()), flush=True)
    return int(worst > 0)


def certify(args, epsilon: float, delta: float, names: list[str], losses: list[list[float]]) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "losses.csv"
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([names, *losses])
        command = [args.program, "--quiet", "calibrate", "--losses", str(path), "--epsilon", str(epsilon), "--delta", str(delta)]
        done = subprocess.run([*command, "--bound", args.bound, "--json"], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["chosen"]


if __name__ == "__main__":
    raise SystemExit(main())
