"""The long measurements of `rtformer video`: `make video`. Needs ffmpeg; takes about five minutes.

usage: python3 tests/video.py RTFORMER [memory] [throughput] [realtime] [smoothing] [reuse] [accuracy]

`accuracy` needs the environment variable CAMVID: a folder with `val` and `val_labels`, whose frames are a video of 15 frames per second.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STREET = ROOT / "tests/data/street"
TINY = ROOT / "tests/data/golden/tiny.safetensors"


def start(source, arguments, **more):
    """`ffmpeg` with a lavfi source or input arguments, piped as y4m into `rtformer video -`."""
    read = ["ffmpeg", "-v", "error", "-nostdin", *source, "-f", "yuv4mpegpipe", "-"]
    sender = subprocess.Popen(read, stdout=subprocess.PIPE)
    ours = subprocess.Popen([PROGRAM, "video", "-", "-q", *arguments], stdin=sender.stdout, stdout=subprocess.PIPE, **more)
    sender.stdout.close()
    return sender, ours


def street(rate, frames, pace=""):
    """Input arguments for a clip of the street photos, repeated. With the filter `realtime` as `pace`, at its own speed."""
    repeat = f"loop=loop=-1:size=4,settb=1/{rate},setpts=N{pace}"
    return ["-framerate", str(rate), "-pattern_type", "glob", "-i", f"{STREET}/*.jpg", "-vf", repeat, "-frames:v", str(frames)]


def percentile(numbers, percent):
    return sorted(numbers)[round((len(numbers) - 1) * percent / 100)]


def memory():
    """Resident memory at frame 100 and at frame 10,000."""
    source = ["-f", "lavfi", "-i", "testsrc=size=96x72:rate=1000:duration=10.1,format=yuv420p"]
    sender, ours = start(source, ["--weights", str(TINY), "--json", "--smooth", "0.8"], text=True)
    seen = {}
    for number, _ in enumerate(ours.stdout, 1):
        if number in (100, 10_000):
            status = pathlib.Path(f"/proc/{ours.pid}/status").read_text()
            seen[number] = int(status.split("VmRSS:")[1].split()[0]) / 1024
    assert ours.wait() == 0 and sender.wait() == 0 and number == 10_100, number
    grown = seen[10_000] - seen[100]
    print(f"memory: {seen[100]:.1f} MB at frame 100, {seen[10_000]:.1f} MB at frame 10,000 ({grown:+.1f})")
    assert grown <= 20


def speed():
    """Frames per second of the stage `mask`."""
    arguments = ["--photo", str(STREET / "0016E5_07959.jpg"), "--weights", "embedded", "--stages", "mask", "--runs", "30", "--json", "-"]
    report = subprocess.run([PROGRAM, "bench", "-q", *arguments], check=True, capture_output=True).stdout
    return json.loads(report)["stages"]["mask"]["fps"]


def throughput():
    """Sustained frames per second with the output `-`, relative to the stage `mask`, measured before and after."""
    before = speed()
    sender, ours = start(street(25, 150), ["-o", "-"])
    times = []
    frame = 6 + 3 * 480 * 360
    ours.stdout.readline()
    while len(ours.stdout.read(frame)) == frame:
        times.append(time.monotonic())
    assert ours.wait() == 0 and sender.wait() == 0 and len(times) == 150, len(times)
    sustained = 139 / (times[-1] - times[10])
    mask = (before + speed()) / 2
    print(f"throughput: {sustained:.1f} frames/s, {sustained / mask:.2f} of the stage mask ({mask:.1f})")


def realtime():
    """A source at twice our speed for a minute: ages, their slope, and drops."""
    rate = round(2 * speed())
    sender, ours = start(street(rate, 60 * rate, ",realtime"), ["--realtime", "--json"], text=True)
    rows, arrived = [], []
    for line in ours.stdout:
        rows.append(json.loads(line))
        arrived.append(time.monotonic())
    assert ours.wait() == 0 and sender.wait() == 0
    frame = 1e3 * (arrived[-1] - arrived[0]) / (len(rows) - 1)
    ages, p95 = [row["age_ms"] for row in rows], percentile([row["age_ms"] for row in rows], 95)
    mean = sum(ages) / len(ages)
    x = [n - (len(ages) - 1) / 2 for n in range(len(ages))]
    slope = sum(a * b for a, b in zip(x, ages)) / sum(a * a for a in x)
    total = rows[-1]["frame"]
    dropped = rows[-1]["dropped_total"]
    print(
        f"realtime: source {rate} frames/s, ours {1e3 / frame:.1f}; age median {percentile(ages, 50):.1f}, p95 {p95:.1f}, p99 "
        f"{percentile(ages, 99):.1f} ms; p95 is {p95 / frame:.2f} frame times; over the minute the age changed by "
        f"{100 * slope * len(ages) / mean:+.1f} %; dropped {100 * dropped / total:.1f} % of {total}"
    )


def fixed_camera(clip, x, frames=60):
    """A clip of a still photo with sensor noise, and a pasted car at the horizontal position `x`, an expression of FFmpeg."""
    moving = (
        f"[1]crop=90:60:200:200[car];[0]loop=loop=-1:size=1,fps=25[still];[still][car]overlay=x='{x}':y=230:eof_action=repeat,"
        "noise=alls=4:allf=t"
    )
    photos = [str(STREET / "0016E5_07959.jpg"), str(STREET / "0016E5_08007.jpg")]
    make = ["ffmpeg", "-v", "error", "-y", "-i", photos[0], "-i", photos[1], "-filter_complex", moving]
    subprocess.run([*make, "-frames:v", str(frames), "-c:v", "ffv1", "-pix_fmt", "bgr0", clip], check=True)


def smoothing():
    """The flip rate of a fixed camera with and without smoothing."""
    with tempfile.TemporaryDirectory() as folder:
        clip = f"{folder}/fixed.mkv"
        fixed_camera(clip, "mod(n*6,480)")
        rates = {}
        for strength in ("0", "0.5", "0.8", "0.9"):
            output = subprocess.run(
                [PROGRAM, "video", clip, "-q", "--json", "--smooth", strength], check=True, capture_output=True
            )
            flips = [json.loads(line)["flip_rate"] for line in output.stdout.splitlines()[1:]]
            rates[strength] = sum(flips) / len(flips)
        plain = rates["0"]
        text = ", ".join(f"S {s}: {100 * rate:.3f} % ({100 * (rate / plain - 1):+.0f} %)" for s, rate in rates.items())
        print(f"smoothing: flip rate of a fixed camera with noise: {text}")


def cpu_time(arguments):
    """Runs the program; returns what it prints, and its CPU time in seconds, which depends less on other programs than the time."""
    ours = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE)
    printed = ours.stdout.read()
    _, status, used = os.wait4(ours.pid, 0)
    assert status == 0
    return printed, used.ru_utime + used.ru_stime


def reuse():
    """What `--reuse` saves, and the pixels that differ from those of the frames' own masks."""
    with tempfile.TemporaryDirectory() as folder:
        clip = f"{folder}/clip.mkv"
        pan = ["-loop", "1", "-i", str(STREET / "0016E5_07959.jpg"), "-vf", "crop=416:312:n:20", "-frames:v", "60"]
        videos = {
            "a fixed camera, a car for a third of the time": lambda: fixed_camera(clip, "if(lt(n,20),24*n,-200)"),
            "a fixed camera, a car all the time": lambda: fixed_camera(clip, "mod(n*6,480)"),
            "a camera that moves by one pixel": lambda: subprocess.run(
                ["ffmpeg", "-v", "error", "-y", *pan, "-c:v", "ffv1", "-pix_fmt", "bgr0", clip], check=True
            ),
        }
        for name, make in videos.items():
            make()
            common = ["video", clip, "-q"]
            rows, spent = cpu_time([*common, "--json"])
            reusing, less = cpu_time([*common, "--json", "--reuse"])
            reused = [json.loads(row)["reused"] for row in reusing.splitlines()]
            views = [cpu_time([*common, "-o", "-", "--view", "mask", *more])[0] for more in ([], ["--reuse"])]
            own, kept = (view.split(b"FRAME\n")[1:] for view in views)
            wrong = [differing(a, b) for a, b in zip(own, kept, strict=True)]
            # The same for the mask of the frame before, which is what noise and motion change.
            flicker = [differing(a, b) for a, b, again in zip(own[1:], own, reused[1:]) if again]
            print(
                f"reuse: {name}: {100 * sum(reused) / len(reused):.0f} % of {len(reused)} frames reused, CPU time {spent:.1f} -> {less:.1f} s "
                f"({100 * (less / spent - 1):+.0f} %)"
            )
            if flicker:
                print(
                    f"reuse: {100 * sum(wrong) / sum(reused):.2f} % of the pixels of a reused mask differ from the frame's own; "
                    f"{100 * sum(flicker) / len(flicker):.2f} % differ between the own masks of neighbouring frames"
                )


