"""Runs one peer in its own process: reads a line of JSON, does what it asks, and answers with a line.

        {"do": "check", "logits": FILE.npy}                     runs once, and compares the answer with our logits
        {"do": "compare", "theirs": FILE.npy, "logits": FILE.npy}   compares two files
        {"do": "time", "warmup": W, "runs": K}                  milliseconds of each run

    Between lines it sleeps on the pipe, so that it takes no CPU time from the engine being measured.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class OnnxRuntime:
    """Input and output are bound once, so that a run copies nothing and touches no page for the first time."""

    def __init__(self, args: argparse.Namespace, frame: np.ndarray):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = args.threads
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(str(args.graph), options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        output = self.session.get_outputs()[0]
        kind = {"tensor(float)": np.float32, "tensor(int64)": np.int64}[output.type]
        self.output = ort.OrtValue.ortvalue_from_numpy(np.zeros(output.shape, kind))
        self.frame = frame  # bound, not copied: it must live as long as the binding
        self.input = ort.OrtValue.ortvalue_from_numpy(frame)
        self.binding.bind_ortvalue_input(self.session.get_inputs()[0].name, self.input)
        self.binding.bind_ortvalue_output(output.name, self.output)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def result(self) -> np.ndarray:
        return self.output.numpy()

    def times(self, runs: int) -> list[float]:
        return [milliseconds(self.run) for _ in range(runs)]


class OpenVino:
    """With the throughput hint, as many frames run at once as OpenVINO recommends; otherwise one."""

    def __init__(self, args: argparse.Namespace, frame: np.ndarray):
        import openvino as ov

        config = {
            "INFERENCE_PRECISION_HINT": args.precision,
            "PERFORMANCE_HINT": args.hint.upper(),
            "INFERENCE_NUM_THREADS": args.threads,
        }
        model = ov.Core().compile_model(str(args.graph), "CPU", config)
        taken = str(model.get_property("INFERENCE_PRECISION_HINT"))
        if args.precision not in taken and {"f32": "float", "bf16": "bfloat16"}[args.precision] not in taken:
            raise RuntimeError(f"requested {args.precision}, but OpenVINO chose {taken}")
        count = model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if args.hint == "throughput" else 1
        self.frame = frame  # shared, not copied: it must live as long as the requests
        self.requests = [model.create_infer_request() for _ in range(count)]
        for request in self.requests:
            request.set_input_tensor(ov.Tensor(frame, shared_memory=True))

    def run(self) -> None:
        self.requests[0].infer()

    def result(self) -> np.ndarray:
        return self.requests[0].get_output_tensor().data

    def times(self, runs: int) -> list[float]:
        if len(self.requests) == 1:
            return [milliseconds(self.run) for _ in range(runs)]

        def all_at_once() -> None:
            for request in self.requests:
                request.start_async()
            for _ in range(runs - 1):
                for request in self.requests:
                    request.wait()
                    request.start_async()
            for request in self.requests:
                request.wait()

        return [milliseconds(all_at_once) / (runs * len(self.requests))] * runs


ENGINES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def milliseconds(work) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def prepared(photo: Path) -> np.ndarray:
    """Normalises like PaddleSeg: each step is rounded to float32."""
    pixels = np.asarray(Image.open(photo).convert("RGB"), np.float32) / np.float32(255)
    pixels = ((pixels - MEAN).astype(np.float32) / STD).astype(np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def compared(theirs: np.ndarray, ours: np.ndarray) -> dict:
    """The difference between an answer and our logits: the largest difference for logits, the share of equal pixels for masks."""
    mask = ours.argmax(axis=0)
    if theirs.shape == mask.shape:
        return {"agreement": float((theirs == mask).mean())}
    relative = np.abs(theirs - ours).max() / np.abs(ours).max()
    return {"relative": float(relative), "agreement": float((theirs.argmax(axis=0) == mask).mean())}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--hint", choices=["latency", "throughput"], default="latency")
    return parser.parse_args()


def main() -> None:
    # The libraries may print anything; only answers go into the pipe.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    args = arguments()
    engine = ENGINES[args.engine](args, prepared(args.photo))
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "check":
            engine.run()
            answer = compared(engine.result()[0], np.load(order["logits"]))
        elif order["do"] == "compare":
            answer = compared(np.load(order["theirs"]), np.load(order["logits"]))
        else:
            if order["warmup"]:
                engine.times(order["warmup"])
            answer = {"ms": engine.times(order["runs"])}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
