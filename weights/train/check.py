"""What a maintainer runs by hand after a change to the recipe; about five minutes.

    python check.py --rtformer ../../target/release/rtformer --data CAMVID [--teachers DIR]

1. The network is the Rust reference backend's: random weights and norm statistics go through `rtformer convert`, a photo
   through both, and the logits are compared.
2. `teach.py` computes soft labels for a few photos, which agree with the photos' labels, and computes none twice. Without
   --teachers this step is skipped, and the next one trains without soft labels.
3. A short training that is killed twice ends with the very weights of one that is not. It holds out one clip.
4. `rtformer eval` measures what `train.py` measured, from exported weights.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data import CACHE_STEP, IGNORE, PAD, Classes, Split, find_pairs, normalize
from model import Config, RTFormer, resize
from train import state

HERE = Path(__file__).resolve().parent
CLOSE = 1e-4  # of the greatest logit; seen: 4e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtformer", type=Path, required=True, help="the program")
    parser.add_argument("--data", type=Path, required=True, help="CamVid, as train.py wants it")
    parser.add_argument("--teachers", type=Path, help="folder of the teachers' files, as teach.py wants it")
    args = parser.parse_args()
    train = find_pairs(args.data / "train", args.data / "train_labels")[::30]
    pairs = find_pairs(args.data / "val", args.data / "val_labels")
    with tempfile.TemporaryDirectory() as folder:
        same_network(args.rtformer.resolve(), pairs[0][0], Path(folder))
        cache = Path(folder) / "soft"
        if args.teachers:
            soft_labels(args.teachers, train, cache, Path(folder))
        else:
            print("skipped: no --teachers, so teach.py and training with soft labels were not checked")
        same_training(args.rtformer.resolve(), train, pairs[::13], cache if args.teachers else None, Path(folder))
    print("all is well")


@torch.no_grad()
def same_network(rtformer: Path, photo: Path, folder: Path) -> None:
    torch.manual_seed(7)
    net = RTFormer(Config.slim(11)).eval()
    for name, tensor in state(net).items():
        # No start of a training: attention, norms and their statistics must show in the logits.
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.ndim == 1:
            tensor.add_(0.1 * torch.randn_like(tensor))  # at 0.3, f32 and f64 of PyTorch itself are 2e-4 apart
        elif name.endswith((".k", ".v")):
            tensor.normal_(std=0.2)
    torch.save(net.state_dict(), folder / "random.pth")
    call(rtformer, "convert", folder / "random.pth", "-o", folder / "random.safetensors", "--dataset", "camvid")
    pixels = torch.from_numpy(np.array(Image.open(photo).convert("RGB"))).permute(2, 0, 1)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / "photo.png")  # both decode the same bytes
    want = resize(net(normalize(pixels)[None]), pixels.shape[1:])[0].numpy()
    for device in ("reference", "cpu"):
        weights = ("--weights", folder / "random.safetensors", "--device", device)
        call(rtformer, "segment", folder / "photo.png", "-o", folder / device, "--emit", "logits", *weights)
        got = np.load(folder / device / "photo.logits.npy")
        off = np.abs(got - want).max() / np.abs(want).max()
        equal = (got.argmax(axis=0) == want.argmax(axis=0)).mean()
        print(f"the network on {device}: logits off by {off:.1e} of the greatest, {100 * equal:.3f} % of the mask equal")
        if got.shape != want.shape or not off < CLOSE:
            sys.exit(f"model.py and the {device} backend are two networks")


def soft_labels(teachers: Path, pairs: list[tuple[Path, Path]], cache: Path, folder: Path) -> None:
    photos, labels = linked(pairs, folder / "taught")
    teach = [sys.executable, HERE / "teach.py", photos, "--teachers", teachers, "--out", cache]
    call(*teach)
    again = call(*teach)
    if f"{len(pairs)} photos, {len(pairs)} of them in {cache}" not in again:
        sys.exit(f"teach.py does not find what it cached: {again}")
    split = Split(find_pairs(photos, labels), Classes.load("camvid"), cache)
    agree = known = 0
    for ids, soft in zip(split.labels, split.soft):
        truth = ids[2::CACHE_STEP, 2::CACHE_STEP]
        guess = soft[:, : truth.shape[0], : truth.shape[1]].argmax(dim=0)
        known += (truth != IGNORE).sum().item()
        agree += (guess == truth).sum().item()
    print(f"soft labels of {len(pairs)} photos: {100 * agree / known:.1f} % of the labelled pixels agree")
    if agree < 0.7 * known:
        sys.exit("the teachers' classes are not the data set's")


def linked(pairs: list[tuple[Path, Path]], folder: Path) -> tuple[Path, Path]:
    """Two new folders with these photos and labels."""
    for kind, files in zip(("photos", "labels"), zip(*pairs)):
        (folder / kind).mkdir(parents=True)
        for file in files:
            (folder / kind / file.name).symlink_to(file.resolve())
    return folder / "photos", folder / "labels"


def same_training(
    rtformer: Path, train_pairs: list[tuple[Path, Path]], pairs: list[tuple[Path, Path]], cache: Path | None, folder: Path
) -> None:
    photos, labels = linked(pairs, folder / "val")
    clip = train_pairs[0][0].stem[:6]
    train = [sys.executable, HERE / "train.py", "--smoke", "--batch", 4, "--fold", clip, "--val", photos, labels]
    train += ["--train", *linked(train_pairs, folder / "train"), *(["--teach", cache] if cache else [])]
    call(*train, "--out", folder / "whole")
    for _ in range(2):
        command = [str(word) for word in [*train, "--out", folder / "killed"]]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        next(line for line in run.stdout if line.startswith("iteration"))
        run.terminate()
        run.communicate()
    call(*train, "--out", folder / "killed")
    whole, killed = (torch.load(folder / run / "final.pth", weights_only=True) for run in ("whole", "killed"))
    different = [name for name in whole if not torch.equal(whole[name], killed[name])]
    print(f"killed and resumed: {len(whole) - len(different)} of {len(whole)} tensors equal to the bit")
    if different:
        sys.exit(f"a resumed training ends elsewhere: {different[:3]}")

    want = json.loads((folder / "whole/val.json").read_text())
    call(
        rtformer, "convert", folder / "whole/final.pth", "-o", folder / "whole.safetensors", "--dataset", "camvid",
        "--temperature", want["temperature"], "--pad-multiple", PAD, "--store", "int8",
    )
    places = ("--images", photos, "--labels", labels)
    got = json.loads(call(rtformer, "eval", *places, "--weights", folder / "whole.safetensors", "--json"))
    if want["fold"]["clip"] != clip or want["fold"]["photos"] != sum(p.stem.startswith(clip) for p, _ in train_pairs):
        sys.exit(f"--fold {clip} held out other photos: {want['fold']}")
    print(f"mean IoU {100 * want['mean_iou']:.2f} % by train.py, {100 * got['miou']:.2f} % by rtformer eval on int8 weights")
    if abs(want["mean_iou"] - got["miou"]) > 0.002 or got["temperature"] != round(want["temperature"], 3):
        sys.exit("`rtformer eval` measures another network than train.py")


def call(*command: object) -> str:
    """Runs a command whose failure is ours, and returns what it printed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