def differing(a, b):
    """The share of pixels that differ in two frames of three planes."""
    n = len(a) // 3
    planes = zip(a[:n], a[n : 2 * n], a[2 * n :], b[:n], b[n : 2 * n], b[2 * n :])
    return 0 if a == b else sum(p[:3] != p[3:] for p in planes) / n


def accuracy():
    """The mean IoU and the flip rate of a labelled video of a moving car, with and without smoothing."""
    camvid = pathlib.Path(os.environ["CAMVID"])
    for strength in ("0", "0.5", "0.8", "0.9"):
        arguments = ["--video", str(camvid / "val"), "--labels", str(camvid / "val_labels"), "--smooth", strength, "--json"]
        report = json.loads(subprocess.run([PROGRAM, "eval", "-q", *arguments], check=True, capture_output=True).stdout)
        print(
            f"accuracy: S {strength}: mean IoU {100 * report['miou']:.2f} %, flip rate {100 * report['flip_rate']:.3f} %, "
            f"{report['images']} frames"
        )


if __name__ == "__main__":
    PROGRAM = sys.argv[1]
    for name in sys.argv[2:] or ["memory", "throughput", "realtime", "smoothing", "reuse"] + ["accuracy"] * ("CAMVID" in os.environ):
        globals()[name]()
