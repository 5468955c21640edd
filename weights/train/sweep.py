"""The study behind `rtformer plan --train`: many small trainings, each with its own complete learning-rate schedule.

    python sweep.py --data CAMVID --clip 0006R0 --out sweep       # hours; the same command resumes it
    python sweep.py --data CAMVID --clip 0006R0 --out sweep --list
    python sweep.py --data CAMVID --clip 0006R0 --out sweep --only --budgets 1e13 --widths 4      # adds runs to it
    python sweep.py --measure                                     # this machine's training rate, a minute

Each run is `train.py` at one crop size with one width, budget, number of photos, seed and learning rate. OUT/runs has a folder and, when
the run is done, a result file for each. OUT/sweep.csv has all finished runs with the learning rate --lr, for `rtformer plan`;
OUT/rates.csv has those with other rates, which check it.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import train
from data import Classes, Split, find_pairs
from model import Config, RTFormer

RECIPE = ("256x192", 12)  # crop and batch that a table without such columns has
HEADER = "width,params,crops,epochs,unique,flops,seed,lr,cross_entropy,miou,seconds".split(",")
# Widths for each budget: at least four around where the optimum is expected. At 256x192, the whole study takes 9.8e14 FLOPs.
GRID = {1e13: [8, 12, 16, 24], 2e13: [8, 12, 16, 24], 4e13: [8, 12, 16, 24, 32], 8e13: [12, 16, 24, 32]}
SEEDS = 3  # at the two lowest budgets; one above
SHARES = [8, 4, 2]  # the subsets have this part of the photos: 46, 92 and 184 of 367
FACTORS = [0.5, 2.0]  # of the learning rate, in its check
FEWEST_ITERATIONS = 20


@dataclass(frozen=True)
class Spec:
    """One run. `unique` is the number of different photos."""

    width: int
    budget: float
    unique: int
    seed: int
    lr: float

    @property
    def name(self) -> str:
        short = lambda number: f"{number:.3g}" if float(f"{number:.3g}") == number else repr(number)
        return f"w{self.width}-c{short(self.budget)}-u{self.unique}-s{self.seed}-lr{short(self.lr)}".replace("+", "")


def main() -> None:
    args = arguments()
    if args.measure:
        for width in args.widths or [8, 16, 32]:
            print(json.dumps(measure(width, args)), flush=True)
        return
    pairs, held_out, classes = photos(args)
    specs, rates = study(args, len(pairs))
    for spec in specs + rates:
        if iterations(spec, args, classes) < FEWEST_ITERATIONS:
            raise SystemExit(f"{spec.name}: a budget of {spec.budget:.3g} FLOPs is less than {FEWEST_ITERATIONS} iterations of width {spec.width}; drop the width, or raise the budget")
    # The check of the learning rate comes first, the repetitions of runs come last.
    order = sorted(specs + rates, key=lambda spec: (spec.seed, spec not in rates, spec.unique != len(pairs), spec.budget, spec.width))
    if args.list:
        show(order, args)
        return
    if hasattr(os, "nice"):
        os.nice(19)  # the trainings inherit it
    args.out.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    lock = locked(args.out)
    same_settings(args, pairs, held_out)
    (args.out / "runs").mkdir(exist_ok=True)
    if any(math.isnan(row["cross_entropy"]) for row in results(args)[0]):
        raise SystemExit(f"{args.out}: a run diverged with --lr {args.lr:g}, which an earlier sweep tried there; use a smaller one")
    for number, spec in enumerate(order, start=1):
        if not result(args, spec).exists():
            print(f"run {number} of {len(order)}: {spec.name}", flush=True)
            run(spec, args, pairs, held_out, classes, lock, may_diverge=spec in rates)
            tables(args)
    advise(args, *tables(args))


def stop(*_) -> None:
    raise SystemExit("stopped; the same command resumes the sweep")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/, train_labels/, val/, val_labels/; or name folders by --train and --val")
    for split, what in (("train", "to learn from"), ("val", "to measure on")):
        parser.add_argument(f"--{split}", type=Path, nargs=2, metavar=("PHOTOS", "LABELS"), help=f"two folders {what}, as train.py reads them")
    parser.add_argument("--clip", help="measure on the photos of both splits whose names begin with this, and learn from all others")
    parser.add_argument("--dataset", default="camvid", metavar="NAME|FILE", help="the classes, as for train.py")
    parser.add_argument("--out", type=Path, help="folder for runs, results and tables; resumes what is there")
    parser.add_argument("--budgets", type=float, nargs="+", metavar="FLOPS", help="with --widths: all pairs of them instead of the study's own grid")
    parser.add_argument("--widths", type=int, nargs="+", metavar="WIDTH", help="see --budgets; with --measure, the widths to time")
    parser.add_argument("--only", action="store_true", help="only the pairs of --budgets and --widths: no subsets of the photos, no check of the learning rate")
    parser.add_argument("--seeds", type=int, help=f"seeds at the two lowest budgets; higher ones have one [default: {SEEDS}]. With --only, of all pairs [default: 1]")
    parser.add_argument("--lr", type=float, default=3e-3, help="the peak learning rate of all runs but the check's")
    parser.add_argument("--crop", default="256x192", metavar="WxH", help="the one size of crops")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--precision", choices=["bf16", "f32"], default=train.natural_precision(), help="of the convolutions, the same in all runs of a folder [default: bf16 where the machine computes in it]")
    parser.add_argument("--list", action="store_true", help="print the runs and what they cost, and train nothing")
    parser.add_argument("--measure", action="store_true", help="print this machine's training rate for some widths, one line of JSON each")
    args = parser.parse_args()
    try:
        args.size = train.size(args.crop)
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(f"--crop {args.crop}: {error}")
    if args.measure:
        return args
    if args.out is None and not args.list:
        parser.error("give --out")
    if (args.budgets is None) != (args.widths is None):
        parser.error("give --budgets and --widths, or neither")
    if args.only and not args.budgets:
        parser.error("--only needs --budgets and --widths")
    if args.seeds is not None and args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: expected at least 1")
    args.seeds = args.seeds or (1 if args.only else SEEDS)
    for split in ("train", "val"):
        if getattr(args, split) is None:
            if args.data is None:
                parser.error(f"give --data, or --{split} PHOTOS LABELS")
            setattr(args, split, (args.data / split, args.data / f"{split}_labels"))
    return args


def photos(args: argparse.Namespace) -> tuple[list, list, Classes]:
    """Photos and labels to learn from, those to measure on, and the classes."""
    pairs, held_out = find_pairs(*args.train), find_pairs(*args.val)
    if args.clip:
        everything = pairs + held_out
        held_out = [pair for pair in everything if pair[0].stem.startswith(args.clip)]
        pairs = [pair for pair in everything if pair not in held_out]
        if not held_out or not pairs:
            raise SystemExit(f"--clip {args.clip}: {len(held_out)} of {len(everything)} photos have such a name, for example {everything[0][0].stem} has {'' if held_out else 'not'}")
    if len(pairs) < args.batch:
        raise SystemExit(f"{len(pairs)} photos to learn from do not fill one batch of {args.batch}")
    return pairs, held_out, Classes.load(args.dataset)


def study(args: argparse.Namespace, count: int) -> tuple[list[Spec], list[Spec]]:
    """The runs for the fit, and those that check the learning rate."""
    grid = {budget: sorted(set(args.widths)) for budget in sorted(set(args.budgets))} if args.budgets else GRID
    budgets = list(grid)
    specs = [
        Spec(width, budget, count, seed, args.lr)
        for place, (budget, widths) in enumerate(grid.items())
        for seed in range(1, 1 + (args.seeds if place < 2 or args.only else 1))
        for width in widths
    ]
    if args.only:
        return specs, []
    # Subsets of the photos at one budget and one width say what repeated photos are worth.
    middle = budgets[min(1, len(budgets) - 1)]
    width = grid[middle][len(grid[middle]) // 2]
    for unique in (round(count / share) for share in SHARES):
        if unique >= args.batch:
            specs.append(Spec(width, middle, unique, 1, args.lr))
        else:
            print(f"no run with {unique} of the {count} photos, which do not fill one batch of {args.batch}")
    ends = sorted({grid[budgets[0]][0], grid[budgets[0]][-1]})
    rates = [Spec(width, budgets[0], count, 1, args.lr * factor) for width in ends for factor in FACTORS]
    return specs, rates


def training_flops(width: int, classes: int, size: tuple[int, int]) -> tuple[int, int]:
    """Parameters, and FLOPs of one crop, forward and backward: three times the forward pass, the auxiliary head included.

    A multiplication and its addition are two. Counted are convolutions and matrix products, exactly; nothing else.
    """
    with torch.device("meta"):
        net = RTFormer(Config.slim(classes, width=width)).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(1, 3, *size), extra=True)
    return sum(parameter.numel() for parameter in net.parameters()), 3 * counter.get_total_flops()


def iterations(spec: Spec, args: argparse.Namespace, classes: Classes) -> int:
    _, flops = training_flops(spec.width, len(classes.names), args.size)
    return round(spec.budget / (flops * args.batch))


def result(args: argparse.Namespace, spec: Spec) -> Path:
    return args.out / "runs" / f"{spec.name}.json"


def command(spec: Spec, args: argparse.Namespace, count: int, folders: list[Path]) -> list[str]:
    """`train.py` for one run. `folders` are photos and labels to learn from, photos and labels to measure on."""
    learn, measured = folders[:2], folders[2:]
    words = [sys.executable, Path(__file__).with_name("train.py"), "--train", *learn, "--val", *measured, "--dataset", args.dataset]
    words += ["--width", spec.width, "--iterations", count, "--batch", args.batch, "--crops", *[args.crop] * 3, "--lr", spec.lr]
    words += ["--precision", args.precision, "--seed", spec.seed, "--val-every", 10**9, "--out", args.out / "runs" / spec.name]
    return [str(word) for word in words]


def run(spec: Spec, args: argparse.Namespace, pairs: list, held_out: list, classes: Classes, lock, may_diverge: bool) -> None:
    """Trains, or resumes, one run and writes its result file. One that diverges has no cross entropy, if it may."""
    params, flops = training_flops(spec.width, len(classes.names), args.size)
    count = iterations(spec, args, classes)
    subset = [pairs[i * len(pairs) // spec.unique] for i in range(spec.unique)]  # evenly spaced over the clips
    folders = [*linked(subset, args.out / "photos" / str(spec.unique)), *linked(held_out, args.out / "photos" / "held_out")]
    folder = args.out / "runs" / spec.name
    folder.mkdir(exist_ok=True)
    with (folder / "train.log").open("a") as log:
        training = subprocess.Popen(command(spec, args, count, folders), stdout=log, stderr=subprocess.STDOUT, **({"pass_fds": [lock.fileno()]} if lock else {}))
        try:
            code = wait(training)
        finally:
            if training.poll() is None:
                training.kill()
    report = {"cross_entropy": math.nan, "mean_iou": math.nan, "seconds": math.nan}
    if code == 0:
        report = json.loads((folder / "val.json").read_text())
    else:
        last = ((folder / "train.log").read_text().splitlines() or ["no output"])[-1]
        if not may_diverge or "the loss is" not in last:
            raise SystemExit(f"{spec.name}: train.py ended with exit code {code}: {last} (see {folder / 'train.log'})")
        print(f"{spec.name}: {last}", flush=True)
    crops = count * args.batch
    row = {
        "width": spec.width, "params": params, "crops": crops, "epochs": round(crops / spec.unique, 2), "unique": spec.unique,
        "flops": crops * flops, "seed": spec.seed, "lr": spec.lr, "cross_entropy": round(report["cross_entropy"], 6),
        "miou": round(report["mean_iou"], 6), "seconds": report["seconds"],
    }  # fmt: skip
    train.write(result(args, spec), lambda path: path.write_text(json.dumps(row, indent=2) + "\n"))
    (folder / "checkpoint.pth").unlink(missing_ok=True)


def wait(training: subprocess.Popen) -> int:
    """Waits for a training; on Ctrl-C or SIGTERM, lets it save its checkpoint, and stops."""
    stopped: list[int] = []

    def pass_on(number: int, _) -> None:
        stopped.append(number)
        training.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = training.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        stop()
    return code


def locked(out: Path):
    """A lock that only one sweep in a folder has. A training holds it, too, so that it counts even if its sweep was killed."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    lock = (out / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit(f"{out}: another sweep.py, or a training that it started, is running there; wait for it or stop it") from None
    return lock


