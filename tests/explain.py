"""Checks `rtformer explain` independently: recomputes every printed atom and every count from the table, the mask and the photo.

    python tests/explain.py --table TABLE --training TRAINING_TABLE --out OUT --photos PHOTOS --masks MASKS

TABLE and OUT are what `rtformer explain PHOTOS --emit table` and `--emit json` wrote with the same weights, MASKS what `rtformer segment
PHOTOS --emit mask` wrote. TRAINING_TABLE is the table that the explainer was trained on, with its labels. Nothing is taken from the
program but these files: regions, features and counts are computed anew with NumPy, by their documented definitions.
"""

import argparse
import csv
import json
import sys
from collections import deque
from pathlib import Path

import numpy as np
from PIL import Image

FEWEST_PIXELS = 64
TOLERANCE = 0.03  # of features: JPEG decoders differ by a step in some pixels, and the program interpolates cube roots
SHARES = {"touches": 0.05, "surrounded": 0.5, "above": 0.25, "below": 0.25, "beside": 0.25}
RANGES = {
    "below_q1": (None, 0), "below_q2": (None, 1), "below_q3": (None, 2),
    "from_q1": (0, None), "from_q2": (1, None), "from_q3": (2, None),
    "q1_to_q2": (0, 1), "q2_to_q3": (1, 2), "q1_to_q3": (0, 2),
}  # fmt: skip


def read(folder: Path) -> tuple[dict, list[dict[str, str]]]:
    with open(folder / "regions.csv", newline="", encoding="utf-8") as file:
        return json.loads((folder / "atoms.json").read_text()), list(csv.DictReader(file))


def components(mask: np.ndarray) -> np.ndarray:
    """Connected components by flood fill, numbered from 0 in the order of their first pixels."""
    height, width = mask.shape
    of = np.full(mask.shape, -1)
    count = 0
    for start in range(mask.size):
        y, x = divmod(start, width)
        if of[y, x] >= 0:
            continue
        of[y, x] = count
        queue = deque([(y, x)])
        while queue:
            y, x = queue.popleft()
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width and of[v, u] < 0 and mask[v, u] == mask[y, x]:
                    of[v, u] = count
                    queue.append((v, u))
        count += 1
    return of


def lab(photo: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of an sRGB photo."""
    v = photo.astype(np.float64) / 255
    v = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.412456, 0.357576, 0.180437], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]])
    t = v @ to_xyz.T / [0.95047, 1.0, 1.08883]
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def shifted(of: np.ndarray, dy: int, dx: int, outside: int) -> np.ndarray:
    """The value of each pixel's neighbour at `(dy, dx)`."""
    padded = np.pad(of, 1, constant_values=outside)
    return padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]


