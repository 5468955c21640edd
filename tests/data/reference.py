#!/usr/bin/env python3
"""Write the golden files: the results of PaddleSeg's own RTFormer, stage by stage.

    python tests/data/reference.py small                        tiny models  -> tests/data/golden/ (committed)
    python tests/data/reference.py augmented                    photo_augmented.safetensors alone, from the committed weights
    python tests/data/reference.py full --out DIR --photo JPG   the four published widths -> DIR (0.7 GB)

The network is PaddleSeg's file `paddleseg/models/rtformer.py`, unmodified, in eval mode on the CPU. The weights
are random. While a first picture flows through the network, each layer is scaled so that every stage keeps a
healthy magnitude, and the norms get the statistics of their inputs with random changes. About a quarter of the norm
scales are negative, because that is where folding a norm into its neighbour goes wrong.

Requirements (Python 3.11; CPU only):
    pip install paddlepaddle==3.3.1 numpy==2.4.6 pillow==13.0.0 opencv-python-headless==5.0.0.93
    pip install scipy==1.17.1 pyyaml==6.0.3 tqdm==4.70.1 six==1.17.0
    pip install --no-deps paddleseg==2.8.0
PaddleSeg's other imports (sklearn, visualdl, ...) are replaced by empty modules below; none of their code runs here.
"""

