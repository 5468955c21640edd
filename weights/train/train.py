"""Train RTFormer-Slim on CamVid, from scratch, on a CPU or a CUDA device.

    python train.py --data camvid --out run

Started again with the same --out it resumes from the last checkpoint: every batch, mask and learning rate is a
function of the seed and the iteration alone, so an interrupted run repeats what an uninterrupted one would do.
"""

import argparse
import copy
import csv
import json
import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camvid import CLASSES, IGNORE, CamVid, normalize
from model import Config, RTFormer, resize


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)

    train, val = CamVid(args.data, "train"), CamVid(args.data, "val")
    if args.smoke:
        val.photos, val.labels = val.photos[:8], val.labels[:8]
    run = Run(args, device)
    weights = train.class_weights().to(device)
    per_epoch = len(train) // args.batch
    print(f"{device}, {len(train)} photos, {per_epoch} iterations an epoch, at iteration {run.iteration} of {args.iterations}")

    losses: list[float] = []
    saved = time.monotonic()
    while run.iteration < args.iterations:
        photos, labels = train.batch(args.seed, run.iteration, args.batch, args.crop)
        losses.append(run.step(photos, labels, weights))
        epoch, rest = divmod(run.iteration, per_epoch)
        ends_epoch = rest == 0 or run.iteration == args.iterations
        if run.iteration % 10 == 0:
            print(f"iteration {run.iteration:5d}  loss {sum(losses[-10:]) / len(losses[-10:]):.4f}  {run.seconds:.0f} s", flush=True)
        if ends_epoch:
            due = epoch % args.val_every == 0 or run.iteration == args.iterations
            report = evaluate(run.ema, val, device) if due else None
            run.log(sum(losses) / len(losses), report)
            losses.clear()
        if ends_epoch or time.monotonic() - saved > 180.0:
            run.save()
            saved = time.monotonic()

    report = evaluate(run.ema, val, device)
    for name, iou in report["iou"].items():
        print(f"{100 * iou:6.2f} %  {name}")
    print(f"{100 * report['mean_iou']:6.2f} %  mean IoU\n{100 * report['pixel_accuracy']:6.2f} %  pixel accuracy")
    report |= {"iterations": args.iterations, "seed": args.seed, "precision": args.precision, "seconds": round(run.seconds), "cpu_seconds": round(run.cpu_seconds)}
    write(args.out / "val.json", lambda path: path.write_text(json.dumps(report, indent=2) + "\n"))
    final = {name: tensor.float().cpu().contiguous() for name, tensor in state(run.ema).items()}
    write(args.out / "final.pth", lambda path: torch.save(final, path))
    plot(args.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, train_labels/, val/, val_labels/")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights; resumes what is there")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=(288, 384), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--lr", type=float, default=1.5e-3, help="the peak of the one-cycle schedule")
    parser.add_argument("--weight-decay", type=float, default=0.02, help="on conv weights only")
    parser.add_argument("--drop-path", type=float, default=0.1, help="stochastic depth (PaddleSeg's default, 0.2, is for longer runs)")
    parser.add_argument("--ema", type=float, default=0.99, help="decay of the averaged weights, which are the result")
    parser.add_argument("--val-every", type=int, default=8, metavar="EPOCHS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--precision", choices=["bf16", "f32"], default=natural_precision(), help="of the convolutions")
    parser.add_argument("--smoke", action="store_true", help="a few minutes through every step: 20 iterations, 8 val photos")
    args = parser.parse_args()
    args.crop = tuple(args.crop)
    if args.smoke:
        args.iterations = 20
    return args


def natural_precision() -> str:
    """bf16 where the machine computes in it; a CPU that has to emulate it is ten times slower that way than in f32."""
    native = torch.cuda.is_available() or torch.cpu.is_available() and torch.cpu._is_avx512_bf16_supported()
    return "bf16" if native else "f32"


