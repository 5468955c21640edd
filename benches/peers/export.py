"""Writes the seeded network as PyTorch weights and as ONNX graphs for the peers.

The network is defined in `weights/train/model.py` and not repeated here. This file adds random parameters that keep
every stage in a healthy range, the read-out (full-size logits or mask), and the adaptive max pool as gathers and
maxima, which are exact at any size; ONNX has no operator for it.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "weights/train"))

from model import Config, ExternalAttention, RTFormer, resize  # noqa: E402

CITYSCAPES = 19
CONFIGS = {
    "slim": Config.slim(CITYSCAPES),
    "base": Config(CITYSCAPES, base_channels=64, head_channels=128, use_injection=(True, False)),
}
BRIGHTNESS = (0.3, 0.6, 1.0, 1.3)  # of the photos behind the norms' statistics: even the global pool must vary
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def main() -> None:
    args = arguments()
    if args.command == "frame":
        frame(args.photo, args.size).save(args.out)
    elif args.command == "weights":
        torch.save(seeded(CONFIGS[args.model], args.photo).state_dict(), args.out)
    else:
        network = RTFormer(CONFIGS[args.model])
        network.load_state_dict(torch.load(args.weights))
        export(network, args.size, args.graph, args.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make_frame = commands.add_parser("frame", help="a resized photo as PNG, so that all engines read the same pixels")
    make_weights = commands.add_parser("weights", help="random weights with matching norms, as a state dictionary")
    make_graph = commands.add_parser("graph", help="an ONNX graph for one size")
    for command in (make_frame, make_weights, make_graph):
        command.add_argument("--out", type=Path, required=True)
    for command in (make_frame, make_weights):
        command.add_argument("--photo", type=Path, required=True)
    for command in (make_frame, make_graph):
        command.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), required=True)
    for command in (make_weights, make_graph):
        command.add_argument("--model", choices=CONFIGS, required=True)
    make_graph.add_argument("--weights", type=Path, required=True)
    make_graph.add_argument("--graph", choices=["logits", "mask"], required=True)
    return parser.parse_args()


def frame(photo: Path, size: tuple[int, int]) -> Image.Image:
    image = Image.open(photo).convert("RGB")
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


@torch.no_grad()
def seeded(config: Config, photo: Path) -> RTFormer:
    """The same random network each time: He initialisation, non-trivial attention, norm statistics from a street photo."""
    torch.manual_seed(7)
    network = RTFormer(config)
    for module in network.modules():
        if isinstance(module, ExternalAttention):
            # The original starts with almost nothing, so that blocks are identities; those of a trained network are not.
            nn.init.normal_(module.k, std=module.k.shape[1] ** -0.5)
            nn.init.normal_(module.v, std=module.v.shape[1] ** -0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = None  # use exactly the statistics of the batch below
    pixels = np.asarray(frame(photo, (480, 360)), np.float32) / 255
    seen = np.stack([(np.clip(factor * pixels, 0, 1) - MEAN) / STD for factor in BRIGHTNESS])
    network.train()
    network(torch.from_numpy(seen).permute(0, 3, 1, 2))
    return network.eval()


class WindowedMax(nn.Module):
    """`AdaptiveMaxPool2d` for one input size: window i of n over a length L is `floor(i*L/n)` to `ceil((i+1)*L/n)`."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        for dim in (2, 3):
            rows = torch.tensor(windows(int(x.shape[dim]), self.side))
            x = x.index_select(dim, rows.flatten()).unflatten(dim, rows.shape).amax(dim + 1)
        return x


def windows(length: int, side: int) -> list[list[int]]:
    """The indices in each window, padded to equal length by repeating the last, which does not change a maximum.

    >>> windows(5, 2)
    [[0, 1, 2], [2, 3, 4]]
    >>> windows(4, 3)
    [[0, 1], [1, 2], [2, 3]]
    >>> windows(2, 3)
    [[0, 0], [0, 1], [1, 1]]
    """
    spans = [(i * length // side, -(-(i + 1) * length // side)) for i in range(side)]
    longest = max(end - start for start, end in spans)
    return [[min(start + i, end - 1) for i in range(longest)] for start, end in spans]


class ReadOut(nn.Module):
    """`[1, 3, height, width]` → logits `[1, classes, height, width]`, or the mask `[1, height, width]`."""

    def __init__(self, network: RTFormer, mask: bool):
        super().__init__()
        self.network = network
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        logits = resize(self.network(x), (int(x.shape[2]), int(x.shape[3])))
        return logits.argmax(dim=1) if self.mask else logits


def export(network: RTFormer, size: tuple[int, int], graph: str, out: Path) -> None:
    for block in (network.layer4, network.layer5):
        block.cross_kv[1] = WindowedMax(block.cross_kv[1].output_size)
    width, height = size
    # The tracing exporter warns that the graph has a fixed size, which is what we want. The newer exporter needs another package.
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning, message="You are using the legacy")
    # Norms stay separate operators (`PRESERVE` of a network in eval mode): folding them is left to the engines.
    torch.onnx.export(
        ReadOut(network, graph == "mask").eval(), (torch.zeros(1, 3, height, width),), str(out),
        input_names=["frame"], output_names=[graph], opset_version=17, dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
    )


if __name__ == "__main__":
    main()