import argparse
import json
import os
import pickle
import sys
import types
import warnings
from collections import OrderedDict
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GLOG_minloglevel", "2")
for name in ("sklearn", "sklearn.metrics", "visualdl", "requests", "filelock", "prettytable"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["sklearn"].metrics = sys.modules["sklearn.metrics"]
sys.modules["visualdl"].LogWriter = None

import numpy as np
import paddle
import paddle.nn.functional as F
from PIL import Image

from paddleseg.core import infer
from paddleseg.models.rtformer import RTFormer
from paddleseg.transforms import Compose, Normalize, Resize, functional

HERE = Path(__file__).resolve().parent
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
STAGES = ["stem", "x1", "x2", "x3", "x3_", "x4_", "x4", "x5_", "x5", "x6", "logits8"]

# name: base, layers, spp, heads, head, cross, injections, classes
SMALL = {
    "tiny": (4, [2, 2, 2, 2], 8, 4, 4, 3, [True, True], 5),
    "thirds": (3, [2, 2, 2, 2], 7, 2, 5, 4, [True, False], 7),
    "uneven": (2, [1, 3, 2, 2], 3, 2, 3, 2, [False, True], 3),
}
FULL = {
    "slim-cityscapes": (32, [2, 2, 2, 2], 128, 8, 64, 12, [True, True], 19),
    "base-cityscapes": (64, [2, 2, 2, 2], 128, 8, 128, 12, [True, False], 19),
    "slim-ade20k": (32, [2, 2, 2, 2], 128, 8, 64, 8, [True, False], 150),
    "base-ade20k": (64, [2, 2, 2, 2], 128, 8, 128, 12, [True, False], 150),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    small = commands.add_parser("small", help="tiny models, committed")
    small.add_argument("--out", type=Path, default=HERE / "golden")
    augmented = commands.add_parser("augmented", help="test-time augmentation with the committed tiny weights")
    augmented.add_argument("--out", type=Path, default=HERE / "golden")
    full = commands.add_parser("full", help="the four published widths")
    full.add_argument("--out", type=Path, required=True)
    full.add_argument("--photo", type=Path, required=True, help="a street photo; resized to each size that needs one")
    full.add_argument("--only", choices=FULL, help="one model instead of all four")
    args = parser.parse_args()

    paddle.set_device("cpu")
    paddle.set_flags({"FLAGS_use_mkldnn": False})  # Paddle's own kernels, not oneDNN's
    args.out.mkdir(parents=True, exist_ok=True)
    with paddle.no_grad():
        if args.command == "small":
            write_small(args.out)
        elif args.command == "augmented":
            write_augmented(args.out, "tiny")
        else:
            write_full(args.out, args.photo, [args.only] if args.only else list(FULL))


# ---------------------------------------------------------------------------------------------- the two sets


def write_small(out):
    tiny = build("tiny", SMALL["tiny"], seed=48)
    write_weights(out, "tiny", tiny, SMALL["tiny"])
    cases = [
        (61, 75, 1, "odd height and width: every stride rounds up, and the 2x3 low map is smaller than cross_size 3"),
        (32, 32, 1, "the smallest: the low map is one pixel, every softmax over pixels is 1"),
        (32, 97, 1, "very wide: the low map is 1x4, one row for the pools"),
        (48, 64, 2, "batch of 2: attention must not mix the pictures"),
    ]
    for h, w, n, why in cases:
        write_case(out, "tiny", f"{h}x{w}" + (f"-b{n}" if n > 1 else ""), tiny, noise(n, h, w, seed=h * w), why,
                   parts=(h, w) == (61, 75))
    write_case(out, "tiny", "128x160", tiny, noise(1, 128, 160, seed=9),
               "a 4x5 low map under cross_size 3: pooling windows overlap and vary; no full-size logits, only the mask",
               keep=STAGES + ["mask"])
    write_photo(out, "tiny", tiny)
    write_augmented(out, "tiny")

    thirds = build("thirds", SMALL["thirds"], seed=2)
    write_weights(out, "thirds", thirds, SMALL["thirds"])
    paddle.save(thirds.state_dict(), str(out / "thirds.pdparams"))
    write_case(out, "thirds", "55x41", thirds, noise(1, 55, 41, seed=3),
               "channels 3, 6, 12, 24: no multiple of any vector; taller than wide; only layer4 injects")

    uneven = build("uneven", SMALL["uneven"], seed=7)
    write_weights(out, "uneven", uneven, SMALL["uneven"])
    write_case(out, "uneven", "96x160", uneven, noise(1, 96, 160, seed=5),
               "layers of 1, 3 and 2 blocks (a lone block ends in ReLU), only layer5 injects, "
               "a 3x5 low map under cross_size 2; no full-size logits, only the mask",
               keep=STAGES + ["mask"])
    write_case(out, "uneven", "33x65", uneven, noise(1, 33, 65, seed=6), "one pixel past a multiple of 32, both ways")
    write_pickles(out)


def write_full(out, photo, names):
    # If scaled on noise only, these widths overshoot tenfold on a photo.
    pictures = np.concatenate([noise(1, 320, 512, seed=10), photo_input(photo, 320, 512)])
    for name in names:
        spec = FULL[name]
        model = build(name, spec, 100 + list(FULL).index(name), pictures)
        write_weights(out, name, model, spec)
        paddle.save(model.state_dict(), str(out / f"{name}.pdparams"))
        slim = name == "slim-cityscapes"
        last = ["logits", "mask"] if slim else ["mask"]
        write_case(out, name, "noise-360x480-b2", model, noise(2, 360, 480, seed=7),
                   "CamVid's size, batch of 2", keep=STAGES + last)
        write_case(out, name, "photo-320x333", model, photo_input(photo, 320, 333),
                   "a photo of an odd width", keep=STAGES + last)
        write_case(out, name, "noise-512x1024", model, noise(1, 512, 1024, seed=8),
                   "half of Cityscapes' size", keep=STAGES + last)
        del model


# ------------------------------------------------------------------------------------------------- the model


def build(name, spec, seed, pictures=None):
    """PaddleSeg's model with random weights, scaled on the pictures that flow through it (noise if none are given)."""
    base, layers, spp, heads, head, cross, injection, classes = spec
    model = RTFormer(num_classes=classes, layer_nums=layers, base_channels=base, spp_channels=spp, num_heads=heads,
                     head_channels=head, use_injection=injection, cross_size=cross)
    model.eval()
    Randomise(model, np.random.default_rng(seed)).on(noise(2, 192, 256, seed=seed) if pictures is None else pictures)
    count = sum(int(np.prod(p.shape)) for p in model.state_dict().values())
    print(f"{name}: {count} numbers, {len(model.state_dict())} tensors")
    return model


class Randomise:
    """Draws every weight and norm statistic, in the order of the forward pass.

    A hook before each norm and after each conv inspects the feature there and chooses a fitting magnitude.
    """

    def __init__(self, model, rng):
        self.model, self.rng, self.met, self.hooks = model, rng, set(), []
        for layer in model.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                self.hooks.append(layer.register_forward_pre_hook(self.norm))
            if isinstance(layer, paddle.nn.Conv2D):
                layer.weight.set_value(rng.standard_normal(layer.weight.shape, dtype=np.float32))
                self.hooks.append(layer.register_forward_post_hook(self.conv))
        for block in (model.layer4, model.layer5):
            low, high = block.attn_l, block.attn_h
            for p in (low.k, low.v):
                p.set_value(rng.standard_normal(p.shape, dtype=np.float32))
            self.hooks += [
                low.norm.register_forward_post_hook(lambda _, args, y, low=low: self.keys(low, y)),
                low.register_forward_post_hook(lambda _, args, y, low=low: scale(low.v, to_rms(y, 1.0)) * y),
                high.register_forward_pre_hook(lambda _, args, block=block: self.cross_keys(block, *args)),
                high.register_forward_post_hook(lambda _, args, y, block=block: self.cross_values(block, y)),
            ]

    def on(self, x):
        seen = {}
        tap = self.model.layer3_.register_forward_post_hook(lambda _, args, y: seen.update(x3_=y))
        self.model(paddle.to_tensor(x))
        self.model.seghead_extra(seen["x3_"])  # the auxiliary head: in the file, never run
        self.model.seghead.conv2.weight.set_value(self.model.seghead.conv2.weight * 3)  # spread the logits
        for hook in self.hooks + [tap]:
            hook.remove()
        for block in (self.model.layer4, self.model.layer5):
            signs = np.sign(block.cross_kv[0].weight.numpy())
            assert (signs < 0).any() and (signs > 0).any(), "cross_kv's norm must have both signs"

    def norm(self, layer, args):
        if id(layer) in self.met:
            return
        self.met.add(id(layer))
        x, rng = args[0].numpy(), self.rng
        c, axes = x.shape[1], (0, 2, 3)
        # The variance has a lower bound, or a channel that hardly varies here (a global mean) would be amplified.
        mean, var = x.mean(axes), np.maximum(x.var(axes), 0.1 * x.var())
        draw = lambda low, high: rng.uniform(low, high, c)
        layer._mean.set_value((mean + 0.3 * np.sqrt(var) * rng.standard_normal(c)).astype(np.float32))
        layer._variance.set_value((var * np.exp(draw(-0.4, 0.4))).astype(np.float32))
        layer.weight.set_value((draw(0.6, 1.4) * np.where(rng.random(c) < 0.25, -1, 1)).astype(np.float32))
        layer.bias.set_value((0.3 * rng.standard_normal(c)).astype(np.float32))

    def conv(self, layer, _args, y):
        y = y * scale(layer.weight, 1 / float(y.std()))
        if layer.bias is None:
            return y
        bias = 0.3 * self.rng.standard_normal(layer.bias.shape, dtype=np.float32)
        layer.bias.set_value(bias)
        return y + paddle.to_tensor(bias).reshape([1, -1, 1, 1])

    def keys(self, attention, normed):
        """Scales the scores to std 2, so that the softmax over pixels is neither flat nor a single pixel."""
        scale(attention.k, to_rms(F.conv2d(normed, attention.k), 2.0))

    def cross_keys(self, block, x, cross_k, cross_v):
        """Scales the scores between the pooled positions to std 2 (a common offset does not affect the softmax)."""
        n, (h, w), places = x.shape[0], x.shape[2:], block.cross_size**2
        score = F.conv2d(block.attn_h.norm(x).reshape([1, -1, h, w]), cross_k, groups=n).reshape([n, places, h, w])
        factor = to_rms(score - score.mean(axis=1, keepdim=True), 2.0 * places**0.5)
        scale(block.cross_kv[2].weight, factor, slice(0, block.out_channels_h))
        return x, cross_k * factor, cross_v

    def cross_values(self, block, y):
        return y * scale(block.cross_kv[2].weight, to_rms(y, 1.0), slice(block.out_channels_h, None))


def scale(parameter, factor, rows=slice(None)):
    value = parameter.numpy().copy()
    value[rows] *= np.float32(factor)
    parameter.set_value(value)
    return factor


def to_rms(x, wanted):
    return wanted / float((x * x).mean().sqrt())


def noise(n, h, w, seed):
    """Noise with structure at every scale; otherwise the pools would return zero everywhere. Normalised input: std about 1."""
    rng = np.random.default_rng(seed)
    x = 0.7 * rng.standard_normal((n, 3, h, w), dtype=np.float32)
    for cell in (4, 16, 64):
        coarse = rng.standard_normal((n, 3, -(-h // cell) + 1, -(-w // cell) + 1), dtype=np.float32)
        x += 0.6 * F.interpolate(paddle.to_tensor(coarse), size=[h, w], mode="bilinear").numpy()
    return x


def photo_input(path, h, w):
    photo = Image.open(path).convert("RGB").resize((w, h), Image.BILINEAR)
    x = functional.normalize(np.asarray(photo), np.array(MEAN), np.array(STD))
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


# ----------------------------------------------------------------------------------------------- the records


def run(model, x, parts=False):
    """The stages of one forward pass, each copied when it is made, because PaddleSeg adds in place."""
    seen = {}

    def put(*names):
        def hook(_layer, _args, out):
            for name, t in zip(names, out if isinstance(out, (list, tuple)) else [out]):
                seen[name] = t.numpy().copy()
        return hook

    taps = {
        "conv1": ["stem"], "layer1": ["x1"], "layer2": ["x2"], "layer3": ["x3"], "layer3_": ["x3_"],
        "layer4": ["x4_", "x4"], "layer5": ["x5_", "x5"], "spp": ["x6"], "seghead": ["logits8"],
    }
    if parts:
        inner = ["attn_shortcut_l", "attn_l", "mlp_l", "compression", "cross_kv", "attn_h", "mlp_h", "down"]
        taps |= {f"layer4.{p}": [f"layer4.{p}"] for p in inner}
        taps |= {f"spp.{p}": [f"spp.{p}"] for p in ["scale0", "process1", "process2", "process3", "process4"]}
        taps |= {"compression3": ["compression3"]}
    layers = dict(model.named_sublayers())
    hooks = [layers[path].register_forward_post_hook(put(*names)) for path, names in taps.items()]
    logits = model(paddle.to_tensor(x))[0]
    for hook in hooks:
        hook.remove()
    seen["x1"] = np.maximum(seen["x1"], 0)  # our engine keeps only the rectified x1
    seen["logits"] = logits.numpy()
    seen["mask"] = mask(logits)
    return seen


def mask(logits):
    """The classes as PaddleSeg's `inference` picks them, one byte each: [n, h, w]."""
    return paddle.argmax(logits, axis=1, dtype="int32").numpy().astype(np.uint8)


def write_case(out, name, case, model, x, why, keep=None, parts=False):
    seen = run(model, x, parts)
    keep = keep or STAGES + ["logits", "mask"]
    if parts:
        keep = keep + [k for k in seen if k not in keep]
    path = out / f"{name}.{case}.safetensors"
    report(path.name, seen, rounding(model, x, seen) if x.size < 500_000 else {})
    save(path, {"input": x} | {k: seen[k] for k in keep},
         {"weights": f"{name}.safetensors", "why": why, "margin": f"{margin(seen['logits']):.1e}"})


def margin(logits):
    """The closest call in the mask: the best logit minus the second best. Smaller errors than half of it change no pixel."""
    best = np.partition(logits, -2, axis=1)
    return float((best[:, -1] - best[:, -2]).min())


def rounding(model, x, seen):
    """The difference between this float32 pass and the same pass in float64, as a share of the stage's std."""
    model.to(dtype="float64")
    exact = run(model, x.astype(np.float64))
    model.to(dtype="float32")
    share = lambda k: float(np.abs(exact[k] - seen[k]).max() / exact[k].std())
    return {k: share(k) for k in STAGES + ["logits"]} | {"mask": float((exact["mask"] != seen["mask"]).sum())}


def report(title, seen, error):
    print(f"  {title}")
    for name in STAGES + ["logits"]:
        x = seen[name]
        assert np.isfinite(x).all() and x.dtype == np.float32, name
        assert x.size < 64 or 0.1 < x.std() < 30, (name, x.std())
        note = f"   float32 from float64: {error[name]:.1e} of std" if error else ""
        print(f"    {name:8} {str(list(x.shape)):20} std {x.std():7.3f}  min {x.min():8.2f}  max {x.max():8.2f}{note}")
    counts = np.bincount(seen["mask"].ravel())
    changed = f"   pixels that differ in float64: {error['mask']:.0f}" if error else ""
    print(f"    mask     {(counts > 0).sum()} classes, largest {counts.max() / counts.sum():.0%}, "
          f"closest call {margin(seen['logits']):.1e}{changed}")


def save(path, tensors, metadata):
    """Writes a safetensors file by hand: the library shuffles the metadata, but equal runs should write equal bytes."""
    kinds = {"float64": "F64", "float32": "F32", "float16": "F16", "uint8": "U8"}
    header, data, end = {"__metadata__": metadata}, [], 0
    for name, x in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):  # widest first, for alignment
        start, end = end, end + x.nbytes
        header[name] = {"dtype": kinds[x.dtype.name], "shape": list(x.shape), "data_offsets": [start, end]}
        data.append(x.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


def write_weights(out, name, model, spec):
    keys = ["base_channels", "layer_nums", "spp_channels", "num_heads", "head_channels", "cross_size",
            "use_injection", "num_classes"]
    classes = spec[-1]
    metadata = {
        "config": json.dumps(dict(zip(keys, spec))),
        "classes": json.dumps([f"class {i}" for i in range(classes)]),
        "palette": json.dumps([[i * 37 % 256, i * 91 % 256, i * 151 % 256] for i in range(classes)]),
        "mean": json.dumps(MEAN, separators=(",", ":")),
        "std": json.dumps(STD, separators=(",", ":")),
        "dataset": "golden",
        "source": "random numbers, tests/data/reference.py",
        "license": "CC0-1.0",
    }
    save(out / f"{name}.safetensors", {k: v.numpy() for k, v in model.state_dict().items()}, metadata)


# -------------------------------------------------------------------------------------------------- the photo


def write_photo(out, name, model):
    """From a file to a mask with the steps of PaddleSeg's `predict`: read, BGR to RGB, resize, normalise, run, back."""
    path = out / "photo.png"
    ways = {
        "plain": [],
        "stretch": [Resize(target_size=(75, 83), keep_ratio=False)],  # smaller one way, larger the other
        "fit": [Resize(target_size=(120, 51), keep_ratio=True)],  # 76.5x51, and Python rounds 76.5 to 76
    }
    tensors = {"photo": np.asarray(Image.open(path).convert("RGB"))}
    for way, resize in ways.items():
        data = Compose(resize + [Normalize(mean=MEAN, std=STD)])({"img": str(path)})
        assert data["img"].dtype == np.float32
        pred, logits = infer.inference(model, paddle.to_tensor(data["img"][None]), trans_info=data["trans_info"])
        tensors[f"{way}.input"] = data["img"][None]
        tensors[f"{way}.logits"] = logits.numpy()
        tensors[f"{way}.mask"] = pred.numpy()[:, 0].astype(np.uint8)
        closest = margin(logits.numpy())
        print(f"  photo {way}: input {data['img'].shape}, logits {list(logits.shape)}, closest call {closest:.1e}")
    save(out / "photo.safetensors", tensors, {
        "weights": f"{name}.safetensors",
        "photo": "photo.png",
        "why": "PaddleSeg's own preprocessing; resized logits go back to the photo's size before the argmax",
    })


def write_augmented(out, name):
    """The photo with mirrored and scaled versions, through PaddleSeg's `aug_inference` and the weights in `out`."""
    model = RTFormer(num_classes=SMALL[name][-1], **arguments(SMALL[name]))
    model.eval()
    weights = read(out / f"{name}.safetensors")
    assert weights.keys() == model.state_dict().keys()
    model.set_state_dict({key: paddle.to_tensor(value) for key, value in weights.items()})
    fit = [Resize(target_size=(120, 51), keep_ratio=True)]
    ways = {
        "flip": ([], True, [1.0]),
        "scales": ([], False, [0.75, 1.0, 1.25]),  # 72x48, 96x64 and 120x80
        "fit": (fit, True, [0.75, 1.25]),  # of 76x51: 57x38 and 95x64
    }
    tensors = {}
    for way, (resize, flip, scales) in ways.items():
        data = Compose(resize + [Normalize(mean=MEAN, std=STD)])({"img": str(out / "photo.png")})
        pred, logits = infer.aug_inference(model, paddle.to_tensor(data["img"][None]), data["trans_info"], scales=scales, flip_horizontal=flip)
        if way != "flip":
            tensors[f"{way}.logits"] = logits.numpy()
        tensors[f"{way}.mask"] = pred.numpy()[:, 0].astype(np.uint8)
        print(f"  photo, {way}: closest call {margin(logits.numpy()):.1e}")
    save(out / "photo_augmented.safetensors", tensors, {
        "weights": f"{name}.safetensors",
        "photo": "photo.png",
        "why": "PaddleSeg's aug_inference: the mean of the logits of mirrored and scaled versions",
    })


def arguments(spec):
    base, layers, spp, heads, head, cross, injection, _ = spec
    return dict(layer_nums=layers, base_channels=base, spp_channels=spp, num_heads=heads, head_channels=head,
                use_injection=injection, cross_size=cross)


def read(path):
    """The f32 tensors of a safetensors file that `save` wrote."""
    file = path.read_bytes()
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header.pop("__metadata__")
    take = lambda entry: np.frombuffer(file[start:][slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
    return {name: take(entry) for name, entry in header.items()}


# ------------------------------------------------------------------------------------------------ the pickles


def write_pickles(out):
    """A few tensors in every dialect of `.pdparams` that we can write; their values are also in pickle.safetensors."""
    rng = np.random.default_rng(11)
    values = OrderedDict([
        ("conv.weight", rng.standard_normal((3, 2, 3, 3)).astype(np.float32)),
        ("norm._mean", rng.standard_normal(300).astype(np.float32)),  # longer than the 255 of the short opcodes
        ("half", rng.standard_normal((2, 5)).astype(np.float16)),
        ("double", rng.standard_normal(4)),
        ("scalar", np.array(0.25, np.float32)),
        ("one", np.array([[[[-1.5]]]], np.float32)),
    ])
    tensors = OrderedDict((k, paddle.to_tensor(v)) for k, v in values.items())
    for protocol in (2, 3, 4):
        paddle.save(tensors, str(out / f"pickle.p{protocol}.pdparams"), protocol=protocol)
    # Checkpoints written with numpy before 2 name the same function by its old module.
    rebuild = np.array(0).__reduce__()[0]
    module, rebuild.__module__ = rebuild.__module__, "numpy.core.multiarray"
    for protocol in (2, 4):
        paddle.save(tensors, str(out / f"pickle.p{protocol}.numpy1.pdparams"), protocol=protocol)
    rebuild.__module__ = module
    table = {"StructuredToParameterName@@": {k: f"parameter_{i}" for i, k in enumerate(values)}}
    (out / "pickle.p5.pdparams").write_bytes(pickle.dumps(dict(values) | table, protocol=5))
    columns = {k: np.asfortranarray(v) for k, v in values.items()}
    (out / "pickle.p4.fortran.pdparams").write_bytes(pickle.dumps(columns | table, protocol=4))
    save(out / "pickle.safetensors", values, {"why": "the values in every pickle.*.pdparams"})


if __name__ == "__main__":
    main()
