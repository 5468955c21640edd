"""Labelled photos in memory, and the augmentation: every batch is a pure function of the seed and the iteration."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

IGNORE = 255
PAD = 32  # photos are padded at the bottom and right to a multiple of it: the rows and columns of the network's coarsest map
CACHE_STEP = 4  # pixels of a photo to one of its soft labels
RARE_BELOW = 0.03  # share of the labelled pixels
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
KNOWN = Path(__file__).resolve().parents[2] / "src/weights/datasets"
PHOTOS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Classes:
    """What a data set calls its classes, and how its label images write them down."""

    dataset: str
    names: list[str]
    colors: list[tuple[int, int, int]]
    label_ids: list[int | None]

    @staticmethod
    def load(name: str) -> "Classes":
        """`camvid`, `cityscapes`, `ade20k`, or a JSON file such as theirs; `rtformer convert --dataset` takes the same."""
        path = KNOWN / f"{name}.json" if (KNOWN / f"{name}.json").exists() else Path(name)
        described = json.loads(path.read_text())
        classes = described["classes"]
        if len(classes) > IGNORE:
            raise SystemExit(f"{path}: {len(classes)} classes; this recipe keeps labels in 8 bits, of which {IGNORE} is ignored")
        for key, want in (("mean", MEAN), ("std", STD)):
            if not np.allclose(described[key], want.flatten()):
                raise SystemExit(f"{path}: `{key}` is {described[key]}, this recipe normalizes by {want.flatten().tolist()}")
        return Classes(
            described["name"],
            [c["name"] for c in classes],
            [tuple(c["color"]) for c in classes],
            [c.get("label_id") for c in classes],
        )

    def read(self, path: Path) -> Tensor:
        """A label image → `[h, w]` u8, 255 where unlabelled; by the rules of `rtformer eval`.

        Grey and indexed images hold class ids (`..._labelIds`: the data set's own numbers), RGB ones the classes' colours.
        """
        image = Image.open(path)
        if image.mode in ("RGB", "RGBA"):
            table = {color: i for i, color in enumerate(self.colors)} | {(0, 0, 0): IGNORE}
            pixels = np.asarray(image.convert("RGB")).astype(np.int64) @ [1 << 16, 1 << 8, 1]
            numbers, places = np.unique(pixels, return_inverse=True)
            colors = [(n >> 16, n >> 8 & 255, n & 255) for n in numbers.tolist()]
            strange = [color for color in colors if color not in table]
            if strange:
                raise SystemExit(f"{path}: has colour {strange[0]}, which no class of `{self.dataset}` has")
            ids = np.array([table[color] for color in colors], np.uint8)[places].reshape(pixels.shape)
            return torch.from_numpy(ids)

        if image.mode not in ("1", "L", "P", "I;16", "I"):
            raise SystemExit(f"{path}: holds {image.mode} samples; save it as 8-bit grey, or as indexed PNG, whose values are class ids")
        numbers = np.asarray(image).astype(np.int64)
        if numbers.max() > 255:
            raise SystemExit(f"{path}: has id {numbers.max()}; this recipe keeps labels in 8 bits")
        meaning = np.arange(256, dtype=np.uint8)
        count = len(self.names)
        if path.stem.endswith("_labelIds"):
            meaning[:] = IGNORE
            for i, label in enumerate(self.label_ids):
                if label is not None:
                    meaning[label] = i
        elif self.dataset == "ade20k" and path.stem.startswith("ADE_"):
            meaning[0], meaning[1 : count + 1] = IGNORE, np.arange(count)
        elif self.dataset == "camvid" and count == 11:
            meaning[11] = IGNORE  # SegNet's "void"
        ids = meaning[numbers]
        strange = ids[(ids >= count) & (ids != IGNORE)]
        if strange.size:
            raise SystemExit(f"{path}: has id {strange[0]}, which is no class (0 to {count - 1}) and not {IGNORE} (ignored)")
        return torch.from_numpy(ids)


def find_photos(folder: Path) -> list[Path]:
    """The photos in a folder and its subfolders, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTOS)


