"""The time that Python adds to a call of the library: python bench/overhead.py [--size 480x360] [--calls 200] [--threads N]

Both times are of the same call, so that other programs on the machine slow both: the whole call, and what the library itself
reports for its stages (`Scene.timings`). The difference is the copy of the frame, the result's memory, and the way through the interpreter.
"""

import argparse
import statistics
import time

import numpy as np

import rtformer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="480x360", help="width and height of the frame in pixels")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    seg = rtformer.Segmenter(device="cpu", threads=args.threads)
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    frames = {"packed": frame, "BGR view": frame[:, :, ::-1]}
    print(seg)
    print(f"{args.size}, medians of {args.calls} calls in ms")
    print(f"{'frame':10} {'call':>8} {'library':>8} {'added':>8} {'share':>7}")
    for name, frame in frames.items():
        whole, own = [], []
        for i in range(args.calls + 10):
            start = time.perf_counter()
            scene = seg(frame)
            scene.mask
            spent = 1000 * (time.perf_counter() - start)
            if i >= 10:
                whole.append(spent)
                own.append(scene.timings.total)
        added = statistics.median(a - b for a, b in zip(whole, own, strict=True))
        library = statistics.median(own)
        print(f"{name:10} {statistics.median(whole):8.2f} {library:8.2f} {added:8.3f} {added / library:7.2%}")


if __name__ == "__main__":
    main()
