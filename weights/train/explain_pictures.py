"""The documentation's two pictures: a car that was found, and a region that was wrongly taken for a car; from CamVid's val.

    python explain_pictures.py --rtformer rtformer --data CAMVID --weights explained.safetensors --out docs/book/src/pictures --work work
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from explain_goals import components


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtformer", default="rtformer")
    parser.add_argument("--weights", default="embedded")
    for name in ("data", "out", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    run = lambda *command: subprocess.run([args.rtformer, *map(str, command), "--weights", args.weights, "--overwrite", "-q"], check=True)
    run("explain", args.data / "val", "--labels", args.data / "val_labels", "--class", "car", "--emit", "json", "-o", args.work / "cars")
    found = []
    for path in sorted((args.work / "cars").glob("*.rules.json")):
        for region in json.loads(path.read_text())["regions"]:
            if region["kind"] == "component" and region["rule"] and "label" in region and region["consequent"] == "car":
                found.append((path.name.removesuffix(".rules.json"), region))
    right = max((f for f in found if f[1]["label"] == "car" and f[1]["pixels"] >= 1500), key=lambda f: f[1]["precision"])
    wrong = max((f for f in found if f[1]["label"] != "car"), key=lambda f: (f[1]["pixels"] >= 300, f[1]["precision"]))
    for name, (photo, region) in (("right", right), ("wrong", wrong)):
        source = args.data / f"val/{photo}.jpg"
        run("segment", source, "-o", args.work, "--emit", "mask")
        parts = components(np.asarray(Image.open(args.work / f"{photo}.mask.png")).astype(int))
        large = np.flatnonzero(np.bincount(parts.ravel()) >= 64)
        y, x = np.argwhere(parts == large[region["id"] - 1])[region["pixels"] // 2]
        run("explain", source, "--labels", args.data / "val_labels", "--at", f"{x},{y}", "--emit", "png", "-o", args.work / name)
        Image.open(args.work / f"{name}/{photo}.rules.png").convert("RGB").save(args.out / f"explain-{name}.jpg", quality=82, optimize=True)
        print(f"{name}: {photo}, region {region['id']}: {region['matches_of_class']} of {region['matches']}")


if __name__ == "__main__":
    main()
