"""Compute the teachers' soft labels for a folder of photos, labelled or not, and cache them for `train.py --teach`.

    python teach.py PHOTOS [PHOTOS ...] --teachers DIR --out CACHE

DIR holds two TensorFlow Lite files of other people's networks (README.md says where they come from):
`deeplab-slim-cityscapes.tflite` and `deeplabv3-mnv2-ade20k-int8.tflite`. Photos that are in the cache are skipped, so the
command can be interrupted and repeated.
"""

import argparse
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from data import CACHE_STEP, PHOTOS, Classes, cache_place, find_photos

# For each class of a teacher: the names that a data set may give it, the best first. A class without a name here, or
# whose names the data set does not have, counts as unknown.
CITYSCAPES = [
    ["road"], ["sidewalk"], ["building"], ["wall", "building"], ["fence"], ["pole"], ["traffic light", "sign"],
    ["traffic sign", "sign"], ["vegetation", "tree"], ["terrain", "tree"], ["sky"], ["person", "pedestrian"],
    ["rider", "bicyclist"], ["car"], ["truck", "car"], ["bus", "car"], ["train", "car"], ["motorcycle", "bicyclist"],
    ["bicycle", "bicyclist"],
]  # fmt: skip
# "Others", then ADE20K's 31 most frequent classes: wall, building, sky, floor, tree, ceiling, road, bed, window, grass,
# cabinet, sidewalk, person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house,
# sea, mirror, rug, field, armchair.
ADE20K = [
    [], ["building"], ["building"], ["sky"], [], ["vegetation", "tree"], [], ["road"], [], ["building"],
    ["terrain", "tree"], [], ["sidewalk"], ["person", "pedestrian"], [], ["building"], [], [], ["vegetation", "tree"],
    [], [], ["car"], [], [], [], [], ["building"], [], [], [], [], [],
]  # fmt: skip


@dataclass(frozen=True)
class Teacher:
    """A network in a `.tflite` file: square tiles in, quantized logits `[1, n, n, classes]` out."""

    file: str
    meaning: list[list[str]]
    tile: int
    whole: bool  # the photo in one tile; otherwise tiles along its longer side