def beyond(parts: np.ndarray, classes: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """For each pixel, the class of the first pixel at `(dy, dx)`, `2 (dy, dx)` … of another component; -1 for the frame's edge."""
    out = np.full(parts.shape, -1)
    height, width = parts.shape
    ys = range(height) if dy < 0 else range(height - 1, -1, -1)
    xs = range(width) if dx < 0 else range(width - 1, -1, -1)
    if dy:
        for y in ys:
            if 0 <= y + dy < height:
                out[y] = np.where(parts[y] == parts[y + dy], out[y + dy], classes[y + dy])
    else:
        for x in xs:
            if 0 <= x + dx < width:
                out[:, x] = np.where(parts[:, x] == parts[:, x + dx], out[:, x + dx], classes[:, x + dx])
    return out


SIDES = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


class Photo:
    def __init__(self, photo: Path, mask: Path, superpixels: Path, classes: list[str]):
        self.rgb = np.asarray(Image.open(photo).convert("RGB"))
        self.mask = np.asarray(Image.open(mask)).astype(int)
        self.superpixels = np.asarray(Image.open(superpixels)).astype(int)
        self.parts = components(self.mask)
        self.lab = lab(self.rgb)
        self.classes = classes
        light = np.pad(self.lab[..., 0], 1, mode="edge")
        self.across = (light[1:-1, 2:] - light[1:-1, :-2]) / 2
        self.down = (light[2:, 1:-1] - light[:-2, 1:-1]) / 2
        self.beyond = {side: beyond(self.parts, self.mask, *step) for side, step in SIDES.items()}
        sizes = np.bincount(self.parts.ravel())
        first = [int(part) for part in np.flatnonzero(sizes >= FEWEST_PIXELS)]
        self.component_of_id = {i + 1: part for i, part in enumerate(first)}

    def region(self, region: int) -> tuple[np.ndarray, int]:
        """Its pixels, and the component that most of them are in."""
        if region in self.component_of_id:
            part = self.component_of_id[region]
            return self.parts == part, part
        inside = self.superpixels == region
        counts = np.bincount(self.parts[inside])
        return inside, int(counts.argmax())

    def features(self, region: int) -> dict[str, float]:
        inside, home = self.region(region)
        height, width = inside.shape
        ys, xs = np.nonzero(inside)
        n = len(ys)
        left, right, top, bottom = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
        light, a, b = (self.lab[..., i][inside] for i in range(3))
        most, least = self.rgb[inside].max(1).astype(float), self.rgb[inside].min(1).astype(float)
        sides, next_to, first, contrast, outline = {}, np.zeros(len(self.classes)), {}, 0.0, 0
        for side, (dy, dx) in SIDES.items():
            here = inside & ~shifted(inside.astype(int), dy, dx, 0).astype(bool)
            framed = here & (shifted(np.ones_like(self.mask), dy, dx, 0) == 0)
            pairs = here & ~framed
            outline += here.sum()
            sides[side] = int(pairs.sum())
            contrast += (self.lab[..., 0] - shifted_float(self.lab[..., 0], dy, dx))[pairs].sum()
            other_part, other_class = shifted(self.parts, dy, dx, -1)[pairs], shifted(self.mask, dy, dx, -1)[pairs]
            foreign = other_part != home
            np.add.at(next_to, other_class[foreign], 1)
            comes = np.where(foreign, other_class, shifted(self.beyond[side], dy, dx, -1)[pairs])
            first[side] = np.bincount(comes[comes >= 0], minlength=len(self.classes))
        across, down = self.across[inside], self.down[inside]
        inner = max(sum(sides.values()), 1)
        found = {
            "x": 100 * (xs.mean() + 0.5) / width, "y": 100 * (ys.mean() + 0.5) / height,
            "left": 100 * left / width, "right": 100 * right / width, "top": 100 * top / height, "bottom": 100 * bottom / height,
            "area": 100 * n / (width * height), "width": 100 * (right - left) / width, "height": 100 * (bottom - top) / height,
            "aspect": (right - left) / (bottom - top), "fill": 100 * n / ((right - left) * (bottom - top)),
            "compact": 1600 * n / max(outline, 1) ** 2, "lightness": light.mean(), "green_red": a.mean(), "blue_yellow": b.mean(),
            "saturation": 100 * ((most - least) / np.maximum(most, 1)).mean(), "spread": light.std(),
            "texture": np.hypot(across, down).mean(),
            "upright": 100 * (across**2).sum() / max((across**2).sum() + (down**2).sum(), 1e-9), "contrast": contrast / inner,
            "at_left": left == 0, "at_right": right == width, "at_top": top == 0, "at_bottom": bottom == height,
        }  # fmt: skip
        share = lambda counts, of: counts / max(of, 1)
        shares = {
            "touches": share(next_to, inner), "above": share(first["down"], sides["down"]), "below": share(first["up"], sides["up"]),
            "beside": share(first["left"] + first["right"], sides["left"] + sides["right"]),
        }  # fmt: skip
        for relation, of in shares.items():
            found |= {f"{relation}_{name}": of[i] for i, name in enumerate(self.classes)}
        return found


def shifted_float(of: np.ndarray, dy: int, dx: int) -> np.ndarray:
    padded = np.pad(of, 1)
    return padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]


class Truth:
    """Whether an atom holds for features, by its name."""

    def __init__(self, about: dict):
        self.thresholds = {name: np.float32(of) for name, of in about["thresholds"]}

    def holds(self, atom: str, features: dict[str, float]) -> bool:
        for suffix, (low, high) in RANGES.items():
            feature = atom.removesuffix("_" + suffix)
            if feature != atom and feature in self.thresholds:
                value, quartiles = np.float32(features[feature]), self.thresholds[feature]
                return (low is None or value >= quartiles[low]) and (high is None or value < quartiles[high])
        if atom.startswith("at_"):
            return bool(features[atom])
        relation, name = atom.split("_", 1)
        compared = "touches" if relation == "surrounded" else relation
        return np.float32(features[f"{compared}_{name}"]) >= np.float32(SHARES[relation])

    def margin(self, atom: str, features: dict[str, float]) -> float:
        """How far the feature is from the nearest threshold; the program sums in another order and interpolates cube roots."""
        for suffix in RANGES:
            feature = atom.removesuffix("_" + suffix)
            if feature != atom and feature in self.thresholds:
                return float(np.abs(self.thresholds[feature] - features[feature]).min())
        return np.inf