def linked(pairs: list, folder: Path) -> tuple[Path, Path]:
    """Two folders, `photos` and `labels`, with links to these files; a folder for each pair, since names may occur twice."""
    for kind, files in zip(("photos", "labels"), zip(*pairs)):
        for number, file in enumerate(files):
            link = folder / kind / f"{number:05d}" / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_symlink() and link.resolve() != file.resolve():
                link.unlink()  # of a folder that has moved
            if not link.exists():
                try:
                    link.symlink_to(file.resolve())
                except OSError:  # Windows without the right to make links
                    shutil.copy2(file, link)
    return folder / "photos", folder / "labels"


def same_settings(args: argparse.Namespace, pairs: list, held_out: list) -> None:
    """Refuses to add runs to a folder whose runs learned or measured something else."""
    names = json.dumps([[path.name for pair in split for path in pair] for split in (pairs, held_out)])
    settings = {
        "crop": args.crop, "batch": args.batch, "precision": args.precision, "dataset": args.dataset, "learned": len(pairs), "measured": len(held_out),
        "names": hashlib.sha256(names.encode()).hexdigest()[:16],
    }  # fmt: skip
    place = args.out / "settings.json"
    if place.exists() and (found := json.loads(place.read_text())) != settings:
        changed = [f"{key} was {found.get(key)}, is {value}" for key, value in settings.items() if found.get(key) != value]
        raise SystemExit(f"{place}: the runs there have other settings: {'; '.join(changed)}; use another --out")
    train.write(place, lambda path: path.write_text(json.dumps(settings, indent=2) + "\n"))


