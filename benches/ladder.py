"""Which rungs are worth having: what adaptive inference could save and lose, measured on the training code's network.

    python benches/ladder.py --weights final.pth --data CAMVID [--photos N] [--images 'FOLDER/*.png']

Needs weights/train/requirements.txt. Each line is a mean over the photos: the share of pixels (per cent) whose class differs from the full
network's, and the share of its multiplications. `benches/ladder.md` has the tables and what follows from them.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "weights/train"))
from data import MEAN, STD  # noqa: E402
from model import Config, RTFormer, resize  # noqa: E402

# Shares of the multiplications (`Config::work`, Slim): up to x3_, the auxiliary head, low branch with injections and DAPPM, the rest.
TRUNK, AUX, LOW, HIGH = 0.465, 0.033, 0.245, 0.290
TEMPERATURE = 0.89
CELLS = 8  # a tile of 64 pixels on the map at 1/8


class Study:
    def __init__(self, weights: Path):
        self.net = RTFormer(Config.slim(11))
        self.net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=False))
        self.net.eval()
        self.rows = defaultdict(list)  # name → [(differing, work)]
        self.tiles = []  # features and differing pixels of each tile, for the classifier

    # The network in pieces.

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        net = self.net
        x2 = net.layer2(F.relu(net.layer1(net.conv1(x))))
        x3 = net.layer3(F.relu(x2))
        return F.relu(net.layer3_(F.relu(x2 + resize(net.compression3(x3), x2.shape[2:])))), F.relu(x3), x2

    @staticmethod
    def low(block, x: Tensor) -> Tensor:
        around = x if block.attn_shortcut_l is None else block.attn_shortcut_l(x)
        x = around + block.attn_l(x)
        return x + block.mlp_l(x)

    @staticmethod
    def high(block, x: Tensor, message) -> Tensor:
        x = x + message[0]
        x = x + block.attn_h(x, *message[1])
        return x + block.mlp_h(x)

    @staticmethod
    def message(block, low: Tensor):
        return block.compression(low), block.cross_kv(low).flatten(2).chunk(2, dim=1)

    def context(self, high: Tensor, low: Tensor, inject: str):
        """What the high branch takes from the low one. `inject`: full (the exact network), proxy (of the high branch, only what the
        low branch added), or none."""
        net, messages = self.net, []
        exact = proxy = high
        for block in (net.layer4, net.layer5):
            low = self.low(block, low)
            messages.append(self.message(block, low))
            size = high.shape[2:]
            sum_, keys = resize(messages[-1][0], size), messages[-1][1]
            proxy = (proxy if block is net.layer4 else F.relu(proxy)) + sum_
            if inject == "full":
                exact = self.high(block, exact if block is net.layer4 else F.relu(exact), (sum_, keys))
                low = low + block.down(exact)
            elif inject == "proxy":
                low = low + block.down(proxy)
            if block is net.layer4:
                low = F.relu(low)
        return messages, net.spp(low)

    def rest(self, high: Tensor, messages, x6: Tensor) -> Tensor:
        high = self.high(self.net.layer4, high, messages[0])
        high = self.high(self.net.layer5, F.relu(high), messages[1])
        return self.net.seghead(torch.cat([high, x6], dim=1))

    def up(self, context, size):
        messages, x6 = context
        return [(resize(sum_, size), keys) for sum_, keys in messages], resize(x6, size)

    # The measurements.

    def photo(self, path: Path, train: bool) -> None:
        x = (torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255 - MEAN) / STD
        kept = x.shape[1:]
        x = F.pad(x[None], (0, -kept[1] % 64, 0, -kept[0] % 64))
        size, map_ = x.shape[2:], (x.shape[2] // 8, x.shape[3] // 8)
        cut = lambda logits: resize(logits, size)[:, :, : kept[0], : kept[1]]
        x3_, x3, x2 = self.trunk(x)
        full = self.rest(x3_, *self.up(self.context(x3_, x3, "full"), map_))
        truth = cut(full).argmax(1)[0]
        wrong = lambda logits: (cut(logits).argmax(1)[0] != truth).float()
        add = lambda name, differing, work: self.rows[name].append((100 * float(differing), 100 * work))

        aux = self.net.seghead_extra(x3_)
        confidences = self.confidences(aux, x3_, x2, wrong(aux), kept)
        if train:
            return
        for scale in (0.95, 0.9, 0.8, 0.7, 0.6, 0.5):
            small = [round(side * scale) for side in kept]
            y = F.interpolate(x[:, :, : kept[0], : kept[1]], size=small, mode="bilinear", align_corners=False)
            y = F.pad(y, (0, -small[1] % 32, 0, -small[0] % 32))
            logits = resize(resize(self.net(y), y.shape[2:])[:, :, : small[0], : small[1]], kept)
            add(f"smaller size, {scale}", (logits.argmax(1)[0] != truth).float().mean(), scale * scale)

        # The whole photo at half size; of refined tiles, the low branch's maps come from there.
        half3_, half3, _ = self.trunk(F.avg_pool2d(x, 2))
        coarse = self.up(self.context(half3_, half3, "full"), map_)
        low_coarse = self.rest(x3_, *coarse)
        base = resize(self.net(F.avg_pool2d(x, 2)), map_)
        self.refined("half size, tiles", base, low_coarse, self.gap(base, kept), wrong, add, lambda area: 0.25 + area * (TRUNK + HIGH))

        for name, pooled, inject, work in (
            ("exit at x3_, exact tiles", False, "full", lambda area: TRUNK + AUX + LOW + HIGH * (0.6 + 0.4 * area)),
            ("exit at x3_, low branch without high", False, "none", lambda area: TRUNK + AUX + LOW + HIGH * area),
            ("exit at x3_, proxy in the low branch", False, "proxy", lambda area: TRUNK + AUX + LOW + HIGH * area),
            ("exit at x3_, proxy in a pooled low branch", True, "proxy", lambda area: TRUNK + AUX + LOW / 4 + HIGH * area),
        ):
            high, low = (F.avg_pool2d(x3_, 2), F.avg_pool2d(x3, 2)) if pooled else (x3_, x3)
            logits = self.rest(x3_, *self.up(self.context(high, low, inject), map_))
            self.refined(name, aux, logits, confidences["gap"], wrong, add, work)
            if pooled:
                for kind in ("saturation", "classifier"):
                    if kind in confidences:
                        self.refined(f"{name}, {kind}", aux, logits, confidences[kind], wrong, add, work)
                self.refined(f"{name}, oracle", aux, logits, self.oracle(wrong(aux), wrong(logits), kept), wrong, add, work)

    def refined(self, name, base, better, confidence, wrong, add, work) -> None:
        """Tiles in the order of their confidence are replaced. A halo of 16 pixels is counted as work, merged tiles are not."""
        for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0):
            count = round(share * confidence.size)
            chosen = np.zeros(confidence.size, bool)
            chosen[np.argsort(confidence.flatten(), kind="stable")[:count]] = True
            mask = np.kron(chosen.reshape(confidence.shape), np.ones((CELLS, CELLS)))[: base.shape[2], : base.shape[3]]
            mixed = torch.where(torch.from_numpy(mask > 0)[None, None], better, base)
            add(f"{name}, {share:.0%}", wrong(mixed).mean(), work(min(1.0, 1.7 * share)))

    def by_tile(self, values: np.ndarray, fill: float) -> np.ndarray:
        rows, columns = (-(-side // CELLS) for side in values.shape)
        padded = np.pad(values, ((0, rows * CELLS - values.shape[0]), (0, columns * CELLS - values.shape[1])), constant_values=fill)
        return padded.reshape(rows, CELLS, columns, CELLS).transpose(0, 2, 1, 3).reshape(rows, columns, -1)

    def gap(self, logits: Tensor, kept) -> np.ndarray:
        top = (logits / TEMPERATURE).softmax(1).topk(2, dim=1).values
        gap = (top[:, 0] - top[:, 1])[0].numpy()[: -(-kept[0] // 8), : -(-kept[1] // 8)]
        return np.quantile(self.by_tile(gap, 2.0), 0.05, axis=2)

    def pixels_by_tile(self, wrong: Tensor, kept) -> np.ndarray:
        cells = F.avg_pool2d(F.pad(wrong[None, None], (0, -kept[1] % 8, 0, -kept[0] % 8)), 8)[0, 0].numpy()
        return self.by_tile(cells, 0.0).sum(axis=2)

    def oracle(self, before: Tensor, after: Tensor, kept) -> np.ndarray:
        return self.pixels_by_tile(after, kept) - self.pixels_by_tile(before, kept)

    def confidences(self, aux: Tensor, x3_: Tensor, x2: Tensor, wrong: Tensor, kept) -> dict[str, np.ndarray]:
        h, w = -(-kept[0] // 8), -(-kept[1] // 8)
        probabilities = (aux / TEMPERATURE).softmax(1)
        top = probabilities.topk(2, dim=1).values
        cells = {
            "gap": (top[:, 0] - top[:, 1])[0],
            "entropy": -(probabilities * probabilities.clamp_min(1e-9).log()).sum(1)[0],
            "cosine": F.cosine_similarity(F.relu(x2), x3_)[0],
        }
        tiled = {name: self.by_tile(values.numpy()[:h, :w], 0.0) for name, values in cells.items()}
        gap = self.gap(aux, kept)
        features = np.stack([gap, *(values.mean(axis=2) for values in tiled.values()), np.median(tiled["gap"], axis=2)], axis=-1)
        target = self.pixels_by_tile(wrong, kept)
        self.tiles.append((features.reshape(-1, features.shape[-1]), target.flatten()))
        found = {"gap": gap, "saturation": np.quantile(tiled["cosine"], 0.05, axis=2)}
        if hasattr(self, "weights"):
            found["classifier"] = -(self.normal(features) @ self.weights)
        return found

    def normal(self, features: np.ndarray) -> np.ndarray:
        scaled = (features - self.centre) / self.spread
        return np.concatenate([scaled, scaled**2, np.ones(scaled.shape[:-1] + (1,))], axis=-1)

    def train_classifier(self) -> None:
        """Least squares on the number of differing pixels of a tile."""
        features, target = (np.concatenate(parts) for parts in zip(*self.tiles))
        self.centre, self.spread = features.mean(axis=0), features.std(axis=0) + 1e-9
        self.weights = np.linalg.lstsq(self.normal(features), target, rcond=None)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="the state dictionary that train.py writes")
    parser.add_argument("--data", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--images", help="measure on these photos, a glob, instead of CamVid's val")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    study = Study(args.weights)
    spread = lambda files: sorted(files)[:: max(1, len(files) // args.photos)][: args.photos]
    for path in spread(list((args.data / "train").glob("*.jpg"))):
        study.photo(path, train=True)
    study.train_classifier()
    measured = list(Path().glob(args.images)) if args.images else list((args.data / "val").glob("*.jpg"))
    for path in spread(measured):
        study.photo(path, train=False)
    for name, values in study.rows.items():
        differing, work = np.mean(values, axis=0)
        print(f"{name:60} {differing:6.2f} %  {work:6.1f} %")


if __name__ == "__main__":
    main()
