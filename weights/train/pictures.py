"""Makes the pictures of the README and of the model card with the program's embedded weights.

    python pictures.py --rtformer ../../target/release/rtformer --data CAMVID [--frames NAME ...]

docs/street.overlay.jpg: what `rtformer segment` makes of one frame of tests/data/street.
weights/failures.jpg: photo, labels and mask of frames of CamVid's val, side by side.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from data import Classes, find_pairs

ROOT = Path(__file__).resolve().parents[2]
STREET = "0016E5_07959"
FRAMES = ["0016E5_08093", "0016E5_08157", "0016E5_08009"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtformer", type=Path, required=True, help="the program")
    parser.add_argument("--data", type=Path, required=True, help="CamVid, as train.py wants it")
    parser.add_argument("--frames", nargs="+", default=FRAMES, metavar="NAME", help="of val, without the suffix")
    args = parser.parse_args()
    pairs = {photo.stem: (photo, label) for photo, label in find_pairs(args.data / "val", args.data / "val_labels")}
    with tempfile.TemporaryDirectory() as folder:
        segment(args.rtformer, [ROOT / f"tests/data/street/{STREET}.jpg"], folder, "overlay")
        overlay = Image.open(Path(folder) / f"{STREET}.overlay.png").convert("RGB")
        overlay.save(ROOT / "docs/street.overlay.jpg", quality=88)
        segment(args.rtformer, [pairs[name][0] for name in args.frames], folder, "mask")
        rows = [row(*pairs[name], Path(folder) / f"{name}.mask.png") for name in args.frames]
    picture = Image.fromarray(np.concatenate(rows))
    picture = picture.resize((1080, picture.height * 1080 // picture.width), Image.Resampling.LANCZOS)
    picture.save(ROOT / "weights/failures.jpg", quality=85)


def segment(rtformer: Path, photos: list[Path], folder: str, what: str) -> None:
    subprocess.run([rtformer.resolve(), "segment", *photos, "-o", folder, "--emit", what, "--quiet"], check=True)


def row(photo: Path, label: Path, mask: Path) -> np.ndarray:
    """`[h, 3 w, 3]`: photo, labels (black: unlabelled) and mask."""
    classes = Classes.load("camvid")
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes.colors)] = classes.colors
    pictures = [np.asarray(Image.open(photo).convert("RGB")), palette[classes.read(label).numpy()]]
    return np.concatenate([*pictures, palette[np.asarray(Image.open(mask))]], axis=1)


if __name__ == "__main__":
    main()