def results(args: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """All finished runs with the learning rate --lr, also of earlier calls, and those with others."""
    rows = [json.loads(path.read_text()) for path in (args.out / "runs").glob("*.json")]
    rows.sort(key=lambda row: (nominal(row), row["width"], row["unique"], row["seed"], row["lr"]))
    return [row for row in rows if row["lr"] == args.lr], [row for row in rows if row["lr"] != args.lr]


def tables(args: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """Writes both tables; returns their rows."""
    swept, others = results(args)
    table(args.out / "sweep.csv", args, swept)
    table(args.out / "rates.csv", args, others)
    return swept, others


def nominal(row: dict) -> float:
    """What the run should cost; it costs a little more or less, because its batches are whole."""
    return float(f"{row['flops']:.2g}")


def table(path: Path, args: argparse.Namespace, rows: list[dict]) -> None:
    """Runs as CSV. A crop size and a batch other than the study's are columns."""
    recipe = {} if (args.crop, args.batch) == RECIPE else {"crop": args.crop, "batch": args.batch}

    def save(draft: Path) -> None:
        with draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, HEADER + list(recipe), lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, **recipe} for row in rows)

    train.write(path, save)


def show(order: list[Spec], args: argparse.Namespace) -> None:
    for spec in order:
        done = args.out is not None and result(args, spec).exists()
        print(f"{'done' if done else 'to do'}  {spec.name}")
    print(f"{len(order)} runs, {sum(spec.budget for spec in order):.2g} FLOPs")


