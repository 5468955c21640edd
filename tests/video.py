"""The long measurements of `rtformer video`: `make video`. Needs ffmpeg; takes about five minutes.

usage: python3 tests/video.py RTFORMER [memory] [throughput] [realtime] [smoothing]
"""

import json
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


def smoothing():
    """The flip rate of a fixed camera: a still photo with sensor noise, and a pasted car that moves; with and without smoothing."""
    with tempfile.TemporaryDirectory() as folder:
        clip = f"{folder}/fixed.mkv"
        moving = (
            "[1]crop=90:60:200:200[car];[0]loop=loop=-1:size=1,fps=25[still];[still][car]overlay=x='mod(n*6,480)':y=230:eof_action=repeat,"
            "noise=alls=4:allf=t"
        )
        photos = [str(STREET / "0016E5_07959.jpg"), str(STREET / "0016E5_08007.jpg")]
        make = ["ffmpeg", "-v", "error", "-y", "-i", photos[0], "-i", photos[1], "-filter_complex", moving]
        subprocess.run([*make, "-frames:v", "60", "-c:v", "ffv1", "-pix_fmt", "bgr0", clip], check=True)
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


if __name__ == "__main__":
    PROGRAM = sys.argv[1]
    for name in sys.argv[2:] or ["memory", "throughput", "realtime", "smoothing"]:
        globals()[name]()
