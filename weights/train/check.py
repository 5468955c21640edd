"""What a maintainer runs by hand after a change to the recipe; about seven minutes.

    python check.py --rtformer ../../target/release/rtformer --data CAMVID [--teachers DIR]

1. The network is the Rust reference backend's: random weights and norm statistics go through `rtformer convert`, a photo
   through both, and the logits are compared.
2. `teach.py` computes soft labels for a few photos, which agree with the photos' labels, and computes none twice. Without
   --teachers this step is skipped, and the next one trains without soft labels.
3. A short training that is killed twice ends with the very weights of one that is not. It holds out one clip.
4. `rtformer eval` measures what `train.py` measured, from exported weights.
5. A tiny sweep that is stopped and resumed makes each run once, and `rtformer plan` reads its table.
"""

import argparse
import csv
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
from sweep import training_flops
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
        everything = find_pairs(args.data / "train", args.data / "train_labels")
        tiny_sweep(args.rtformer.resolve(), everything[::8], pairs[::34], Path(folder))
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


def tiny_sweep(
    rtformer: Path, train_pairs: list[tuple[Path, Path]], pairs: list[tuple[Path, Path]], folder: Path
) -> None:
    out = folder / "sweep"
    sweep = [sys.executable, HERE / "sweep.py", "--train", *linked(train_pairs, folder / "swept"), "--val", *linked(pairs, folder / "held_out")]
    sweep += ["--out", out, "--precision", "f32", "--budgets", "1.3e10", "2.6e10", "--widths", 8, 12, 16, "--seeds", 1, "--batch", 4, "--crop", "64x64"]
    run = subprocess.Popen([str(word) for word in sweep], stdout=subprocess.PIPE, text=True)
    for line in run.stdout:
        if line.startswith("run 2 of 13"):
            break
    run.terminate()
    run.communicate()
    first = next((out / "runs").glob("*.json")).stat().st_mtime_ns
    said = call(*sweep)
    if run.returncode != 1 or "run 1 of 13" in said or "run 2 of 13" not in said:
        sys.exit(f"sweep.py does not resume: exit code {run.returncode}, then {said}")
    if min(path.stat().st_mtime_ns for path in (out / "runs").glob("*.json")) != first:
        sys.exit("sweep.py repeated a run")
    call(*sweep[: sweep.index("--budgets")], "--only", "--budgets", "1.3e10", "--widths", 4, "--batch", 4, "--crop", "64x64")
    sweep_tables(rtformer, out)


def sweep_tables(rtformer: Path, out: Path) -> None:
    for name, want in (("sweep.csv", 10), ("rates.csv", 4)):
        with (out / name).open() as file:
            rows = list(csv.DictReader(file))
        if ",".join(rows[0]) != "width,params,crops,epochs,unique,flops,seed,lr,cross_entropy,miou,seconds,crop,batch" or len(rows) != want:
            sys.exit(f"{name}: {len(rows)} rows of {list(rows[0])}")
        for row in rows:
            params, flops = training_flops(int(row["width"]), 11, (64, 64))
            if (int(row["params"]), int(row["flops"])) != (params, int(row["crops"]) * flops):
                sys.exit(f"{name}: parameters or FLOPs of {row} are not {params}, {int(row['crops']) * flops}")
    figures = [round(training_flops(width, 11, (192, 256))[1] / 1e9, 2) for width in (8, 12, 16, 24, 32, 48)]
    if figures != [0.39, 0.84, 1.45, 3.16, 5.54, 12.28]:
        sys.exit(f"crops of 256x192 cost {figures} GFLOPs")
    fit = json.loads(call(rtformer, "plan", "--fit", out / "sweep.csv", "--json"))
    print(f"a sweep of {fit['runs']} runs was stopped, resumed and read by rtformer plan")


def call(*command: object) -> str:
    """Runs a command whose failure is ours, and returns what it printed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
