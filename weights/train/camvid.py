"""CamVid in memory, and the augmentation: every batch is a pure function of the seed and the iteration."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

CLASSES = ["sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
IGNORE = 255
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


class CamVid:
    """One split, decoded once: `photos [n, 3, 360, 480]` u8 and `labels [n, 360, 480]` u8, 255 where unlabelled."""

    def __init__(self, root: Path, split: str):
        paths = sorted((root / split).glob("*.jpg"))
        if not paths:
            raise SystemExit(f"{root / split}: no .jpg here; --data wants the folder that holds train/ and val/")
        labels = [root / f"{split}_labels" / f"{path.stem}.png" for path in paths]
        photos = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
        self.photos = torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in labels]))

    def __len__(self) -> int:
        return len(self.photos)

    def class_weights(self) -> Tensor:
        """`1 / ln(1.1 + frequency)`, scaled to a mean of 1: a rare class counts about three times a road."""
        counts = torch.bincount(self.labels.flatten().int(), minlength=256)[: len(CLASSES)].double()
        weights = 1.0 / torch.log(1.1 + counts / counts.sum())
        return (weights / weights.mean()).float()

    def batch(self, seed: int, iteration: int, size: int, crop: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Training batch number `iteration`: `[size, 3, *crop]` f32, normalized, and `[size, *crop]` i64.

        An epoch is a permutation of the split, less the remainder that fills no batch.
        """
        per_epoch = len(self) // size
        epoch, step = divmod(iteration, per_epoch)
        order = np.random.default_rng([seed, 0, epoch]).permutation(len(self))
        rng = np.random.default_rng([seed, 1, iteration])
        picked = order[step * size : (step + 1) * size]
        photos, labels = zip(*(augment(self.photos[i], self.labels[i], crop, rng) for i in picked))
        return torch.stack(photos), torch.stack(labels)


def normalize(photo: Tensor) -> Tensor:
    """`[..., 3, h, w]` in 0..255 → `(v / 255 - mean) / std`."""
    return (photo.float() / 255.0 - MEAN) / STD


def augment(photo: Tensor, label: Tensor, crop: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random scale in 0.5..2, crop, flip and colour. The crop is cut first and resized after, which costs less."""
    height, width = label.shape
    scale = rng.uniform(0.5, 2.0)
    window = (min(height, round(crop[0] / scale)), min(width, round(crop[1] / scale)))
    scaled = (min(crop[0], round(window[0] * scale)), min(crop[1], round(window[1] * scale)))
    top = int(rng.integers(height - window[0] + 1))
    left = int(rng.integers(width - window[1] + 1))
    photo = photo[:, top : top + window[0], left : left + window[1]].float()
    label = label[top : top + window[0], left : left + window[1]].float()

    # Labels, too, are read at half-pixel centres ("nearest-exact"), or they would lie off the photo by half a pixel.
    photo = F.interpolate(photo[None], size=scaled, mode="bilinear", align_corners=False, antialias=scale < 1.0)[0]
    label = F.interpolate(label[None, None], size=scaled, mode="nearest-exact")[0, 0].long()
    if rng.random() < 0.5:
        photo, label = photo.flip(2), label.flip(1)
    photo = normalize(jitter(photo, rng))

    # A small scale leaves a border: the mean colour (0 after normalization), unlabelled.
    down, right = crop[0] - scaled[0], crop[1] - scaled[1]
    above, before = int(rng.integers(down + 1)), int(rng.integers(right + 1))
    border = (before, right - before, above, down - above)
    return F.pad(photo, border), F.pad(label, border, value=IGNORE)


def jitter(photo: Tensor, rng: np.random.Generator) -> Tensor:
    """`[3, h, w]` in 0..255 → the same: brightness, contrast and saturation, each by 0.6 to 1.4."""
    brightness, contrast, saturation = rng.uniform(0.6, 1.4, size=3).tolist()
    photo = photo * brightness
    mean = photo.mean()
    photo = (photo - mean) * contrast + mean
    grey = photo.mean(dim=0, keepdim=True)
    return ((photo - grey) * saturation + grey).clamp(0.0, 255.0)