TEACHERS = [
    Teacher("deeplab-slim-cityscapes.tflite", CITYSCAPES, 513, whole=False),
    Teacher("deeplabv3-mnv2-ade20k-int8.tflite", ADE20K, 512, whole=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS", help="folders of photos")
    parser.add_argument("--teachers", type=Path, required=True, metavar="DIR", help="folder with the two .tflite files")
    parser.add_argument("--out", type=Path, required=True, metavar="CACHE", help="folder for the soft labels; 0.1 MB a photo of 480x360")
    parser.add_argument("--dataset", default="camvid", metavar="NAME|FILE", help="the classes, as for train.py")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="photos computed at the same time")
    args = parser.parse_args()
    names = Classes.load(args.dataset).names
    args.out.mkdir(parents=True, exist_ok=True)
    claim(args.out, names)
    photos = [photo for folder in args.photos for photo in find_photos(folder)]
    if not photos:
        raise SystemExit(f"no photos in {', '.join(map(str, args.photos))}: expected {', '.join(sorted(PHOTOS))}")
    places = {cache_place(args.out, photo): photo for photo in photos}
    missing = {place: photo for place, photo in places.items() if not place.exists()}
    print(f"{len(photos)} photos, {len(places) - len(missing)} of them in {args.out}")

    local = threading.local()

    def work(place: Path, photo: Path) -> str | None:
        """Writes a photo's soft labels; returns what went wrong with the photo."""
        if not hasattr(local, "networks"):
            torch.set_num_threads(1)
            local.networks = [Network(args.teachers, teacher, names) for teacher in TEACHERS]
        try:
            image = Image.open(photo).convert("RGB")
        except (OSError, ValueError) as error:
            return f"{photo}: cannot be decoded: {error}"
        draft = place.with_suffix(".draft")
        with draft.open("wb") as file:
            np.save(file, soft_labels(image, local.networks))
        draft.replace(place)
        return None

    failures = []
    with ThreadPoolExecutor(args.threads) as pool:
        for done, failure in enumerate(pool.map(work, missing, missing.values()), start=1):
            if failure:
                failures.append(failure)
            if done % 20 == 0 or done == len(missing):
                print(f"{done} of {len(missing)}", flush=True)
    if failures:
        raise SystemExit("\n".join([*failures, f"{len(failures)} of {len(photos)} photos have no soft labels"]))


def claim(cache: Path, names: list[str]) -> None:
    """A cache belongs to one list of classes."""
    place = cache / "classes.json"
    if place.exists() and json.loads(place.read_text()) != names:
        raise SystemExit(f"{place}: this cache holds soft labels of other classes; give another --out")
    place.write_text(json.dumps(names) + "\n")


class Network:
    """A teacher, loaded, and what its classes mean in the data set."""

    def __init__(self, folder: Path, teacher: Teacher, names: list[str]):
        from tflite_runtime.interpreter import Interpreter

        path = folder / teacher.file
        if not path.exists():
            raise SystemExit(f"{path}: no such file; README.md says where the teachers come from")
        self.teacher = teacher
        self.net = Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
        self.net.allocate_tensors()
        self.input = self.net.get_input_details()[0]["index"]
        count = len(teacher.meaning)
        # The last map with a channel for each class; the first of those at that place, before they are resized to the tile.
        maps = [d for d in self.net.get_tensor_details() if d["shape"].size == 4 and d["shape"][3] == count and d["name"]]
        maps = [d for d in maps if d["index"] < self.net.get_output_details()[0]["index"] and d["shape"][1] != teacher.tile]
        self.logits = next(d for d in maps if "logits/semantic/biases" in d["name"] or "BiasAdd" in d["name"])
        # One column a class of the teacher; the last row is what the data set has no class for.
        self.merge = torch.zeros(len(names) + 1, count)
        for column, choices in enumerate(teacher.meaning):
            found = [names.index(name) for name in choices if name in names]
            self.merge[found[0] if found else len(names), column] = 1.0
        if not self.merge[:-1].any():
            raise SystemExit(f"{path}: none of its classes is one of {', '.join(names)}")

    def probabilities(self, photo: Image.Image, size: tuple[int, int]) -> Tensor:
        """`[classes + 1, *size]` of the whole photo, the last one for unknown."""
        tile = self.teacher.tile
        side = max(photo.size) if self.teacher.whole else min(photo.size)
        width, height = (round(n * tile / side) for n in photo.size)
        scaled = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC))
        sums = torch.zeros(self.merge.shape[0] + 1, -(-height // 4), -(-width // 4))
        for top in starts(height, tile):
            for left in starts(width, tile):
                seen = scaled[top : top + tile, left : left + tile]
                rows, columns = -(-seen.shape[0] // 4), -(-seen.shape[1] // 4)
                padded = np.full((1, tile, tile, 3), 127, np.uint8)
                padded[0, : seen.shape[0], : seen.shape[1]] = seen
                p = self.look(padded)[:, :rows, :columns]
                # A tile counts most in its middle; the last plane sums what the others are divided by.
                trust = tent(rows)[:, None] * tent(columns)
                y, x = top // 4, left // 4
                part = torch.cat([p * trust, trust[None]])
                view = sums[:, y : y + rows, x : x + columns]
                view += part[:, : view.shape[1], : view.shape[2]]
        return F.interpolate((sums[:-1] / sums[-1])[None], size=size, mode="bilinear", antialias=True)[0]

    def look(self, tile: np.ndarray) -> Tensor:
        """`[classes + 1, n, n]`: one value for every fourth pixel and row of a tile."""
        self.net.set_tensor(self.input, tile)
        self.net.invoke()
        scale, zero = self.logits["quantization"]
        logits = scale * (torch.from_numpy(self.net.get_tensor(self.logits["index"])).float() - zero)
        # The corners of these maps are the corners of the tile; ours are at the centres of 4x4 pixels.
        at = (torch.arange(-(-tile.shape[1] // 4)) * 4 + 1.5) / (tile.shape[1] - 1) * 2 - 1
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=2)[None]
        logits = F.grid_sample(logits.permute(0, 3, 1, 2), grid, align_corners=True, padding_mode="border")[0]
        return torch.einsum("kc,chw->khw", self.merge, logits.softmax(dim=0))


def starts(length: int, tile: int) -> list[int]:
    """Where tiles begin that cover `length` and overlap by a quarter at least; multiples of 4."""
    count = 1 + max(0, -(-(length - tile) // (tile * 3 // 4)))
    return [round((length - tile) * i / (count - 1) / 4) * 4 if count > 1 else 0 for i in range(count)]


def tent(length: int) -> Tensor:
    return 1.0 - (torch.arange(length) + 0.5 - length / 2).abs() / (length / 2 + 1)


def soft_labels(image: Image.Image, networks: list[Network]) -> np.ndarray:
    """`[classes, h/4, w/4]` u8: the mean of the teachers' probabilities, of 255.

    What a teacher calls something that the data set has no class for says nothing; there the other one is believed.
    """
    size = tuple(-(-n // CACHE_STEP) for n in image.size[::-1])
    seen = [network.probabilities(image, size) for network in networks]
    total = sum(p[:-1] for p in seen) + 1e-6
    return (255.0 * total / total.sum(dim=0)).round().to(torch.uint8).numpy()


if __name__ == "__main__":
    main()
