"""Train RTFormer-Slim from scratch, on a CPU or a CUDA device; on CamVid, or on other classes by --dataset.

    python train.py --data camvid --out run
    python train.py --train photos labels --val val_photos val_labels --dataset mine.json --out run
    python train.py --data camvid --init weights.safetensors --lr 1e-3 --out run

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
from safetensors.torch import load_file
from torch import Tensor, nn

from data import IGNORE, PAD, Classes, Split, find_pairs, find_photos, normalize, pad
from model import Config, DropPath, RTFormer, resize

# Shares of the iterations with small, middle and large crops: at the start, and at the end.
CROP_SHARES = [(0.60, 0.20), (0.35, 0.45), (0.05, 0.35)]
NOT_TAUGHT = {"pole", "sign", "traffic light", "traffic sign"}  # thin things, about which the teachers are surely wrong


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)

    classes = Classes.load(args.dataset)
    val_pairs = find_pairs(*args.val)
    pairs = find_pairs(*args.train) + (val_pairs if args.also_val else [])
    held_out = [pair for pair in pairs if args.fold and pair[0].stem.startswith(args.fold)]
    if args.fold and not held_out:
        raise SystemExit(f"--fold {args.fold}: no photo's name begins so, for example {pairs[0][0].stem}")
    pairs = [pair for pair in pairs if pair not in held_out]
    unlabelled = [(photo, None) for folder in args.unlabelled for photo in find_photos(folder)]
    train = Split(pairs + unlabelled, classes, args.teach)
    if args.teach:
        print(f"{train.taught} of {len(train)} photos have soft labels in {args.teach}")
        if not train.taught:
            raise SystemExit(f"{args.teach}: has no soft labels of these photos; run teach.py on their folders")
    val = Split(val_pairs, classes)
    fold = Split(held_out, classes) if args.fold else None
    if len(train) < args.batch:
        raise SystemExit(f"{args.train[0]}: {len(train)} photos do not fill one batch of {args.batch}")
    run = Run(args, classes.names, train.class_weights(), device)
    per_epoch = len(train) // args.batch
    print(f"{device}, {len(train)} photos, {per_epoch} iterations an epoch, at iteration {run.iteration} of {args.iterations}", flush=True)

    losses: list[float] = []
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(number))
    reports: list[dict | None] = [None, None]  # of val and the fold at the last iteration
    saved = time.monotonic()
    for batch in batches(train, args, run.iteration, device):
        losses.append(run.step(*batch))
        epoch, rest = divmod(run.iteration, per_epoch)
        if run.iteration % 10 == 0:
            print(f"iteration {run.iteration:5d}  loss {sum(losses[-10:]) / len(losses[-10:]):.4f}  {run.seconds:.0f} s", flush=True)
        if rest == 0 or run.iteration == args.iterations:
            due = epoch % args.val_every == 0 or run.iteration == args.iterations
            reports = [evaluate(run.ema, split, device) if due and split else None for split in (val, fold)]
            run.log(sum(losses) / len(losses), *(report and report["mean_iou"] for report in reports))
            losses.clear()
        if run.iteration == args.iterations or stopped or time.monotonic() - saved > 180.0:
            run.save()
            saved = time.monotonic()
        if stopped:
            raise SystemExit(f"stopped at iteration {run.iteration}; the same command resumes it")
    finish(run, val, fold, *reports)


def batches(train: Split, args: argparse.Namespace, first: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Training batches `first` to the last, each made while the one before is learned."""

    def batch(iteration: int) -> tuple[Tensor, Tensor, Tensor | None]:
        return train.batch(args.seed, iteration, args.batch, crop_size(args, iteration), args.scales)

    # One worker on a CPU, which has no more time for it; as many as it has cores beside a GPU.
    workers = 1 if device.type == "cpu" else os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    coming = deque(pool.submit(batch, iteration) for iteration in range(first, min(first + workers, args.iterations)))
    try:
        for iteration in range(first, args.iterations):
            ready = coming.popleft().result()
            if iteration + workers < args.iterations:
                coming.append(pool.submit(batch, iteration + workers))
            yield ready
    finally:
        pool.shutdown(cancel_futures=True)