def check(args: argparse.Namespace) -> list[str]:
    about, rows = read(args.table)
    trained_on, training = read(args.training)
    classes, faults = about["classes"], []
    truth = Truth(about)
    names = [atom["atom"] for atom in about["atoms"]]
    if names != [atom["atom"] for atom in trained_on["atoms"]] or about["thresholds"] != trained_on["thresholds"]:
        faults.append("the tables have other atoms or thresholds")

    # The table's own atoms follow from its own features, for every region of both tables.
    for row in rows + training:
        features = {name[2:]: float(value) for name, value in row.items() if name.startswith("f_")}
        for atom in names:
            if not atom.startswith("at_") and truth.holds(atom, features) != (row[f"a_{atom}"] == "1"):
                faults.append(f"{row['photo']}/{row['region']}: the table says a_{atom} = {row['a_' + atom]}")

    training = [row for row in training if row["label"]]
    holds = {atom: np.array([row[f"a_{atom}"] == "1" for row in training]) for atom in names}
    labels = np.array([row["label"] for row in training])
    name_of = [f"{row['photo']}/{row['region']}" for row in training]
    by_photo: dict[str, dict[int, dict[str, str]]] = {}
    for row in rows:
        by_photo.setdefault(row["photo"], {})[int(row["region"])] = row

    atoms = counts = features_checked = 0
    for path in sorted(args.out.rglob("*.rules.json")):
        stem = str(path.relative_to(args.out)).removesuffix(".rules.json")
        report = json.loads(path.read_text())
        photo = Photo(args.photos / f"{stem}{args.extension}", args.masks / f"{stem}.mask.png", args.table / f"superpixels/{stem}.png", classes)
        for region in report["regions"]:
            where, row = f"{stem}/{region['id']}", by_photo[stem][region["id"]]
            inside, _ = photo.region(region["id"])
            own = np.bincount(photo.mask[inside], minlength=len(classes)).argmax()
            if (int(inside.sum()), classes[own]) != (region["pixels"], region["class"]) or row["class"] != region["class"]:
                faults.append(f"{where}: {region['pixels']} pixels of {region['class']}; expected {inside.sum()} of {classes[own]}")
            features = photo.features(region["id"])
            for name, value in features.items():
                if name.startswith("at_"):
                    if bool(value) != (row[f"a_{name}"] == "1"):
                        faults.append(f"{where}: a_{name} is {row['a_' + name]}")
                elif abs(value - float(row[f"f_{name}"])) > TOLERANCE * max(1.0, abs(value)):
                    faults.append(f"{where}: f_{name} is {row['f_' + name]}; expected {value}")
                features_checked += 1
            matching = np.ones(len(training), bool)
            for atom in region["rule"]:
                if not truth.holds(atom["atom"], features) and truth.margin(atom["atom"], features) > TOLERANCE * 10:
                    faults.append(f"{where}: {atom['atom']} does not hold")
                if row[f"a_{atom['atom']}"] != "1":
                    faults.append(f"{where}: {atom['atom']} is printed, but not in the table")
                matching &= holds[atom["atom"]]
                atoms += 1
            if not region["rule"]:
                continue
            found = {name: int((labels[matching] == name).sum()) for name in classes}
            expected = {
                "matches": int(matching.sum()),
                "matches_of_class": found[region["consequent"]],
                "precision": found[region["consequent"]] / matching.sum(),
                "coverage": matching.sum() / len(training),
                "by_class": {name: count for name, count in found.items() if count},
                "agrees": region["consequent"] == region["class"],
            }
            for key, want in expected.items():
                same = abs(region[key] - want) < 1e-9 if isinstance(want, float) else region[key] == want
                if not same:
                    faults.append(f"{where}: `{key}` is {region[key]}; expected {want}")
                counts += 1
            if found[region["consequent"]] != max(found.values()):
                faults.append(f"{where}: the rule says {region['consequent']}, but {max(found, key=found.get)} is more frequent")
            if not set(region["nearest"]) <= {name for name, matches in zip(name_of, matching) if matches}:
                faults.append(f"{where}: a similar region does not match the rule")
    if not atoms:
        faults.append(f"{args.out}: there are no rules")
    print(f"checked {atoms} atoms, {counts} counts and {features_checked} features: {len(faults)} faults")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("table", "training", "out", "photos", "masks"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--extension", default=".jpg", help="of the photos")
    faults = check(parser.parse_args())
    print("\n".join(faults[:20]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
