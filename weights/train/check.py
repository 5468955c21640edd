"""What a maintainer runs by hand after a change to the recipe; about five minutes.

    python check.py --rtformer ../../target/release/rtformer --data CAMVID

1. The network is the Rust reference backend's: random weights and norm statistics go through `rtformer convert`, a photo
   through both, and the logits are compared.
2. A short training that is killed twice ends with the very weights of one that is not.
3. `rtformer eval` measures what `train.py` measured, from exported weights.
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

from data import find_pairs, normalize
from model import Config, RTFormer, resize
from train import state

HERE = Path(__file__).resolve().parent
CLOSE = 1e-4  # of the greatest logit; seen: 4e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtformer", type=Path, required=True, help="the program")
    parser.add_argument("--data", type=Path, required=True, help="CamVid, as train.py wants it")
    args = parser.parse_args()
    pairs = find_pairs(args.data / "val", args.data / "val_labels")
    with tempfile.TemporaryDirectory() as folder:
        same_network(args.rtformer.resolve(), pairs[0][0], Path(folder))
        same_training(args.rtformer.resolve(), args.data.resolve(), pairs[::13], Path(folder))
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


def same_training(rtformer: Path, data: Path, pairs: list[tuple[Path, Path]], folder: Path) -> None:
    for kind in ("photos", "labels"):
        (folder / kind).mkdir()
    for photo, label in pairs:
        (folder / "photos" / photo.name).symlink_to(photo.resolve())
        (folder / "labels" / label.name).symlink_to(label.resolve())
    train = [sys.executable, HERE / "train.py", "--smoke", "--train", data / "train", data / "train_labels"]
    train += ["--val", folder / "photos", folder / "labels"]
    call(*train, "--out", folder / "whole")
    for _ in range(2):
        run = subprocess.Popen([*train, "--out", folder / "killed"], stdout=subprocess.PIPE, text=True)
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
        "--temperature", want["temperature"], "--store", "int8",
    )
    places = ("--images", folder / "photos", "--labels", folder / "labels")
    got = json.loads(call(rtformer, "eval", *places, "--weights", folder / "whole.safetensors", "--json"))
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