def finish(run: "Run", val: Split, fold: Split | None, report: dict | None, of_fold: dict | None) -> None:
    """Measures the averaged weights, unless reports are given, and writes weights and figures for `rtformer convert`."""
    args = run.args
    report = report or evaluate(run.ema, val, run.device)
    show("val, which it was trained on" if args.also_val else "val", report)
    if fold:
        report["fold"] = {"clip": args.fold, **(of_fold or evaluate(run.ema, fold, run.device))}
        show(f"the clip {args.fold}, held out", report["fold"])
    report |= calibrate(run.ema, fold or val, run.device)
    print(f"{report['temperature']:6.3f}    temperature, which takes the calibration error from {100 * report['ece_at_1']:.2f} to {100 * report['ece']:.2f} %")
    report |= {"iterations": args.iterations, "width": args.width, "seed": args.seed, "precision": args.precision, "also_val": args.also_val, "teach": args.teach is not None, "seconds": round(run.seconds), "cpu_seconds": round(run.cpu_seconds)}
    write(args.out / "val.json", lambda path: path.write_text(json.dumps(report, indent=2) + "\n"))
    final = {name: tensor.float().cpu().contiguous() for name, tensor in state(run.ema).items()}
    write(args.out / "final.pth", lambda path: torch.save(final, path))
    plot(args.out)
    print(f"rtformer convert {args.out / 'final.pth'} -o OUT.safetensors --dataset {args.dataset} --temperature {report['temperature']} --pad-multiple {PAD} --store int8")


