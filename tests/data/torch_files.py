#!/usr/bin/env python3
"""Write `golden/torch.*.pth`: the tensors of `golden/pickle.safetensors` as PyTorch saves them.

    python tests/data/torch_files.py

Requirements: pip install torch==2.15.0 (CPU is enough). Run it after `reference.py small`.
"""

import io
import json
import struct
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path, PurePosixPath

import numpy
import torch

GOLDEN = Path(__file__).parent / "golden"
DTYPES = {"F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def read(path):
    """The tensors of a safetensors file."""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = OrderedDict()
    for name, info in sorted(header.items()):
        first, last = (start + offset for offset in info["data_offsets"])
        tensor = torch.frombuffer(bytearray(data[first:last]), dtype=DTYPES[info["dtype"]])
        tensors[name] = tensor.reshape(info["shape"]).clone()
    return tensors


def main():
    state = read(GOLDEN / "pickle.safetensors")
    # PyTorch's own names, and the counter that only PyTorch has.
    state["norm.running_mean"] = state.pop("norm._mean")
    state["norm.num_batches_tracked"] = torch.tensor(1234)
    # As in `Module.state_dict`: versions are stored as an attribute.
    state._metadata = OrderedDict({"": {"version": 1}, "norm": {"version": 2}})
    torch.save(state, GOLDEN / "torch.pth")

    # What a training script writes: the state dictionary among other things, with its tensors as parameters.
    parameters = OrderedDict((name, torch.nn.Parameter(t) if t.is_floating_point() else t) for name, t in state.items())
    optimizer = {
        "state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3, 2, 3, 3)}},
        "param_groups": [{"lr": 0.01, "betas": (0.9, 0.999), "foreach": None, "nesterov": False, "params": [0]}],
    }
    script = {"epoch": 3, "best": 0.75, "state_dict": parameters, "optimizer": optimizer}
    torch.save(script, GOLDEN / "torch.script.pth")

    # Views: one tensor in the middle of a longer storage, one whose storage is column by column, one in bfloat16.
    views = OrderedDict(state)
    views["double"] = torch.cat([torch.ones(5, dtype=torch.float64), state["double"]])[5:]
    views["half"] = state["half"].t().contiguous().t()
    views["brain"] = torch.tensor([[0.5, -1.25, 3.0]], dtype=torch.bfloat16)
    torch.save(views, GOLDEN / "torch.views.pth")

    # Channels last, as some networks are trained: a view whose storage is in neither order.
    views["conv.weight"] = state["conv.weight"].to(memory_format=torch.channels_last)
    torch.save(OrderedDict({"conv.weight": views["conv.weight"]}), GOLDEN / "torch.channels_last.pth")

    # A training script's checkpoint: two networks (only the tensors that identify them), one averaged, and the other contents.
    network = OrderedDict(
        (name, torch.full(shape, value))
        for name, shape, value in [
            ("conv1.0.weight", (2, 3, 3, 3), 0.5),
            ("conv1.1.running_mean", (2,), 0.25),
            ("conv1.1.running_var", (2,), 1.5),
            ("conv1.1.num_batches_tracked", (), 7),
            ("spp.scale0.2.weight", (2, 1, 1, 1), 2.0),
            ("seghead.conv1.weight", (2, 2, 3, 3), 3.0),
            ("seghead.conv2.weight", (2, 2, 1, 1), 4.0),
        ]
    )
    averaged = OrderedDict((name, value * 2) for name, value in network.items())
    averaged["seghead_extra.conv1.weight"] = averaged["seghead.conv1.weight"]  # one array, two names
    wrapped = OrderedDict(("module._orig_mod." + name, value) for name, value in network.items())
    settings = Namespace(lr=0.01, name="tiny", steps=[1, 2], device=torch.device("cpu"), folder=PurePosixPath("runs/1"))
    training = {
        "epoch": 3,
        "best": numpy.float64(0.5),
        "args": settings,
        "model": wrapped,
        "model_ema": averaged,
        "optimizer": optimizer,
        "scheduler": {"milestones": Counter({30: 1}), "last": [0.1], "seen": {1, 2}},
        "history": defaultdict(list, {"loss": [1.0, 0.5]}),
    }
    torch.save(training, GOLDEN / "torch.training.pth")
    # Files that people mistake for checkpoints.
    torch.save(optimizer, GOLDEN / "torch.optimizer.pth")
    torch.save({"w": torch.ones(2)}, GOLDEN / "torch.legacy.pth", _use_new_zipfile_serialization=False)
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(1, 1, 1)), script)
    with zipfile.ZipFile(script) as whole, zipfile.ZipFile(GOLDEN / "torch.script.pt", "w") as small:
        for part in whole.infolist():
            if not part.filename.endswith(".debug_pkl"):  # contains paths of the machine
                small.writestr(part, whole.read(part))


if __name__ == "__main__":
    main()