def advise(args: argparse.Namespace, swept: list[dict], others: list[dict]) -> None:
    """What the results say about the next step: a better learning rate, or widths that are missing."""
    same = lambda row: (row["width"], row["crops"], row["unique"], row["seed"])
    for run in sorted({same(row) for row in others}):
        tried = {row["lr"]: row["cross_entropy"] for row in swept + others if same(row) == run and row["cross_entropy"] > 0}
        if args.lr not in tried:
            continue
        best = min(tried, key=tried.get)
        listed = ", ".join(f"{tried[lr]:.4f} at {lr:.3g}" for lr in sorted(tried))
        print(f"learning rate, width {run[0]}: cross entropy {listed}" + ("" if best == args.lr else f"; {best:.3g} is better than {args.lr:.3g}, with this seed"))
    most = max(row["unique"] for row in swept)
    for flops in sorted({nominal(row) for row in swept}):
        losses: dict[int, list[float]] = {}
        for row in swept:
            if nominal(row) == flops and row["unique"] == most:
                losses.setdefault(row["width"], []).append(row["cross_entropy"])
        best = min(losses, key=lambda width: np.mean(losses[width]))
        at_end = {min(losses): "a smaller", max(losses): "a larger"}.get(best)
        print(f"{flops:.2g} FLOPs: of the widths {sorted(losses)}, {best} is best" + (f"; try {at_end} one (--only --budgets {flops:.3g} --widths ...)" if at_end else ""))
    print(f"rtformer plan --fit {shlex.quote(str(args.out / 'sweep.csv'))}")


def measure(width: int, args: argparse.Namespace) -> dict:
    """This machine's training rate: iterations as train.py's, augmentation included, on photos of noise, for ten seconds or more."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classes = Classes.load(args.dataset)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = []
        for number in range(2 * args.batch):
            photo, label = folder / f"{number}.png", folder / f"{number}_L.png"
            Image.fromarray(rng.integers(0, 256, (360, 480, 3), np.uint8)).save(photo)
            Image.fromarray(rng.integers(0, len(classes.names), (360, 480), np.uint8)).save(label)
            pairs.append((photo, label))
        settings = ["--data", name, "--out", name, "--width", width, "--batch", args.batch, "--crops", *[args.crop] * 3, "--precision", args.precision, "--iterations", 10**6]
        split, own = Split(pairs, classes), train.arguments([str(word) for word in settings])
        training = train.Run(own, classes.names, split.class_weights(), device)
        count, began = 0, None
        for batch in train.batches(split, own, 0, device):
            training.step(*batch)
            # The first iterations are slower: memory is allocated, and plans are made.
            if training.iteration == 3:
                began = time.monotonic()
            elif began is not None:
                count += 1
                if count >= 3 and (seconds := time.monotonic() - began) >= 10.0:
                    break
        training.pool.shutdown()
    params, flops = training_flops(width, len(classes.names), args.size)
    crops = count * args.batch / seconds
    return {"width": width, "params": params, "crops_per_second": round(crops, 3), "flops_per_second": float(f"{crops * flops:.4g}")}


if __name__ == "__main__":
    main()
