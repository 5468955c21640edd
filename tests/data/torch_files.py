#!/usr/bin/env python3
"""Write `golden/torch.*.pth`: the tensors of `golden/pickle.safetensors` as PyTorch saves them.

    python tests/data/torch_files.py

Requirements: pip install torch==2.15.0 (CPU is enough). Run it after `reference.py small`.
"""

import json
import struct
from collections import OrderedDict
from pathlib import Path

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
    # As `Module.state_dict` does: versions ride along as an attribute.
    state._metadata = OrderedDict({"": {"version": 1}, "norm": {"version": 2}})
    torch.save(state, GOLDEN / "torch.pth")

    # What a training script writes: the state dictionary among other things, its tensors still parameters.
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

    # Channels last, as some train: neither order, which we refuse.
    views["conv.weight"] = state["conv.weight"].to(memory_format=torch.channels_last)
    torch.save(OrderedDict({"conv.weight": views["conv.weight"]}), GOLDEN / "torch.channels_last.pth")


if __name__ == "__main__":
    main()