def show(what: str, report: dict) -> None:
    print(f"{what}: {report['photos']} photos")
    for name, iou in report["iou"].items():
        print(f"{100 * iou:6.2f} %  {name}" if iou is not None else f"     -    {name}")
    print(f"{100 * report['mean_iou']:6.2f} %  mean IoU\n{100 * report['aux_mean_iou']:6.2f} %  mean IoU of the auxiliary head\n{100 * report['pixel_accuracy']:6.2f} %  pixel accuracy\n{report['cross_entropy']:8.4f}  cross entropy, nats")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The settings on the command line, or in `words`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/, train_labels/, val/, val_labels/; or name folders by --train and --val")
    for split in ("train", "val"):
        parser.add_argument(f"--{split}", type=Path, nargs=2, metavar=("PHOTOS", "LABELS"), help="two folders, as `rtformer eval` reads them")
    parser.add_argument("--also-val", action="store_true", help="train on val too; its figures then say nothing")
    parser.add_argument("--fold", metavar="CLIP", help="train without the photos whose names begin with this, and measure on them")
    parser.add_argument("--teach", type=Path, metavar="CACHE", help="teach.py's folder: learn from its soft labels, too")
    parser.add_argument("--unlabelled", type=Path, nargs="+", default=[], metavar="PHOTOS", help="folders of photos that only have soft labels")
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from these weights (.safetensors in f32, or .pth) instead of random ones")
    parser.add_argument("--dataset", default="camvid", metavar="NAME|FILE", help="the classes: camvid, cityscapes, ade20k, or a JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights; resumes what is there")
    parser.add_argument("--iterations", type=int, default=10000)
    parser.add_argument("--width", type=int, default=32, help="base channels of the network; all of its widths are multiples of it (Slim: 32, Base: 64)")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--parts", type=int, default=2, help="of a batch; each has norm statistics of its own, and a CPU thread")
    parser.add_argument("--crops", type=size, nargs=3, default=[(192, 256), (288, 384), (384, 480)], metavar="WxH", help="small, middle, large; see CROP_SHARES")
    parser.add_argument("--scales", type=float, nargs=2, default=(0.4, 2.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--lr", type=float, default=1.5e-3, help="the peak of the one-cycle schedule")
    parser.add_argument("--weight-decay", type=float, default=0.02, help="on conv weights only")
    parser.add_argument("--drop-path", type=float, default=0.1, help="stochastic depth (PaddleSeg's default, 0.2, is for longer runs)")
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights, which are the result")
    parser.add_argument("--val-every", type=int, default=20, metavar="EPOCHS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", choices=["bf16", "f32"], default=natural_precision(), help="of the convolutions")
    parser.add_argument("--smoke", action="store_true", help="20 iterations instead: every step, and a useless network")
    args = parser.parse_args(words)
    if args.width < 1:
        parser.error(f"--width {args.width}: expected a positive number of channels")
    for split in ("train", "val"):
        if getattr(args, split) is None:
            if args.data is None:
                parser.error(f"give --data, or --{split} PHOTOS LABELS")
            setattr(args, split, (args.data / split, args.data / f"{split}_labels"))
    if args.unlabelled and args.teach is None:
        parser.error("--unlabelled photos teach nothing without --teach")
    if args.batch % args.parts or args.batch // args.parts < 2:
        parser.error(f"--batch {args.batch}: does not make {args.parts} equal --parts of at least 2 crops")
    if args.smoke:
        args.iterations = 20
    return args


def size(text: str) -> tuple[int, int]:
    """`WxH` → height, width."""
    width, height = (int(n) for n in text.split("x"))
    if width < 64 or height < 64 or width % PAD or height % PAD:
        raise argparse.ArgumentTypeError(f"invalid crop `{text}`: expected WxH, multiples of {PAD} from 64")
    return height, width


def crop_size(args: argparse.Namespace, iteration: int) -> tuple[int, int]:
    """The size of an iteration's crops: drawn by shares that move from those at the start to those at the end."""
    done = iteration / args.iterations
    shares = [start + (end - start) * done for start, end in CROP_SHARES]
    return args.crops[np.random.default_rng([args.seed, 3, iteration]).choice(3, p=shares)]


def natural_precision() -> str:
    """bf16 where the machine computes in it; a CPU that has to emulate it is ten times slower that way than in f32."""
    native = torch.cuda.is_available() or torch.cpu.is_available() and torch.cpu._is_avx512_bf16_supported()
    return "bf16" if native else "f32"


class Run:
    """What a checkpoint holds: network, optimizer, average, iteration and the time spent."""

    def __init__(self, args: argparse.Namespace, names: list[str], weights: Tensor, device: torch.device):
        self.args, self.device = args, device
        self.weights = weights.to(device)
        self.taught = torch.tensor([i for i, name in enumerate(names) if name not in NOT_TAUGHT], device=device)
        config = Config.slim(len(names), drop_path=args.drop_path, width=args.width)
        self.net = RTFormer(config)
        if args.init:
            initialize(self.net, args.init)
        self.net.to(device, memory_format=layout(self.net))
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        # Convs, and attention's keys and values, have four dimensions; norms and biases one.
        self.parameters = list(self.net.parameters())
        convs = [p for p in self.parameters if p.ndim == 4]
        others = [p for p in self.parameters if p.ndim != 4]
        groups = [{"params": convs, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
        self.iteration, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.checkpoint, self.csv = args.out / "checkpoint.pth", args.out / "log.csv"
        if self.checkpoint.exists():
            self.load()
        self.parts = [Part(self.net, device, args.precision) for _ in range(args.parts)]
        threads = max(1, (os.cpu_count() or 1) // args.parts)
        self.pool = ThreadPoolExecutor(args.parts, initializer=torch.set_num_threads, initargs=(threads,))

    def step(self, photos: Tensor, labels: Tensor, soft: Tensor | None) -> float:
        """One iteration; returns its loss."""
        began, began_cpu = time.monotonic(), time.process_time()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        count = len(self.parts)
        softs = [None] * count if soft is None else soft.chunk(count)
        # Each part computes in a thread of its own and shares nothing but the parameters, which only change below.
        done = list(self.pool.map(self.gradients, range(count), photos.chunk(count), labels.chunk(count), softs))
        loss = sum(loss for loss, _ in done) / count
        if not math.isfinite(loss):
            raise SystemExit(f"iteration {self.iteration}: the loss is {loss}; try a smaller --lr")
        total = list(done[0][1])
        for _, gradients in done[1:]:
            torch._foreach_add_(total, list(gradients))
        torch._foreach_div_(total, count)
        for parameter, gradient in zip(self.parameters, total):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        self.gather_statistics()
        self.average()

        self.iteration += 1
        self.seconds += time.monotonic() - began
        self.cpu_seconds += time.process_time() - began_cpu
        return loss

    def gradients(self, number: int, photos: Tensor, labels: Tensor, soft: Tensor | None) -> tuple[float, tuple[Tensor, ...]]:
        """One part's loss and gradients."""
        part, done = self.parts[number], self.iteration / self.args.iterations
        # Stochastic depth, too, depends on seed, iteration and part only, so no generator's state need be saved.
        part.generator.manual_seed((self.args.seed * 1_000_003 + self.iteration) * 64 + number)
        photos = photos.to(self.device, memory_format=layout(self.net))
        labels = labels.to(self.device)
        # Over the last third, rare classes and teachers count less and less.
        rest = min(1.0, 3.0 * (1.0 - done))
        weights = self.weights ** (0.25 + 0.75 * rest)
        # Each value is a weight once in an iteration, so a cache of what autocast rounds would only be shared by accident.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.precision == "bf16", cache_enabled=False):
            logits, extra = part.net(photos)
        loss = segmentation_loss(*sampled(logits, labels, 2, self.iteration), weights)
        loss = loss + 0.4 * segmentation_loss(*sampled(extra, labels, 4, self.iteration), weights)
        if soft is not None:
            loss = loss + rest * taught_loss(logits, labels, soft.to(self.device), self.taught)
        return loss.item(), torch.autograd.grad(loss, self.parameters)

    @torch.no_grad()
    def gather_statistics(self) -> None:
        """The network's norm statistics are the mean of the parts', which go on from there."""
        each = [part.statistics for part in self.parts]
        mean = each[0]
        for other in each[1:]:
            torch._foreach_add_(mean, other)
        torch._foreach_div_(mean, len(each))
        for statistics in [statistics_of(self.net), *each[1:]]:
            torch._foreach_copy_(statistics, mean)

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

    def log(self, loss: float, val: float | None, fold: float | None) -> None:
        """One CSV line an epoch; the columns of mean IoU are empty where it was not measured."""
        scores = ["" if score is None else f"{score:.4f}" for score in (val, fold)]
        line = [self.iteration, f"{loss:.4f}", f"{self.learning_rate():.3e}", f"{self.seconds:.0f}", f"{self.cpu_seconds:.0f}", *scores]
        fresh = not self.csv.exists()
        with self.csv.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["iteration", "loss", "lr", "seconds", "cpu_seconds", "val_mean_iou", "fold_mean_iou"])
            writer.writerow(line)
        print("epoch:", *line, flush=True)


def initialize(net: RTFormer, path: Path) -> None:
    """Starts from trained weights, under PaddleSeg's names or PyTorch's; a head for other classes keeps its random start."""
    saved = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    renamed = {name.replace("._mean", ".running_mean").replace("._variance", ".running_var"): tensor for name, tensor in saved.items()}
    own = net.state_dict()
    fitting = {name: tensor.float() for name, tensor in renamed.items() if name in own and own[name].shape == tensor.shape}
    left = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    if any(not name.startswith("seghead") for name in left):
        raise SystemExit(f"{path}: lacks `{left[0]}` {list(own[left[0]].shape)}; is it RTFormer-Slim in f32, as `rtformer convert --store f32` writes it?")
    net.load_state_dict(fitting, strict=False)
    print(f"{path}: {len(fitting)} tensors" + (f"; {len(left)} of the heads start at random" if left else ""))


class Part:
    """The network once more: the same parameters, but norm statistics and stochastic depth of its own."""

    def __init__(self, net: RTFormer, device: torch.device, precision: str):
        self.net = copy.deepcopy(net).train()
        for own, shared in zip(self.net.modules(), net.modules()):
            own._parameters.update(shared._parameters)
        self.statistics = statistics_of(self.net)
        self.generator = torch.Generator(device)
        for module in self.net.modules():
            if isinstance(module, DropPath):
                module.generator = self.generator
        if device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
            quicken(self.net)


def layout(net: RTFormer) -> torch.memory_format:
    """Channels last, the faster one, but not where PyTorch 2.15 crashes in it: in 1x1 convolutions of stride 2 with few channels on
    CPUs, seen with up to 6 on AVX2 and up to 8 on AVX-512."""
    return torch.channels_last if net.conv1[0].out_channels > 8 else torch.contiguous_format


def statistics_of(net: nn.Module) -> list[Tensor]:
    """Means and variances of all norms."""
    return [tensor for tensor in net.buffers() if tensor.is_floating_point()]


def sampled(logits: Tensor, labels: Tensor, step: int, iteration: int) -> tuple[Tensor, Tensor]:
    """Logits `[n, classes, h/8, w/8]`, resized to the labels' size, and labels, both at every `step`th pixel and row.

    The loss of all pixels would be this one's mean over the `step²` grids, which the iterations take in turns. Resizing
    is linear, so two small matrices compute it at these pixels only.
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


def taught_loss(logits: Tensor, labels: Tensor, soft: Tensor, taught: Tensor) -> Tensor:
    """Cross entropy with the teachers' soft labels `[n, classes, h/8, w/8]`, over the classes that they are good at.

    A place counts as much as the teachers are sure; nothing where the label says that they are wrong, or that it is of a
    class that they are not asked about.
    """
    labels = labels[:, 4::8, 4::8]
    confidence, guess = soft.max(dim=1)
    weight = confidence * torch.isin(guess, taught) * ((labels == IGNORE) | (labels == guess))
    target = soft[:, taught]
    target = target / target.sum(dim=1, keepdim=True).clamp(min=1e-3)
    losses = -(target * logits.float()[:, taught].log_softmax(dim=1)).sum(dim=1)
    return (weight * losses).sum() / weight.sum().clamp(min=1.0)


class Conv3x3(torch.autograd.Function):
    """A 3x3 convolution whose weights' gradient is one matrix product; for CPUs without AMX.

    There, PyTorch's own takes up to fifty times as long as the forward pass in bf16 where the stride is 2 or the map is
    small, and several times as long in f32.
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
    stride, bf16 = conv.stride[0], torch.is_autocast_enabled("cpu")
    if stride == 1 and x.shape[2] * x.shape[3] > (256 if bf16 else 100) or not torch.is_grad_enabled():
        return F.conv2d(x, conv.weight, conv.bias, stride, padding=1)
    dtype = torch.bfloat16 if bf16 else torch.float32
    bias = None if conv.bias is None else conv.bias.to(dtype)
    return Conv3x3.apply(x.to(dtype), conv.weight.to(dtype), bias, stride)


@torch.no_grad()
def predictions(net: RTFormer, photos: Split, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Photo by photo at its own size, padded, in f32: logits `[classes, h, w]`, the auxiliary head's, and labels `[h, w]`."""
    for photo, truth in zip(photos.photos, photos.labels):
        padded = pad(normalize(photo)[None]).to(device, memory_format=layout(net))
        both = (resize(logits, padded.shape[2:])[0, :, : truth.shape[0], : truth.shape[1]] for logits in net(padded, extra=True))
        yield *(logits.cpu() for logits in both), truth


def evaluate(net: RTFormer, photos: Split, device: torch.device) -> dict:
    """IoU per class, their mean, the auxiliary head's mean, the share of labelled pixels that are right, and the cross entropy.

    A class's IoU is tp / (tp + fp + fn) over all pixels of the split; unlabelled pixels count nowhere. Neither does a class
    in the mean that is neither labelled nor guessed. The cross entropy is the mean over labelled pixels, in nats: no class
    weights, no temperature.
    """
    names = photos.classes.names
    confusion = torch.zeros(2, len(names), len(names), dtype=torch.int64)  # head, truth, guess
    nats = 0.0
    for *both, truth in predictions(net, photos, device):
        seen = truth != IGNORE
        for head, logits in enumerate(both):
            pairs = truth[seen].long() * len(names) + logits.argmax(dim=0)[seen]
            confusion[head] += torch.bincount(pairs, minlength=len(names) ** 2).reshape(confusion[head].shape)
        nats += F.cross_entropy(both[0][None], truth[None].long(), ignore_index=IGNORE, reduction="sum").item()
    right = confusion.diagonal(dim1=1, dim2=2)
    union = confusion.sum(1) + confusion.sum(2) - right
    iou = right / union
    return {
        "iou": {name: iou.item() if some > 0 else None for name, iou, some in zip(names, iou[0], union[0])},
        "mean_iou": iou[0][union[0] > 0].mean().item(),
        "aux_mean_iou": iou[1][union[1] > 0].mean().item(),
        "pixel_accuracy": (right[0].sum() / confusion[0].sum()).item(),
        "cross_entropy": nats / max(1, confusion[0].sum().item()),
        "photos": len(photos),
    }


def calibrate(net: RTFormer, photos: Split, device: torch.device) -> dict:
    """The temperature of least cross entropy (arXiv:1706.04599), and the expected calibration error without and with it.

    About 10,000 pixels of each photo take part, on a grid.
    """
    some, truths = [], []
    for logits, _, truth in predictions(net, photos, device):
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
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss, miou = figure.subplots(1, 2)
    loss.plot([int(row["iteration"]) for row in rows], [float(row["loss"]) for row in rows])
    loss.set(xlabel="iteration", ylabel="training loss")
    for split in ("val", "fold"):
        measured = [row for row in rows if row[f"{split}_mean_iou"]]
        if measured:
            scores = [100 * float(row[f"{split}_mean_iou"]) for row in measured]
            miou.plot([int(row["iteration"]) for row in measured], scores, marker="o", label=split)
    miou.legend()
    miou.set(xlabel="iteration", ylabel="mean IoU, %")
    figure.savefig(out / "log.png", dpi=120)


if __name__ == "__main__":
    main()