def cache_place(cache: Path, photo: Path) -> Path:
    """Where `teach.py` keeps a photo's soft labels: its name, and a digest of its bytes."""
    return cache / f"{photo.stem}.{hashlib.sha256(photo.read_bytes()).hexdigest()[:16]}.npy"


def find_pairs(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Photos and their label images, as `rtformer eval` finds them.

    `SUB/P.jpg` goes with `SUB/P.png` or `SUB/P_L.png`; `X_leftImg8bit.png` with `X_gtFine_labelTrainIds.png` or
    `X_gtFine_labelIds.png` in the same subfolder or, where only one file has that name, in any.
    """
    by_place, by_name = {}, {}
    for label in labels.rglob("*.png"):
        by_place[label.relative_to(labels).with_suffix("")] = label
        by_name.setdefault(label.stem, []).append(label)
    pairs = []
    for photo in find_photos(images):
        if "_gtFine_" in photo.stem or "_gtCoarse_" in photo.stem:
            continue
        place = photo.relative_to(images).with_suffix("")
        base = photo.stem.removesuffix("_leftImg8bit")
        names = [photo.stem, f"{photo.stem}_L"]
        if base != photo.stem:
            names = [f"{base}_gtFine_labelTrainIds", f"{base}_gtFine_labelIds"] + names
        found = [by_place[place.with_name(name)] for name in names if place.with_name(name) in by_place]
        found += [by_name[name][0] for name in names[:-2] if len(by_name.get(name, [])) == 1]
        found = [label for label in found if label.resolve() != photo.resolve()]
        if found:
            pairs.append((photo, found[0]))
    if not pairs:
        raise SystemExit(f"no photo in {images} has labels in {labels}: P.jpg goes with P.png or P_L.png in the same subfolder")
    return pairs


class Split:
    """Photos, decoded once: each `[3, h, w]` u8, its labels `[h, w]` u8, 255 where unlabelled.

    A photo without a label file has soft labels alone. `cache` is `teach.py`'s folder: soft labels, each `[classes, h/4, w/4]` u8.
    """

    def __init__(self, pairs: list[tuple[Path, Path | None]], classes: Classes, cache: Path | None = None):
        self.classes = classes
        self.photos: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.soft: list[Tensor] = []
        self.taught = 0  # photos with soft labels
        if cache is not None and not (cache / "classes.json").exists():
            raise SystemExit(f"{cache}: holds no soft labels; run teach.py with --out {cache}")
        if cache is not None and json.loads((cache / "classes.json").read_text()) != classes.names:
            raise SystemExit(f"{cache}: holds soft labels of other classes than `{classes.dataset}`; run teach.py with --dataset")
        for photo, label in pairs:
            pixels = torch.from_numpy(np.array(Image.open(photo).convert("RGB"))).permute(2, 0, 1).contiguous()
            ids = torch.full(pixels.shape[1:], IGNORE, dtype=torch.uint8) if label is None else classes.read(label)
            if pixels.shape[1:] != ids.shape:
                raise SystemExit(f"{label}: is {tuple(ids.shape)}, {photo} is {tuple(pixels.shape[1:])} (height, width)")
            self.photos.append(pixels)
            self.labels.append(ids)
            if cache is not None:
                place = cache_place(cache, photo)
                self.taught += place.exists()
                # A photo without soft labels has one that says nothing.
                self.soft.append(torch.from_numpy(np.load(place)) if place.exists() else torch.zeros(len(classes.names), 1, 1, dtype=torch.uint8))
        # Pixels of each class in each photo.
        self.counts = torch.stack([torch.bincount(ids.flatten(), minlength=256)[: len(classes.names)] for ids in self.labels])

    def __len__(self) -> int:
        return len(self.photos)

    def frequencies(self) -> Tensor:
        """Share of the labelled pixels, per class."""
        counts = self.counts.sum(dim=0).double()
        return counts / counts.sum()

    def class_weights(self) -> Tensor:
        """`1 / ln(1.1 + frequency)`, scaled to a mean of 1: a rare class counts about three times a road."""
        weights = 1.0 / torch.log(1.1 + self.frequencies())
        return (weights / weights.mean()).float()

    def batch(
        self, seed: int, iteration: int, size: int, crop: tuple[int, int], scales: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Training batch number `iteration`: photos, labels and soft labels.

        `[size, 3, *crop]` f32, normalized; `[size, *crop]` i64; `[size, classes, crop / 8]` f32, 0 where there are none.
        An epoch is a permutation of the split, less the remainder that fills no batch.
        """
        per_epoch = len(self) // size
        epoch, step = divmod(iteration, per_epoch)
        order = np.random.default_rng([seed, 0, epoch]).permutation(len(self))
        rng = np.random.default_rng([seed, 1, iteration])
        picked = order[step * size : (step + 1) * size]
        rare = self.frequencies() < RARE_BELOW
        photos, labels, soft = [], [], []
        for i in picked:
            window = choose(self.labels[i], rare & (self.counts[i] > 0), crop, scales, rng)
            photo, label = augment(self.photos[i], self.labels[i], window, crop, rng)
            photos.append(photo)
            labels.append(label)
            if self.soft:
                soft.append(window.of_soft(self.soft[i], crop))
        pasted = paste(torch.stack(photos), torch.stack(labels), rare, rng)
        return *pasted, torch.stack(soft) if soft else None


def normalize(photo: Tensor) -> Tensor:
    """`[..., 3, h, w]` in 0..255 → `(v / 255 - mean) / std`."""
    return (photo.float() / 255.0 - MEAN) / STD


def pad(photo: Tensor) -> Tensor:
    """A normalized `[..., h, w]` with the mean colour (0) below and to the right, up to a multiple of `PAD`."""
    height, width = photo.shape[-2:]
    return F.pad(photo, (0, -width % PAD, 0, -height % PAD))


@dataclass(frozen=True)
class Window:
    """The part of a photo that a crop shows, in the photo's pixels, and its size in the crop, whose rest is padding."""

    top: int
    left: int
    height: int
    width: int
    scaled: tuple[int, int]
    flip: bool

    def of_soft(self, soft: Tensor, crop: tuple[int, int]) -> Tensor:
        """`[classes, h/4, w/4]` u8 → `[classes, crop / 8]` f32, where the network's logits are; 0 on the padding."""
        y = (torch.arange(-(-crop[0] // 8)) * 8.0 + 4.0) * (self.height / self.scaled[0])
        x = (torch.arange(-(-crop[1] // 8)) * 8.0 + 4.0) * (self.width / self.scaled[1])
        inside = (y < self.height)[:, None] & (x < self.width)
        if self.flip:
            x = self.width - x
        rows, columns = soft.shape[1] * CACHE_STEP, soft.shape[2] * CACHE_STEP
        y, x = 2.0 * (self.top + y) / rows - 1.0, 2.0 * (self.left + x) / columns - 1.0
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=2)[None]
        values = F.grid_sample(soft[None].float() / 255.0, grid, align_corners=False, padding_mode="border")[0]
        return values * inside


def choose(
    label: Tensor, wanted: Tensor, crop: tuple[int, int], scales: tuple[float, float], rng: np.random.Generator
) -> Window:
    """A random scale, aspect, place and flip. Every second window holds a pixel of a `wanted [classes]` class, if there is one.

    The scale leaves at most a quarter of the crop's height and width empty.
    """
    height, width = label.shape
    least = min(scales[1], max(scales[0], 0.75 * min(crop[0] / height, crop[1] / width)))
    scale = math.exp(rng.uniform(math.log(least), math.log(scales[1])))
    aspect = math.exp(rng.uniform(-0.1, 0.1))
    down, across = scale * aspect, scale / aspect
    window = (min(height, round(crop[0] / down)), min(width, round(crop[1] / across)))
    scaled = (min(crop[0], round(window[0] * down)), min(crop[1], round(window[1] * across)))
    tops, lefts = height - window[0], width - window[1]
    low, high = (0, 0), (tops, lefts)
    classes = wanted.nonzero()[:, 0].tolist()
    if classes and rng.random() < 0.5:
        pixels = (label == int(rng.choice(classes))).nonzero()
        y, x = pixels[int(rng.integers(len(pixels)))].tolist()
        low = max(0, y - window[0] + 1), max(0, x - window[1] + 1)
        high = min(tops, y), min(lefts, x)
    top, left = int(rng.integers(low[0], high[0] + 1)), int(rng.integers(low[1], high[1] + 1))
    return Window(top, left, *window, scaled, flip=bool(rng.random() < 0.5))


def augment(
    photo: Tensor, label: Tensor, window: Window, crop: tuple[int, int], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """What a crop shows, in other colours. It is cut first and resized after, which costs less."""
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    photo, label = photo[:, rows, columns], label[rows, columns]
    # Labels, too, are read at half-pixel centres ("nearest-exact"), or they would lie off the photo by half a pixel.
    photo = F.interpolate(photo[None], size=window.scaled, mode="bilinear", align_corners=False, antialias=True)[0].float()
    label = F.interpolate(label[None, None], size=window.scaled, mode="nearest-exact")[0, 0].long()
    if window.flip:
        photo, label = photo.flip(2), label.flip(1)
    photo = normalize(jitter(blur(photo, rng), rng))
    # Below and to the right, as `pad` does: the mean colour (0 after normalization), unlabelled.
    border = (0, crop[1] - window.scaled[1], 0, crop[0] - window.scaled[0])
    return F.pad(photo, border), F.pad(label, border, value=IGNORE)


def paste(photos: Tensor, labels: Tensor, rare: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """ClassMix (arXiv:2007.07936) of the rare classes: on every second crop, those of the batch's next crop.

    `[n, 3, h, w]`, `[n, h, w]` → the same. The next crop's pole, sign, ... stay where they were, which in street scenes
    is where such things are.
    """
    pasted = torch.from_numpy(rng.random((len(photos), len(rare))) < 0.8) & rare
    pasted &= torch.from_numpy(rng.random((len(photos), 1)) < 0.5)
    next_labels = labels.roll(-1, dims=0)
    table = torch.zeros(len(photos), 256, dtype=torch.bool)
    table[:, : len(rare)] = pasted
    mask = table.gather(1, next_labels.flatten(1)).reshape(labels.shape)
    mixed = torch.where(mask[:, None], photos.roll(-1, dims=0), photos)
    return mixed, torch.where(mask, next_labels, labels)


def blur(photo: Tensor, rng: np.random.Generator) -> Tensor:
    """`[3, h, w]` in 0..255 → the same: every fourth as from a coarser camera, every fourth with noise."""
    coarse, noisy = rng.random(2) < 0.25
    if coarse:
        size = [max(1, round(n / rng.uniform(1.2, 2.5))) for n in photo.shape[1:]]
        small = F.interpolate(photo[None], size=size, mode="bilinear", align_corners=False)
        photo = F.interpolate(small, size=photo.shape[1:], mode="bilinear", align_corners=False)[0]
    if noisy:
        photo = photo + rng.uniform(1.0, 10.0) * torch.from_numpy(rng.standard_normal(photo.shape, np.float32))
    return photo


def jitter(photo: Tensor, rng: np.random.Generator) -> Tensor:
    """`[3, h, w]` in 0..255 → the same under other light, and from another camera.

    Brightness and contrast by 0.6 to 1.4, gamma by 0.7 to 1.4, saturation by 0 to 1.6, each channel by 0.85 to 1.15.
    """
    brightness, contrast = rng.uniform(0.6, 1.4, size=2).tolist()
    saturation = 0.0 if rng.random() < 0.05 else float(rng.uniform(0.4, 1.6))
    gains = torch.from_numpy(rng.uniform(0.85, 1.15, size=3)).float().reshape(3, 1, 1)
    gamma = math.exp(rng.uniform(-0.35, 0.35))
    if rng.random() < 0.5:
        photo = 255.0 * (photo / 255.0).clamp(1e-3, 1.0) ** gamma
    photo = photo * (brightness * gains)
    mean = photo.mean()
    photo = (photo - mean) * contrast + mean
    grey = photo.mean(dim=0, keepdim=True)
    return ((photo - grey) * saturation + grey).clamp(0.0, 255.0)
