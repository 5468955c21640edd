"""The table of the measurements of `peers.py`, as Markdown. The README shows it; only this script generates it."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

READ_OUTS = {"logits": "network → full-size logits", "mask": "network → mask"}
LIBRARIES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def of(results: dict) -> str:
    """All tables, with a sentence about their origin."""
    cells = {}
    for timing in results["timings"]:
        cells.setdefault((timing["graph"], timing["model"], timing["size"]), []).append(timing["blocks_ms"])
    parts = [source(results)]
    for graph in READ_OUTS:
        columns = {key[1:]: cells[key] for key in sorted(cells, key=place) if key[0] == graph}
        if columns:
            parts.append(times(READ_OUTS[graph], columns, results["versions"]))
    parts += [peak(results["memory"], results["versions"])] if results.get("memory") else []
    if results.get("first_mask_ms"):
        ms = median(results["first_mask_ms"])
        parts.append(f"From the start of `rtformer segment` to the mask of one 480x360 photo on the disk: {ms:.0f} ms.")
    return "\n\n".join(parts)


def place(cell: tuple[str, str, str]) -> tuple:
    """The sort key of a column, independent of the order of measurement: slim before base, small before large."""
    _, model, size = cell
    width, height = map(int, size.split("x"))
    return model != "slim", model, width * height


def source(results: dict) -> str:
    machine, repeats = results["machine"], {}
    for timing in results["timings"]:
        key = timing["graph"], timing["model"], timing["size"]
        repeats[key] = repeats.get(key, 0) + 1
    fewest, most = min(repeats.values()), max(repeats.values())
    runs = f"{fewest} to {most} runs" if fewest < most else f"{most} run{'s' * (most > 1)}"
    caches = machine.get("caches")
    l2 = f", L2 {caches['l2_bytes'] >> 10} KB" if caches else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {results['threads']} threads, {results['instruction_set']}{l2}; "
        f"{results['date']}, commit {results['commit']}; milliseconds, medians of {runs} of `make peers`."
    )


def times(title: str, columns: dict, versions: dict) -> str:
    """A row per engine, a column per model and size; under each precision, our speedup over the fastest peer."""
    present = [name for blocks in columns.values() for name in blocks[0]]
    rows = [f"| {title} | " + " | ".join(f"{model.capitalize()} {size}" for model, size in columns) + " |"]
    rows.append("| --- |" + " ---: |" * len(columns))
    for precision in ("f32", "bf16"):
        here = [name for name in dict.fromkeys(present) if precision in name.split()]
        for label, names in grouped(here, versions).items():
            cell = lambda blocks: " / ".join(shown(typical(blocks, name)) for name in names)
            rows.append(f"| {label} | " + " | ".join(cell(blocks) for blocks in columns.values()) + " |")
        if f"rtformer {precision}" in here:
            peers = [name for name in here if not name.startswith("rtformer")]
            ratios = [f"**{speedup(blocks, peers, f'rtformer {precision}'):.2f}x**" for blocks in columns.values()]
            rows.append("| speedup over the fastest | " + " | ".join(ratios) + " |")
    return "\n".join(rows)


def grouped(names: list[str], versions: dict) -> dict[str, list[str]]:
    """Row labels and the engines in each row: both hints of a library share one.

    >>> grouped(["openvino f32 latency", "openvino f32 throughput", "rtformer f32"], {"openvino": "2026.4.1"})
    {'OpenVINO 2026.4.1, f32, latency / throughput': ['openvino f32 latency', 'openvino f32 throughput'], \
'**rtformer, f32**': ['rtformer f32']}
    """
    rows = {}
    for name in names:
        library, precision, *_ = name.split()
        rows.setdefault((library, precision), []).append(name)
    labels = {}
    for (library, precision), members in rows.items():
        if library == "rtformer":
            labels[f"**rtformer, {precision}**"] = members
            continue
        hints = " / ".join(member.split()[2] for member in members if len(member.split()) > 2)
        labels[", ".join(filter(None, [f"{LIBRARIES[library]} {versions[library]}", precision, hints]))] = members
    return labels


def typical(repeats: list[dict], name: str) -> float:
    """The median over repeats of the median over rounds.

    >>> typical([{"a": [1, 2, 9]}, {"a": [4, 4, 4]}, {"a": [3, 3, 3]}], "a")
    3
    """
    return median(median(blocks[name]) for blocks in repeats)


def speedup(repeats: list[dict], peers: list[str], ours: str) -> float:
    """The median ratio of the fastest peer's time to ours per round, so that whatever slowed a whole round cancels out.

    >>> speedup([{"a": [4, 40, 4], "b": [6, 60, 6], "us": [2, 20, 4]}], ["a", "b"], "us")
    2.0
    """
    fastest = min(peers, key=lambda name: typical(repeats, name))
    return median(median(a / b for a, b in zip(blocks[fastest], blocks[ours])) for blocks in repeats)


def shown(milliseconds: float) -> str:
    """Formats with three digits.

    >>> [shown(ms) for ms in (9.876, 98.76, 987.6)]
    ['9.88', '98.8', '988']
    """
    digits = 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:.{digits}f}"


def peak(memory: dict, versions: dict) -> str:
    graphs = list(memory)
    rows = ["| peak resident memory, Slim 2048x1024, MB | " + " | ".join(READ_OUTS[graph] for graph in graphs) + " |"]
    rows.append("| --- |" + " ---: |" * len(graphs))
    for label, (name, *_) in grouped(list(memory[graphs[0]]), versions).items():
        label = label.removesuffix(", latency")
        rows.append(f"| {label} | " + " | ".join(f"{memory[graph][name] / 1e6:.0f}" for graph in graphs) + " |")
    return "\n".join(rows)


@dataclass(frozen=True)
class Marks:
    """Two comments; only `command` writes between them."""

    begin: str
    end: str
    command: str

    def put(self, text: str, readme: Path) -> None:
        """Replaces the text between the marks."""
        before, _, after = self.parts(readme)
        readme.write_text(f"{before}{self.begin}\n\n{text}\n\n{self.end}{after}")

    def check(self, text: str, readme: Path) -> None:
        if self.parts(readme)[1].strip() != text:
            raise SystemExit(f"error: {readme} does not show the measured figures; run `{self.command}`")

    def parts(self, readme: Path) -> tuple[str, str, str]:
        """The text before, between and after the marks."""
        before, begin, rest = readme.read_text().partition(self.begin)
        between, end, after = rest.partition(self.end)
        if not begin or not end:
            raise SystemExit(f"error: {readme} has no `{self.begin}` followed by `{self.end}`")
        return before, between, after


MARKS = Marks("<!-- peers: made by `make peers-table` -->", "<!-- /peers -->", "make peers-table")
