"""Train RTFormer-Slim from scratch, on a CPU or a CUDA device; on CamVid, or on other classes by --dataset.

    python train.py --data camvid --out run
    python train.py --train photos labels --val val_photos val_labels --dataset mine.json --out run

Started again with the same --out it resumes from the last checkpoint: every batch, mask and learning rate is a
function of the seed and the iteration alone, so an interrupted run repeats what an uninterrupted one would do.
"""

import argparse
import copy
import csv
import functools
import json
import math
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import IGNORE, Classes, Split, find_pairs, normalize
from model import Config, RTFormer, resize


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)

    classes = Classes.load(args.dataset)
    held_out = find_pairs(*args.val)
    train = Split(find_pairs(*args.train) + (held_out if args.also_val else []), classes)
    val = Split(held_out, classes)
    if len(train) < args.batch:
        raise SystemExit(f"{args.train[0]}: {len(train)} photos do not fill one batch of {args.batch}")
    run = Run(args, len(classes.names), device)
    weights = train.class_weights().to(device)
    per_epoch = len(train) // args.batch
    print(f"{device}, {len(train)} photos, {per_epoch} iterations an epoch, at iteration {run.iteration} of {args.iterations}")

    def batch(iteration: int) -> tuple[Tensor, Tensor]:
        crop = args.crop if iteration >= args.small_until * args.iterations else args.small_crop
        return train.batch(args.seed, iteration, args.batch, crop, args.scales)

    losses: list[float] = []
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(number))
    # The next batches are made meanwhile: one on a CPU, which has no more time for it; as many as it has cores beside a GPU.
    workers = 1 if device.type == "cpu" else os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    coming = deque(pool.submit(batch, run.iteration + i) for i in range(workers))
    saved = time.monotonic()
    while run.iteration < args.iterations:
        photos, labels = coming.popleft().result()
        coming.append(pool.submit(batch, run.iteration + workers))
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
        if ends_epoch or stopped or time.monotonic() - saved > 180.0:
            run.save()
            saved = time.monotonic()
        if stopped:
            pool.shutdown(cancel_futures=True)
            raise SystemExit(f"stopped at iteration {run.iteration}; the same command goes on")

    pool.shutdown(cancel_futures=True)
    result = settled(run.ema, train, args, device)
    report = evaluate(result, val, device) | calibrate(result, val, device)
    for name, iou in report["iou"].items():
        print(f"{100 * iou:6.2f} %  {name}" if iou is not None else f"     -    {name}")
    print(f"{100 * report['mean_iou']:6.2f} %  mean IoU\n{100 * report['pixel_accuracy']:6.2f} %  pixel accuracy")
    print(f"{report['temperature']:6.3f}    temperature, which takes the calibration error from {100 * report['ece_at_1']:.2f} to {100 * report['ece']:.2f} %")
    report |= {"iterations": args.iterations, "seed": args.seed, "precision": args.precision, "also_val": args.also_val, "seconds": round(run.seconds), "cpu_seconds": round(run.cpu_seconds)}
    write(args.out / "val.json", lambda path: path.write_text(json.dumps(report, indent=2) + "\n"))
    final = {name: tensor.float().cpu().contiguous() for name, tensor in state(result).items()}
    write(args.out / "final.pth", lambda path: torch.save(final, path))
    plot(args.out)
    print(f"rtformer convert {args.out / 'final.pth'} -o OUT.safetensors --dataset {args.dataset} --temperature {report['temperature']} --store int8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/, train_labels/, val/, val_labels/; or name folders by --train and --val")
    for split in ("train", "val"):
        parser.add_argument(f"--{split}", type=Path, nargs=2, metavar=("PHOTOS", "LABELS"), help="two folders, as `rtformer eval` reads them")
    parser.add_argument("--also-val", action="store_true", help="train on val too; its figures then say nothing")
    parser.add_argument("--dataset", default="camvid", metavar="NAME|FILE", help="the classes: camvid, cityscapes, ade20k, or a JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights; resumes what is there")
    parser.add_argument("--iterations", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=(288, 384), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--small-crop", type=int, nargs=2, default=(192, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--small-until", type=float, default=0.78, metavar="SHARE", help="of the iterations: these take small crops")
    parser.add_argument("--scales", type=float, nargs=2, default=(0.6, 2.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--lr", type=float, default=1.5e-3, help="the peak of the one-cycle schedule")
    parser.add_argument("--weight-decay", type=float, default=0.02, help="on conv weights only")
    parser.add_argument("--drop-path", type=float, default=0.1, help="stochastic depth (PaddleSeg's default, 0.2, is for longer runs)")
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights, which are the result")
    parser.add_argument("--val-every", type=int, default=8, metavar="EPOCHS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--precision", choices=["bf16", "f32"], default=natural_precision(), help="of the convolutions")
    parser.add_argument("--smoke", action="store_true", help="20 iterations instead: every step, and a useless network")
    args = parser.parse_args()
    for name in ("crop", "small_crop", "scales"):
        setattr(args, name, tuple(getattr(args, name)))
    for split in ("train", "val"):
        if getattr(args, split) is None:
            if args.data is None:
                parser.error(f"give --data, or --{split} PHOTOS LABELS")
            setattr(args, split, (args.data / split, args.data / f"{split}_labels"))
    if args.smoke:
        args.iterations = 20
    return args


def natural_precision() -> str:
    """bf16 where the machine computes in it; a CPU that has to emulate it is ten times slower that way than in f32."""
    native = torch.cuda.is_available() or torch.cpu.is_available() and torch.cpu._is_avx512_bf16_supported()
    return "bf16" if native else "f32"


class Run:
    """What a checkpoint holds: network, optimizer, average, iteration and the time spent."""

    def __init__(self, args: argparse.Namespace, classes: int, device: torch.device):
        self.args, self.device = args, device
        config = Config.slim(classes, drop_path=args.drop_path)
        self.net = RTFormer(config).to(device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        if device.type == "cpu" and args.precision == "bf16":
            quicken(self.net)
        # Convs, and attention's keys and values, have four dimensions; norms and biases one.
        convs = [p for p in self.net.parameters() if p.ndim == 4]
        others = [p for p in self.net.parameters() if p.ndim != 4]
        groups = [{"params": convs, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
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
        loss = segmentation_loss(*sampled(logits, labels, 2, self.iteration), weights)
        extra, labels = sampled(extra, labels, 4, self.iteration)
        loss = loss + 0.4 * F.cross_entropy(extra, labels, weights, ignore_index=IGNORE)
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
        for group in self.optimizer.param_groups:
            group["fused"] = True
        self.iteration, self.seconds, self.cpu_seconds = saved["iteration"], saved["seconds"], saved["cpu_seconds"]
        if self.csv.exists():  # a kill between a line and its checkpoint leaves lines that are to come again
            head, *lines = self.csv.read_text().splitlines(keepends=True)
            kept = [line for line in lines if int(line.split(",")[0]) <= self.iteration]
            write(self.csv, lambda path: path.write_text(head + "".join(kept)))

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


@torch.no_grad()
def settled(net: nn.Module, train: Split, args: argparse.Namespace, device: torch.device) -> nn.Module:
    """The network with norm statistics of the training photos as they are: whole, at scale 1, in their own colours.

    Those gathered in training are of crops with borders, pasted things and stretched colours, and follow weights that moved.
    """
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i in np.random.default_rng([args.seed, 2]).permutation(len(train)):
        sizes.setdefault(tuple(train.photos[i].shape), []).append(i)
    if not any(len(same) >= args.batch for same in sizes.values()):
        return net  # no batch's worth of photos has one size
    net = copy.deepcopy(net)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    batches = [same[i : i + args.batch] for same in sizes.values() for i in range(0, len(same), args.batch)]
    for batch in batches:
        if len(batch) == args.batch:  # fewer photos differ less from each other
            photos = torch.stack([normalize(train.photos[i]) for i in batch]).to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                net(photos)
    return net.eval()


def sampled(logits: Tensor, labels: Tensor, step: int, iteration: int) -> tuple[Tensor, Tensor]:
    """Logits `[n, classes, h/8, w/8]`, resized to the labels' size, and labels, both at every `step`th pixel and row.

    The loss of all pixels costs a third of an iteration and says little more: neighbours agree. Which of the `step²`
    grids is taken changes with the iteration. Resizing is linear, so two small matrices compute it at these pixels only.
    """
    down, right = divmod(iteration % step**2, step)
    rows = resizing(logits.shape[2], labels.shape[1], logits.device)[down::step]
    columns = resizing(logits.shape[3], labels.shape[2], logits.device)[right::step]
    return rows @ (logits.float().contiguous() @ columns.T), labels[:, down::step, right::step]


@functools.cache
def resizing(inputs: int, outputs: int, device: torch.device) -> Tensor:
    """`[outputs, inputs]`: the matrix of bilinear resizing along one axis."""
    unit = torch.eye(inputs, device=device)[None]
    return F.interpolate(unit, size=outputs, mode="linear", align_corners=False)[0].T.contiguous()


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy plus what is missing of the batch's soft IoU, averaged over the classes that the labels hold."""
    log_p = logits.log_softmax(dim=1)
    loss = F.nll_loss(log_p, labels, weights, ignore_index=IGNORE)
    seen = (labels != IGNORE).float()
    p = log_p.exp()
    of_truth = p.gather(1, labels.clamp(max=p.shape[1] - 1)[:, None])[:, 0] * seen
    true_positive = torch.zeros(256, device=p.device).index_add(0, labels.flatten(), of_truth.flatten())[: len(weights)]
    guessed = torch.einsum("nchw,nhw->c", p, seen)
    counts = torch.bincount(labels.flatten(), minlength=256)[: len(weights)]
    soft_iou = true_positive / (guessed + counts - true_positive).clamp(min=1.0)
    return loss + 1.0 - soft_iou[counts > 0].mean()


class Conv3x3(torch.autograd.Function):
    """A bf16 3x3 convolution whose weights' gradient is one matrix product; for the CPU.

    PyTorch's own takes up to fifty times as long as the forward pass where the stride is 2 or the map is small.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.biased = stride, bias is not None
        return F.conv2d(x, weight, bias, stride, padding=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        s = ctx.stride
        grad_x = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [s, s], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
        )[0]
        height, width = grad.shape[2:]
        padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        taps = [
            padded[:, i : i + s * (height - 1) + 1 : s, j : j + s * (width - 1) + 1 : s] for i in range(3) for j in range(3)
        ]
        columns = torch.stack(taps, dim=3).reshape(-1, 9 * x.shape[1])      # n*h*w, 9*inputs
        grad_rows = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])      # n*h*w, outputs
        grad_weight = (grad_rows.T @ columns).reshape(-1, 3, 3, x.shape[1]).permute(0, 3, 1, 2)
        return grad_x, grad_weight, grad.sum(dim=(0, 2, 3)) if ctx.biased else None, None


def quicken(net: nn.Module) -> None:
    """Lets the convolutions that need it compute as `Conv3x3`."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.in_channels >= 16:
            module.forward = functools.partial(quick_conv, module)


def quick_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    stride = conv.stride[0]
    if stride == 1 and x.shape[2] * x.shape[3] > 256 or not torch.is_grad_enabled():
        return F.conv2d(x, conv.weight, conv.bias, stride, padding=1)
    bias = None if conv.bias is None else conv.bias.bfloat16()
    return Conv3x3.apply(x.bfloat16(), conv.weight.bfloat16(), bias, stride)


@torch.no_grad()
def predictions(net: nn.Module, val: Split, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Photo by photo at its own size, in f32: logits `[classes, h, w]` and labels `[h, w]`."""
    for photo, truth in zip(val.photos, val.labels):
        photo = normalize(photo)[None].to(device, memory_format=torch.channels_last)
        yield resize(net(photo), truth.shape)[0].cpu(), truth


def evaluate(net: nn.Module, val: Split, device: torch.device) -> dict:
    """IoU per class, their mean, and the share of labelled pixels that are right.

    A class's IoU is tp / (tp + fp + fn) over all pixels of the split; unlabelled pixels count nowhere. Neither does a class
    in the mean that is neither labelled nor guessed.
    """
    names = val.classes.names
    confusion = torch.zeros(len(names), len(names), dtype=torch.int64)  # truth, guess
    for logits, truth in predictions(net, val, device):
        seen = truth != IGNORE
        pairs = truth[seen].long() * len(names) + logits.argmax(dim=0)[seen]
        confusion += torch.bincount(pairs, minlength=len(names) ** 2).reshape(confusion.shape)
    right = confusion.diag()
    union = confusion.sum(0) + confusion.sum(1) - right
    iou = right / union
    return {
        "iou": {name: iou.item() if some > 0 else None for name, iou, some in zip(names, iou, union)},
        "mean_iou": iou[union > 0].mean().item(),
        "pixel_accuracy": (right.sum() / confusion.sum()).item(),
        "photos": len(val),
    }


def calibrate(net: nn.Module, val: Split, device: torch.device) -> dict:
    """The temperature of least cross entropy on val (arXiv:1706.04599), and the expected calibration error without and with it.

    About 10,000 pixels of each photo take part, on a grid.
    """
    some, truths = [], []
    for logits, truth in predictions(net, val, device):
        step = max(1, round((truth.numel() / 10_000) ** 0.5))
        logits, truth = logits[:, ::step, ::step], truth[::step, ::step]
        some.append(logits[:, truth != IGNORE].T)
        truths.append(truth[truth != IGNORE].long())
    logits, truth = torch.cat(some), torch.cat(truths)

    # Cross entropy is convex in 1 / temperature, and its slope is what the expected logit has over the true one.
    low, high = 0.05, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        expected = ((logits * middle).softmax(dim=1) * logits).sum(dim=1)
        slope = (expected - logits.gather(1, truth[:, None])[:, 0]).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    temperature = round(2.0 / (low + high), 3)
    return {
        "temperature": temperature,
        "ece": calibration_error(logits / temperature, truth),
        "ece_at_1": calibration_error(logits, truth),
    }


def calibration_error(logits: Tensor, truth: Tensor, bins: int = 15) -> float:
    """How far the confidence is from the share that is right, averaged over the pixels by bins of equal width."""
    confidence, guess = logits.softmax(dim=1).max(dim=1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    off = torch.zeros(bins, dtype=torch.float64).index_add(0, which, (confidence - (guess == truth).float()).double())
    return (off.abs().sum() / len(truth)).item()


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
