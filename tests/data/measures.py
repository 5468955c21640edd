"""Writes `masks/`: small label images and masks, and the figures that other implementations compute from them.

    pip install numpy pillow paddlepaddle==3.3.1 torch
    pip download --no-deps paddleseg==2.8.0 mmsegmentation==1.2.2   # and unpack both wheels
    python tests/data/measures.py FOLDER_OF_THE_UNPACKED_WHEELS

IoU, Dice, accuracies and kappa are computed by PaddleSeg's `paddleseg/utils/metrics.py` and mmsegmentation's `IoUMetric`, from their own
files. The frequency-weighted IoU (arXiv:1411.4038, section 5) and the boundary IoU (arXiv:2103.16562) are written here from their papers
with numpy alone, in another way than in `src/eval/`: one binary mask per class, eroded step by step. Intervals repeat the
documented random numbers (splitmix64, seeds 0, 1, 2, ...) and take numpy's percentiles.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, IGNORE, RESAMPLES = 5, 255, 500
OUT = Path(__file__).parent / "masks"


def pictures():
    """Blobs of classes; the masks are shifted, and have noise and a region without labels. Class 4 occurs only in the second photo."""
    random = np.random.default_rng(7)
    for number, (height, width) in enumerate([(40, 60), (33, 47), (48, 32), (25, 90)]):
        y, x = np.mgrid[:height, :width]
        wave = np.sin(x / (7 + number)) + np.cos(y / (5 + number)) + 0.5 * np.sin((x + y) / 9 + number)
        labels = np.digitize(wave, [-0.9, 0.1, 0.9])
        if number == 1:
            labels[5:15, 20:35] = 4
        mask = np.roll(labels, (number % 3, 1 + number // 2), (0, 1))
        noise = random.random(mask.shape) < 0.02
        mask[noise] = random.integers(0, 4, noise.sum())
        labels[random.integers(0, height - 8) :][:6, 3 : width // 3] = IGNORE
        labels[random.random(labels.shape) < 0.01] = IGNORE
        yield labels.astype(np.uint8), mask.astype(np.uint8)


def load(path, name, **stubs):
    """A module from its file, with stand-ins for imports that its arithmetic does not need."""
    sys.modules.update({name.replace("__", "."): stub for name, stub in stubs.items()})
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paddleseg(wheels, pairs):
    import paddle

    metrics = load(wheels / "paddleseg/utils/metrics.py", "metrics", sklearn=types.ModuleType("sklearn"), sklearn__metrics=types.ModuleType("sklearn.metrics"))
    paddle.concat = paddle.stack  # PaddleSeg expects sums of shape [1]; Paddle 3 returns numbers
    tensors = [[paddle.to_tensor(picture.astype(np.int64)[None]) for picture in (mask, labels)] for labels, mask in pairs]
    areas = [metrics.calculate_area(mask, labels, CLASSES, IGNORE) for mask, labels in tensors]
    hit, predicted, labelled = (sum(area[i] for area in areas) for i in range(3))
    iou, miou = metrics.mean_iou(hit, predicted, labelled)
    dice, mdice = metrics.dice(hit, predicted, labelled)
    accuracy, precision, recall = metrics.class_measurement(hit, predicted, labelled)
    kappa = metrics.kappa(hit, predicted, labelled)
    lists = {"iou": iou, "dice": dice, "accuracy": recall}
    return {key: [float(v) for v in values] for key, values in lists.items()} | {
        "miou": float(miou), "mdice": float(mdice), "pixel_accuracy": float(accuracy), "kappa": float(kappa),
    }


def mmsegmentation(wheels, pairs):
    import torch

    class Registry:
        def register_module(self, *_, **__):
            return lambda cls: cls

    def module(name, **names):
        made = types.ModuleType(name)
        made.__dict__.update(names)
        return made

    stubs = {
        "mmengine": module("mmengine"),
        "mmengine.dist": module("mmengine.dist", is_main_process=lambda: True),
        "mmengine.evaluator": module("mmengine.evaluator", BaseMetric=object),
        "mmengine.logging": module("mmengine.logging", MMLogger=object, print_log=print),
        "mmengine.utils": module("mmengine.utils", mkdir_or_exist=print),
        "mmseg": module("mmseg"),
        "mmseg.registry": module("mmseg.registry", METRICS=Registry()),
        "prettytable": module("prettytable", PrettyTable=object),
    }
    metric = load(wheels / "mmseg/evaluation/metrics/iou_metric.py", "iou_metric", **stubs).IoUMetric
    areas = [
        metric.intersect_and_union(torch.from_numpy(mask.astype(int)), torch.from_numpy(labels.astype(int)), CLASSES, IGNORE)
        for labels, mask in pairs
    ]
    total = [sum(area[i].double() for area in areas) for i in range(4)]
    values = metric.total_area_to_metrics(*total, metrics=["mIoU", "mDice"])
    some = lambda values: [None if np.isnan(v) else float(v) for v in values]
    return {"iou": some(values["IoU"]), "dice": some(values["Dice"]), "accuracy": some(values["Acc"])} | {
        "miou": float(np.nanmean(values["IoU"])), "mdice": float(np.nanmean(values["Dice"])),
        "mean_accuracy": float(np.nanmean(values["Acc"])), "pixel_accuracy": float(values["aAcc"]),
    }


def frequency_weighted(pairs):
    """sum over i of t_i * n_ii / (t_i + sum over j of n_ji - n_ii), divided by sum over k of t_k."""
    n = np.zeros((CLASSES, CLASSES))
    for labels, mask in pairs:
        for truth, seen in zip(labels.ravel(), mask.ravel()):
            if truth != IGNORE:
                n[truth, seen] += 1
    t = n.sum(1)
    union = t + n.sum(0) - np.diag(n)
    some = union > 0
    return float((t[some] * np.diag(n)[some] / union[some]).sum() / t.sum())


def eroded(mask):
    """A binary mask without the pixels that touch a zero or the outside, also diagonally."""
    padded = np.pad(mask, 1)
    shifted = [padded[1 + dy :, 1 + dx :][: mask.shape[0], : mask.shape[1]] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return np.logical_and.reduce(shifted)


def boundary_counts(labels, mask, share):
    """Intersection and union of the boundaries of each class."""
    steps = max(1, int(round(share * np.sqrt(labels.shape[0] ** 2 + labels.shape[1] ** 2))))
    counts = []
    for c in range(CLASSES):
        edges = []
        for picture in (labels, mask):
            whole = inner = picture == c
            for _ in range(steps):
                inner = eroded(inner)
            edges.append(whole & ~inner & (labels != IGNORE))
        counts.append(((edges[0] & edges[1]).sum(), (edges[0] | edges[1]).sum()))
    return np.array(counts)


def mean_of_ratios(counts):
    return [None if union == 0 else float(hit / union) for hit, union in counts]


def nanmean(values):
    return float(np.mean([v for v in values if v is not None]))


def splitmix(seed):
    """Numbers in [0, 1), as documented in `src/model/noise.rs`: 24 bits each."""
    mask = (1 << 64) - 1
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield ((z ^ (z >> 31)) >> 40) / (1 << 24)


def region_counts(labels, mask):
    seen = labels != IGNORE
    return np.array([((labels == c) & (mask == c) & seen, ((labels == c) | (mask == c)) & seen) for c in range(CLASSES)]).sum((2, 3))


def intervals(pairs, other):
    """Intervals of the mean IoU, and of its difference to the other masks."""
    own = [region_counts(*pair) for pair in pairs]
    others = [region_counts(labels, mask) for (labels, _), mask in zip(pairs, other)]
    miou, difference = [], []
    for seed in range(RESAMPLES):
        numbers = splitmix(seed)
        drawn = [int(next(numbers) * len(pairs)) for _ in pairs]
        first, second = (nanmean(mean_of_ratios(sum(counts[i] for i in drawn))) for counts in (own, others))
        miou.append(first)
        difference.append(first - second)
    ends = lambda values: [float(v) for v in np.percentile(values, [2.5, 97.5])]
    return {"resamples": RESAMPLES, "miou": ends(miou), "paired_miou": ends(difference)}


def main():
    wheels = Path(sys.argv[1])
    OUT.mkdir(exist_ok=True)
    pairs = list(pictures())
    for number, (labels, mask) in enumerate(pairs):
        Image.fromarray(labels).save(OUT / f"{number}_labels.png", optimize=True)
        Image.fromarray(mask).save(OUT / f"{number}_mask.png", optimize=True)
    other = [np.roll(mask, 1, 0) for _, mask in pairs]
    result = {
        "paddleseg": paddleseg(wheels, pairs),
        "mmsegmentation": mmsegmentation(wheels, pairs),
        "mmsegmentation_first_photo": mmsegmentation(wheels, pairs[:1]),
        "fwiou": frequency_weighted(pairs),
        "boundary_iou": {},
        "image_miou": float(np.mean([mmsegmentation(wheels, [pair])["miou"] for pair in pairs])),
        "image_mdice": float(np.mean([mmsegmentation(wheels, [pair])["mdice"] for pair in pairs])),
        "intervals": intervals(pairs, other),
    }
    for share in (0.02, 0.05):
        each = mean_of_ratios(sum(boundary_counts(labels, mask, share) for labels, mask in pairs))
        result["boundary_iou"][str(share)] = {"each": each, "mean": nanmean(each)}
    (OUT / "measures.json").write_text(json.dumps(result, indent=1) + "\n")


main()
