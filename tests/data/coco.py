#!/usr/bin/env python3
"""Check `segment --emit rle,polygons` with pycocotools, and write the run lengths that the tests compare with.

    pip install pycocotools==2.0.11 numpy pillow
    python tests/data/coco.py golden                 -> tests/data/golden/coco.json (committed)
    python tests/data/coco.py check target/release/rtformer
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

HERE = Path(__file__).resolve().parent


def golden():
    """Random masks of two classes and the text that pycocotools has for class 1."""
    rng = np.random.default_rng(16)
    cases = []
    for height, width, share in [(1, 1, 0), (1, 1, 1), (3, 2, 0.5), (1, 40, 0.5), (40, 1, 0.5), (33, 47, 0.02), (40, 40, 0.98)] + [(12, 9, 0.1 * i) for i in range(11)]:
        cases.append((rng.random((height, width)) < share).astype(np.uint8))
    cases.append(np.tile(np.arange(50) // 25 % 2, (50, 1)).astype(np.uint8))  # long runs: several groups of five bits
    cases.append(np.kron(rng.integers(0, 2, (6, 5)), np.ones((20, 12), int)).astype(np.uint8))
    rows = []
    for ids in cases:
        counts = coco.encode(np.asfortranarray(ids))["counts"].decode()
        rows.append({"width": ids.shape[1], "height": ids.shape[0], "ids": "".join(map(str, ids.ravel())), "counts": counts})
    (HERE / "golden" / "coco.json").write_text(json.dumps(rows, indent=0) + "\n")


def check(program):
    photos = sorted(HERE.glob("street/**/*.jpg"))
    with tempfile.TemporaryDirectory() as out:
        command = [program, "segment", *photos, "-o", out, "--emit", "mask,rle,polygons", "--quiet"]
        subprocess.run([*command, "--tolerance", "0"], check=True)
        exact = compare(Path(out))
        subprocess.run([*command, "--tolerance", "1", "--overwrite"], check=True)
        loose = compare(Path(out))
    print(f"{len(photos)} photos: run lengths and outlines give the masks bit for bit, {exact[0]} areas with {exact[1]} corners")
    print(f"with a tolerance of 1 pixel, {loose[1]} corners give {100 * loose[2]:.2f} % of the pixels the same class")
    assert exact[2] == 1 and loose[1] < exact[1] and loose[2] > 0.95


def compare(out):
    areas = corners = same = pixels = 0
    for path in sorted(out.rglob("*.mask.png")):
        ids = np.asarray(Image.open(path))
        stem = str(path)[: -len(".mask.png")]
        with contextlib.redirect_stdout(io.StringIO()):
            runs, rings = COCO(stem + ".rle.json"), COCO(stem + ".polygons.coco.json")
        for one in runs.anns.values():
            mask = runs.annToMask(one)
            assert (mask == (ids == one["category_id"] - 1)).all(), (path, one["category_id"])
            assert one["area"] == mask.sum() and one["bbox"] == coco.toBbox(one["segmentation"]).tolist(), one
        assert {one["category_id"] - 1 for one in runs.anns.values()} == set(np.unique(ids)) - {255}
        drawn = np.full_like(ids, 255)
        for one in sorted(rings.anns.values(), key=lambda one: -one["area"]):
            drawn[rings.annToMask(one) == 1] = one["category_id"] - 1
            areas, corners = areas + 1, corners + len(one["segmentation"][0]) // 2
        same, pixels = same + (drawn == ids).sum(), pixels + ids.size
        features = json.loads(Path(stem + ".polygons.geojson").read_text())["features"]
        assert len(features) == len(rings.anns) and all(ring[0] == ring[-1] for one in features for ring in one["geometry"]["coordinates"])
    return areas, corners, same / pixels


if __name__ == "__main__":
    golden() if sys.argv[1:] == ["golden"] else check(Path(sys.argv[2]).resolve())