class Run:
    """What a checkpoint holds: network, optimizer, average, iteration and the time spent."""

    def __init__(self, args: argparse.Namespace, device: torch.device):
        self.args, self.device = args, device
        config = Config.slim(len(CLASSES), drop_path=args.drop_path)
        self.net = RTFormer(config).to(device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        # Convs, and attention's keys and values, have four dimensions; norms and biases one.
        convs = [p for p in self.net.parameters() if p.ndim == 4]
        others = [p for p in self.net.parameters() if p.ndim != 4]
        groups = [{"params": convs, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr)
        self.iteration, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.checkpoint, self.csv = args.out / "checkpoint.pth", args.out / "log.csv"
        if self.checkpoint.exists():
            self.load()

    def step(self, photos: Tensor, labels: Tensor, weights: Tensor) -> float:
        """One iteration; returns its loss."""
        began, began_cpu = time.monotonic(), time.process_time()
        # Stochastic depth, too, depends on seed and iteration only, so no generator's state need be saved.
        torch.manual_seed(self.args.seed * 1_000_003 + self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        photos = photos.to(self.device, memory_format=torch.channels_last)
        labels = labels.to(self.device)

        self.net.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.precision == "bf16"):
            logits, extra = self.net(photos)
        loss = cross_entropy(logits, labels, weights) + 0.4 * cross_entropy(extra, labels, weights)
        if not math.isfinite(loss.item()):
            raise SystemExit(f"iteration {self.iteration}: the loss is {loss.item()}; try a smaller --lr")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.average()

        self.iteration += 1
        self.seconds += time.monotonic() - began
        self.cpu_seconds += time.process_time() - began_cpu
        return loss.item()

    def learning_rate(self) -> float:
        """One cycle: a linear rise over the first 8 %, then a cosine to zero."""
        done, rise = self.iteration / self.args.iterations, 0.08
        if done < rise:
            return self.args.lr * (0.02 + 0.98 * done / rise)
        return self.args.lr * 0.5 * (1.0 + math.cos(math.pi * (done - rise) / (1.0 - rise)))

    @torch.no_grad()
    def average(self) -> None:
        """Moves the average toward the network, norm statistics included; faster while it is young."""
        decay = min(self.args.ema, (1 + self.iteration) / (10 + self.iteration))
        torch._foreach_lerp_(list(state(self.ema).values()), list(state(self.net).values()), 1.0 - decay)

    def save(self) -> None:
        parts = {"net": self.net, "ema": self.ema, "optimizer": self.optimizer}
        saved = {name: part.state_dict() for name, part in parts.items()}
        saved |= {"iteration": self.iteration, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        write(self.checkpoint, lambda path: torch.save(saved, path))

    def load(self) -> None:
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.net.load_state_dict(saved["net"])
        self.ema.load_state_dict(saved["ema"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.iteration, self.seconds, self.cpu_seconds = saved["iteration"], saved["seconds"], saved["cpu_seconds"]

    def log(self, loss: float, report: dict | None) -> None:
        """One CSV line an epoch; the mIoU column is empty where it was not measured."""
        mean_iou = f"{report['mean_iou']:.4f}" if report else ""
        line = [self.iteration, f"{loss:.4f}", f"{self.learning_rate():.3e}", f"{self.seconds:.0f}", f"{self.cpu_seconds:.0f}", mean_iou]
        fresh = not self.csv.exists()
        with self.csv.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["iteration", "loss", "lr", "seconds", "cpu_seconds", "val_mean_iou"])
            writer.writerow(line)
        print("epoch:", *line, flush=True)


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Logits `[n, classes, h/8, w/8]` against labels `[n, h, w]`, at the labels' size, in f32."""
    return F.cross_entropy(resize(logits.float(), labels.shape[1:]), labels, weights, ignore_index=IGNORE)


@torch.no_grad()
def evaluate(net: nn.Module, val: CamVid, device: torch.device) -> dict:
    """Every photo at its own size, in f32: IoU per class, their mean, and the share of labelled pixels that are right.

    A class's IoU is tp / (tp + fp + fn) over all pixels of the split; unlabelled pixels count nowhere.
    """
    classes = len(CLASSES)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)  # truth, guess
    for photo, truth in zip(val.photos, val.labels):
        photo = normalize(photo)[None].to(device, memory_format=torch.channels_last)
        guess = resize(net(photo), truth.shape).argmax(dim=1)[0].cpu()
        seen = truth != IGNORE
        pairs = truth[seen].long() * classes + guess[seen]
        confusion += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    right = confusion.diag()
    iou = (right / (confusion.sum(0) + confusion.sum(1) - right).clamp(min=1)).tolist()
    return {
        "iou": dict(zip(CLASSES, iou)),
        "mean_iou": sum(iou) / classes,
        "pixel_accuracy": (right.sum() / confusion.sum()).item(),
        "photos": len(val),
    }


def state(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and norm statistics, without PyTorch's batch counters."""
    return {name: tensor for name, tensor in net.state_dict().items() if tensor.is_floating_point()}


def write(path: Path, save) -> None:
    """Writes beside `path`, then renames: an interruption leaves the old file whole."""
    draft = path.with_name(path.name + ".draft")
    save(draft)
    draft.replace(path)


def plot(out: Path) -> None:
    """Loss and mIoU over the iterations, as `log.png`; without matplotlib, none."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["val_mean_iou"]]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss, miou = figure.subplots(1, 2)
    loss.plot([int(row["iteration"]) for row in rows], [float(row["loss"]) for row in rows])
    loss.set(xlabel="iteration", ylabel="training loss")
    miou.plot([int(row["iteration"]) for row in measured], [100 * float(row["val_mean_iou"]) for row in measured], marker="o")
    miou.set(xlabel="iteration", ylabel="val mean IoU, %")
    figure.savefig(out / "log.png", dpi=120)


if __name__ == "__main__":
    main()
