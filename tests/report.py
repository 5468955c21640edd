"""Opens a report of `rtformer eval` in Chromium and checks it: `make report`.

usage: python3 tests/report.py RTFORMER [FOLDER_FOR_SCREENSHOTS]

Needs Chromium, and Pillow for the photos. Set the environment variable CAMVID (a folder with `val` and `val_labels`) to use real photos. In two window
widths, light and dark, and once with a data set of many photos, it checks: no request leaves the page, no console message, no horizontal
scrolling of the page, keyboard and buttons move the sliders, every control has a name and can be focused, texts have enough contrast,
without JavaScript all pictures are visible, and the file is below 3 MB for 100 photos.
"""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}


class Browser:
    """Chromium, over its pipe: JSON messages that end with a zero byte."""

    def __init__(self, profile):
        program = shutil.which("chromium") or shutil.which("google-chrome")
        (read, self.to), (self.of, write) = os.pipe(), os.pipe()

        def files():
            # Both ends are first moved away from 3 and 4, which they might be.
            high = [os.dup2(fd, fd + 200) for fd in (read, write)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            command, preexec_fn=files, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read), os.close(write)
        self.number, self.rest, self.events = 0, b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            sys.exit(f"{method}: {answer['error']}")
        return answer["result"]

    def receive(self):
        while b"\0" not in self.rest:
            self.rest += os.read(self.of, 1 << 20)
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def run(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def key(self, name, code):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def open(self, page, width, height, dark, script=True):
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def shot(self, path, full=False):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}} if full else {}
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full, **clip)
        path.write_bytes(base64.b64decode(picture["data"]))


def check(holds, what):
    if not holds:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


# The smallest contrast between a text and what is behind it (WCAG 2), and the text.
CONTRAST = """(() => {
  const rgb = (text) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => color.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgb(getComputedStyle(node).backgroundColor);
      if (color[3] > 0) return color;
    }
    return [255, 255, 255, 255];
  };
  let worst = [99, ""];
  const walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || node.closest("svg")) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, walk.currentNode.data.trim()];
  }
  return worst;
})()"""


def data_set(folder, copies):
    """Photos and labels: CamVid's validation split, or the photos of the tests with their own masks, slightly moved, as labels."""
    if camvid := os.environ.get("CAMVID"):
        return pathlib.Path(camvid) / "val", pathlib.Path(camvid) / "val_labels"
    from PIL import Image, ImageChops

    photos, labels = folder / "photos", folder / "labels"
    photos.mkdir(), labels.mkdir()
    street = sorted((ROOT / "tests/data/street").rglob("*.jpg"))
    for number in range(copies):
        shutil.copy(street[number % len(street)], photos / f"{number:03}.jpg")
    subprocess.run([PROGRAM, "segment", photos, "-o", labels, "--emit", "mask", "-q"], check=True)
    for number, path in enumerate(sorted(labels.glob("*.png"))):
        ImageChops.offset(Image.open(path), 1 + number % 9, 2).save(path)
    return photos, labels


def outside(events):
    """The addresses that were requested, other than the page and what it contains."""
    sent = [event["params"]["request"]["url"] for event in events if event.get("method") == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("data:", "file:"))] + [url for url in sent if url.startswith("file:")][1:]


def messages(events):
    kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return [event for event in events if event.get("method") in kinds]


def check_page(browser, page, shots, size, dark):
    (name, (width, height)), mode = size, "dark" if dark else "light"
    browser.open(page, width, height, dark)
    at = f"{name}, {mode}"
    check(browser.run("document.documentElement.scrollWidth") <= width, f"{at}: the page does not scroll sideways")
    broken = browser.run("[...document.images].filter((image) => !image.complete || !image.naturalWidth).length")
    check(broken == 0, f"{at}: all {browser.run('document.images.length')} pictures are decoded")
    ratio, text = browser.run(CONTRAST)
    check(ratio >= 4.5, f"{at}: smallest contrast {ratio:.2f} (`{text}`), at least 4.5")
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    check((sum(json.loads(f"[{background[4:-1]}]")) < 380) == dark, f"{at}: the background is {background}")

    # By keyboard: from the page's start, Tab reaches every control; arrows, Home and End move the slider.
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    wanted, reached = browser.run("document.querySelectorAll('input, button, [tabindex]').length"), set()
    for _ in range(wanted + 2):
        browser.key("Tab", 9)
        reached.add(browser.run("[...document.querySelectorAll('input, button, [tabindex]')].indexOf(document.activeElement)"))
    check(len(reached - {-1}) == wanted, f"{at}: Tab reaches all {wanted} controls and scrolling regions")
    browser.run("document.querySelector('input[type=range]').focus()")
    state = "(() => { const r = document.querySelector('input[type=range]'), s = document.querySelector('.stack'); return [Number(r.value)," \
        " r.getAttribute('aria-valuetext'), s.style.getPropertyValue('--label'), s.style.getPropertyValue('--mask')]; })()"
    steps = [("Home", 36, [0, "photo", "0%", "0%"]), ("End", 35, [200, "mask", "100%", "100%"]),
             ("ArrowLeft", 37, [195, "5 % label, 95 % mask", "100%", "95%"])]
    for key, code, want in steps:
        browser.key(key, code)
        check(browser.run(state) == want, f"{at}: {key} moves the slider to {want[1]}")
    browser.run("document.querySelectorAll('.photo button')[1].focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    browser.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)
    check(browser.run(state)[1] == "label", f"{at}: Enter on a button shows the label")
    browser.run("document.querySelector('#mark').click()")
    shown = browser.run("getComputedStyle(document.querySelector('.wrong')).display")
    check(shown == "block", f"{at}: the checkbox marks wrong pixels")
    browser.run("document.querySelector('#mark').click()")
    browser.run("for (const r of document.querySelectorAll('input[type=range]')) { r.value = 50; r.dispatchEvent(new Event('input')); }")
    browser.shot(shots / f"{name}-{mode}.png", full=True)
    check(not outside(browser.events), f"{at}: no requests: {outside(browser.events)}")
    check(not messages(browser.events), f"{at}: no console messages: {messages(browser.events)}")


def main():
    global PROGRAM
    PROGRAM = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shots = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else folder / "shots"
        shots.mkdir(parents=True, exist_ok=True)
        photos, labels = data_set(folder, 100)
        page = folder / "report.html"
        command = [PROGRAM, "eval", "--images", photos, "--labels", labels, "--report", page, "-q", "--json", "--size", "within:240x180"]
        measures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        check(page.stat().st_size < 3_000_000, f"{page.stat().st_size / 1e6:.2f} MB for {measures['images']} photos, below 3 MB")
        browser = Browser(folder / "profile")
        for size in WIDTHS.items():
            for dark in (False, True):
                check_page(browser, page, shots, size, dark)
        browser.open(page, *WIDTHS["wide"], dark=False, script=False)
        browser.shot(shots / "without-javascript.png", full=True)
        check(not messages(browser.events), "without JavaScript: no console messages")
        browser.call("Browser.close")
        browser.process.wait(timeout=30)


main()
