"""Measure an explainer on photos that it was not trained on, and on parts of the training photos, with negative controls.

    rtformer explain CAMVID/train --labels CAMVID/train_labels --weights net.safetensors --emit table -o table
    python explain.py table --weights net.safetensors --out explained.safetensors
    python explain_goals.py --rtformer rtformer --data CAMVID --weights explained.safetensors --table table --work work

`--fits 0` skips what needs further training (without a quarter of the photos, without single clips, on shuffled labels), which takes five times as long as explain.py.
"""

import argparse
import csv
import json
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor

import explain
from explain import LENGTH, Counter, Generator, Table, macro_f1

ENOUGH = 20  # held-out regions that a rule must match for its held-out precision to be measured
WRONG = 0.05  # share of regions that get a wrong label
SOFTNESS = 0.1  # temperature of the soft minimum


def load(path: Path, table: Table) -> Generator:
    """The generator in a weights file, as the program computes it."""
    header, data = explain.read_safetensors(path)
    kinds = {"F32": np.float32, "I8": np.int8}

    def tensor(name: str) -> Tensor:
        info = header[f"explainer.{name}"]
        numbers = np.frombuffer(data[slice(*info["data_offsets"])], kinds[info["dtype"]]).reshape(info["shape"])
        numbers = torch.from_numpy(numbers.astype(np.float32))
        return numbers * tensor(name + ".scale")[:, None] if info["dtype"] == "I8" else numbers

    generator = Generator(table.atoms.shape[1], table.hidden)
    with torch.no_grad():
        gru, encoder, head = generator.gru, generator.encoder, generator.head
        for own, name in [
            (generator.mean, "mean"), (generator.std, "std"), (encoder.weight, "encoder.weight"), (encoder.bias, "encoder.bias"),
            (gru.weight_ih, "gru.weight_ih"), (gru.weight_hh, "gru.weight_hh"), (gru.bias_ih, "gru.bias_ih"), (gru.bias_hh, "gru.bias_hh"),
            (head.weight, "head.weight"), (head.bias, "head.bias"), (generator.embedding, "embedding.weight"),
        ]:  # fmt: skip
            own.copy_(tensor(name))
    return generator.eval()


def tree(atoms: np.ndarray, labels: np.ndarray, classes: int, depth: int = 4):
    """A decision tree by Gini impurity: a class, or an atom and the trees where it does not hold and where it does."""
    counts = np.bincount(labels, minlength=classes)
    if depth == 0 or counts.max() == len(labels):
        return int(counts.argmax())
    onehot = np.eye(classes)[labels]
    yes = atoms.T.astype(np.float64) @ onehot
    no = counts - yes
    purity = lambda of: (of**2).sum(1) / np.maximum(of.sum(1), 1e-9)
    best = int((purity(yes) + purity(no)).argmax())
    holds = atoms[:, best]
    if not holds.any() or holds.all():
        return int(counts.argmax())
    return best, tree(atoms[~holds], labels[~holds], classes, depth - 1), tree(atoms[holds], labels[holds], classes, depth - 1)


def classify(node, atoms: np.ndarray) -> np.ndarray:
    if isinstance(node, int):
        return np.full(len(atoms), node)
    atom, no, yes = node
    return np.where(atoms[:, atom], classify(yes, atoms), classify(no, atoms))


def random_rules(table: Table, counter: Counter, like: Tensor, support: int) -> Tensor:
    """True atoms at random, as many as each rule of `like` has, with at least the support."""
    made = torch.full_like(like, counter.atoms)
    lengths = (like < counter.atoms).sum(1)
    for row, (holds, length) in enumerate(zip(table.atoms, lengths.tolist())):
        matching, used = torch.ones(counter.regions, dtype=torch.bool), 0
        for atom in torch.nonzero(holds).flatten()[torch.randperm(int(holds.sum()))].tolist():
            if used == length:
                break
            found = matching & counter.holds[atom]
            if support <= int(found.sum()) < int(matching.sum()):
                made[row, used], matching, used = atom, found, used + 1
    return made


class Measured:
    """Rules for held-out regions, with their exact counts."""

    def __init__(self, table: Table, counter: Counter, made: Tensor):
        self.table, self.counter, self.made = table, counter, made
        self.counts = counter.by_class(made)
        self.guess = self.counts.argmax(1)
        self.stated = self.counts.max(1).values / self.counts.sum(1)

    def f1(self) -> float:
        return 100 * macro_f1(self.table.labels, self.guess, self.counter.classes)

    def network(self) -> float:
        return 100 * macro_f1(self.table.labels, self.table.seen, self.counter.classes)

    def accuracy(self) -> float:
        return 100 * (self.guess == self.table.labels).float().mean().item()

    def agreement(self) -> float:
        return 100 * (self.guess == self.table.seen).float().mean().item()

    def gap(self) -> tuple[float, float]:
        """The mean gap between the stated and the held-out precision of a printed rule, and the share of rules for which it is measured."""
        rules, times = torch.unique(self.made.sort(1).values, dim=0, return_counts=True)
        counts = self.counter.by_class(rules)
        held = torch.cat([self.table.atoms.T, torch.ones(1, len(self.table.labels), dtype=torch.bool)])
        total = weight = 0.0
        for rule, count, n in zip(rules, counts, times.tolist()):
            matching = held[rule[0]] & held[rule[1]] & held[rule[2]] & held[rule[3]]
            if int(matching.sum()) >= ENOUGH:
                held_out = (self.table.labels[matching] == count.argmax()).float().mean()
                total += n * abs((count.max() / count.sum() - held_out).item())
                weight += n
        return 100 * total / max(weight, 1), 100 * weight / len(self.made)


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive has a higher score than a negative; ties count half."""
    order = np.argsort(score, kind="stable")
    values = score[order]
    ranks = np.empty(len(score))
    _, first, counts = np.unique(values, return_index=True, return_counts=True)
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    n = positive.sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def components(mask: np.ndarray) -> np.ndarray:
    """Connected components, numbered from 1 in the order of their first pixels, by runs and union-find."""
    height, width = mask.shape
    parents: list[int] = []

    def root(of: int) -> int:
        while parents[of] != of:
            parents[of] = parents[parents[of]]
            of = parents[of]
        return of

    of = np.zeros(mask.shape, int)
    above: list[tuple[int, int, int]] = []
    for y in range(height):
        ends = np.flatnonzero(np.diff(mask[y])) + 1
        starts = [0, *ends.tolist()]
        runs = []
        at = 0
        for start, end in zip(starts, [*starts[1:], width]):
            number = len(parents)
            parents.append(number)
            while at < len(above) and above[at][1] <= start:
                at += 1
            k = at
            while k < len(above) and above[k][0] < end:
                if mask[y - 1, above[k][0]] == mask[y, start]:
                    a, b = root(above[k][2]), root(number)
                    parents[max(a, b)] = min(a, b)
                k += 1
            runs.append((start, end, number))
            of[y, start:end] = number
        above = runs
    roots = np.array([root(i) for i in range(len(parents))])
    return np.unique(roots[of], return_inverse=True)[1].reshape(mask.shape)


def softmin(args, table: Table, wrong: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The soft minimum, over a region's pixels, of the likelihood that the network gives to the pixel's label.

    Source: Lad and Mueller, "Estimating label quality and errors in semantic segmentation data via any model", 2023.
    """
    likelihoods = np.ones(len(table.photos))
    rows = defaultdict(list)
    for row, photo in enumerate(table.photos):
        rows[photo].append(row)
    temperature = float(explain.read_safetensors(args.weights)[0]["__metadata__"].get("temperature", 1))
    for photo, indices in rows.items():
        run(args, "segment", args.data / f"val/{photo}.jpg", "-o", args.work / "logits", "--emit", "logits", "--overwrite")
        path = args.work / f"logits/{photo}.logits.npy"
        logits = np.load(path)
        path.unlink()
        likelihood = F.softmax(torch.from_numpy(logits) / temperature, 0).numpy()
        labels = np.asarray(Image.open(args.data / f"val_labels/{photo}.png")).astype(int)
        parts = components(logits.argmax(0))
        sizes = np.bincount(parts.ravel())
        large = np.flatnonzero(sizes >= 64)
        superpixels = np.asarray(Image.open(args.work / f"val/superpixels/{photo}.png")).astype(int)
        for row in indices:
            region = int(table.ids[row])
            inside = parts == large[region - 1] if region <= len(large) else superpixels == region
            truth = np.full(inside.sum(), given[row]) if wrong[row] else labels[inside]
            known = truth < len(table.classes)
            p = likelihood[:, inside][truth[known], np.flatnonzero(known)]
            weights = np.exp((1 - p) / SOFTNESS)
            if known.any():
                likelihoods[row] = (weights * p).sum() / weights.sum()
    return likelihoods


def run(args, *command) -> None:
    """Runs the program, which must succeed."""
    subprocess.run([args.rtformer, *map(str, command), "--weights", args.weights, "--quiet"], check=True)


def regions(folder: Path) -> dict[str, list[dict]]:
    return {path.name.removesuffix(".rules.json"): json.loads(path.read_text())["regions"] for path in sorted(folder.glob("*.rules.json"))}


def overlap(a: list[int], b: list[int]) -> float:
    """The intersection of two boxes over their union."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def stability(args) -> dict[str, tuple[float, float]]:
    """For each change, the mean Jaccard index of the atoms, and the share of regions that are found again."""
    original = regions(args.work / "val")
    found = {}
    for name, change in {
        "JPEG 75": lambda photo: photo,
        "brightness + 10 %": lambda photo: ImageEnhance.Brightness(photo).enhance(1.1),
        "brightness - 10 %": lambda photo: ImageEnhance.Brightness(photo).enhance(0.9),
        "shift by a pixel": lambda photo: Image.fromarray(np.pad(np.asarray(photo), ((0, 0), (1, 0), (0, 0)), mode="edge")[:, :-1]),
    }.items():
        folder = args.work / name.replace(" ", "-").replace("%", "percent")
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "in").mkdir(parents=True)
        stems = sorted(original)[::4]
        for stem in stems:
            photo = change(Image.open(args.data / f"val/{stem}.jpg").convert("RGB"))
            if name == "JPEG 75":
                photo.save(folder / f"in/{stem}.jpg", quality=75)
            else:
                photo.save(folder / f"in/{stem}.png")
        run(args, "explain", folder / "in", "-o", folder / "out", "--emit", "json")
        changed = regions(folder / "out")
        same, total, again = [], 0, 0
        for stem in stems:
            for region in original[stem]:
                total += 1
                others = [r for r in changed[stem] if r["kind"] == region["kind"] and r["class"] == region["class"]]
                best = max(others, key=lambda r: overlap(r["bbox"], region["bbox"]), default=None)
                if best is None or overlap(best["bbox"], region["bbox"]) < 0.5:
                    continue
                again += 1
                a, b = ({atom["atom"] for atom in r["rule"]} for r in (region, best))
                same.append(len(a & b) / max(len(a | b), 1))
        found[name] = (float(np.mean(same)), again / total)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtformer", default="rtformer", help="the program")
    parser.add_argument("--data", type=Path, required=True, help="CamVid")
    parser.add_argument("--weights", type=Path, required=True, help="the weights with the explainer")
    parser.add_argument("--table", type=Path, required=True, help="the training table")
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate files")
    parser.add_argument("--fits", type=int, default=1, help="0: skip what needs further training")
    explain.training(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)

    shutil.rmtree(args.work / "val", ignore_errors=True)
    run(args, "explain", args.data / "val", "--labels", args.data / "val_labels", "-o", args.work / "val", "--emit", "table,json")
    trained, val = Table.read(args.table), Table.read(args.work / "val")
    counter, generator = Counter(trained), load(args.weights, trained)
    say = lambda name, value: print(f"{name:58} {value}", flush=True)

    # The rules that the program printed, and those that Python computes from the same tensors.
    number = {name: i for i, name in enumerate(val.names)}
    printed_of = {(stem, r["id"]): [number[a["atom"]] for a in r["rule"]] for stem, rs in regions(args.work / "val").items() for r in rs}
    printed = torch.tensor([(printed_of[key] + [counter.atoms] * LENGTH)[:LENGTH] for key in zip(val.photos, val.ids.tolist())])
    own = explain.rules(generator, counter, val.hidden, val.atoms, args.support)
    measured = Measured(val, counter, printed)
    say("regions: training, val", f"{counter.regions}, {len(val.photos)}")
    say("rules that Python computes identically", f"{100 * (printed == own).all(1).float().mean():.1f} %")
    say("macro F1 on val: rules", f"{measured.f1():.1f}")
    say("macro F1 on val: network", f"{measured.network():.1f}")
    grown = tree(trained.atoms.numpy(), trained.labels.numpy(), counter.classes)
    say("macro F1 on val: decision tree of depth 4", f"{100 * macro_f1(val.labels, torch.from_numpy(classify(grown, val.atoms.numpy())), counter.classes):.1f}")
    say("accuracy on val: rules", f"{measured.accuracy():.1f} %")
    gap, share = measured.gap()
    say(f"gap between stated and held-out precision, mean (for {share:.0f} %)", f"{gap:.1f} points")
    say("stated precision, mean", f"{100 * measured.stated.mean():.1f} %")
    say("agreement of rule and network on val", f"{measured.agreement():.1f} %")
    say("atoms of a rule, mean; training regions that match, median", f"{(printed < counter.atoms).sum(1).float().mean():.2f}; {measured.counts.sum(1).median():.0f}")
    say("different rules", f"{len(torch.unique(printed.sort(1).values, dim=0))}")

    # Wrong labels.
    chance = np.random.default_rng(args.seed)
    truth = val.labels.numpy()
    wrong = chance.random(len(truth)) < WRONG
    given = np.where(wrong, (truth + chance.integers(1, counter.classes, len(truth))) % counter.classes, truth)
    likelihood = (measured.counts + 1) / (measured.counts.sum(1, keepdim=True) + counter.classes)
    by_rule = likelihood[torch.arange(len(given)), torch.from_numpy(given)].numpy()
    by_network = softmin(args, val, wrong, given)
    say(f"AUROC of {wrong.sum()} wrong labels: ranking (rule and network)", f"{auroc(-by_rule * by_network, wrong):.4f}")
    say("AUROC of wrong labels: rules alone", f"{auroc(-by_rule, wrong):.4f}")
    say("AUROC of wrong labels: soft-min of the network alone", f"{auroc(-by_network, wrong):.4f}")

    for name, (jaccard, again) in stability(args).items():
        say(f"Jaccard index of atoms, {name} ({100 * again:.0f} % found again)", f"{jaccard:.2f}")
    times = [json.loads(path.read_text())["explain_ms"] for path in (args.work / "val").glob("*.rules.json")]
    say("additional time for a photo: minimum, median", f"{min(times):.1f}, {np.median(times):.1f} ms")

    # Negative controls.
    some = torch.randperm(len(val.photos))[:2000]
    part = val.where(np.isin(np.arange(len(val.photos)), some.numpy()))
    order = torch.arange(len(val.photos))[np.isin(np.arange(len(val.photos)), some.numpy())]
    say("macro F1 on 2000 regions of val: rules", f"{Measured(part, counter, printed[order]).f1():.1f}")
    say("control: random true atoms, as many", f"{Measured(part, counter, random_rules(part, counter, printed[order], args.support)).f1():.1f}")
    shuffled = explain.rules(generator, counter, part.hidden[torch.randperm(len(order))], part.atoms, args.support)
    say("control: features of another region", f"{Measured(part, counter, shuffled).f1():.1f}")
    if not args.fits:
        return
    quiet = lambda text: None
    mixed = trained.where(np.ones(len(trained.photos), bool))
    mixed.labels = mixed.labels[torch.randperm(len(mixed.labels))]
    fitted, _, mixed_counter, _ = explain.fit(mixed, args, quiet)
    guessed = Measured(part, mixed_counter, explain.rules(fitted, mixed_counter, part.hidden, part.atoms, args.support))
    say("control: trained on shuffled labels: macro F1, accuracy", f"{guessed.f1():.1f}, {guessed.accuracy():.1f} %")
    say("  the most frequent label's share", f"{100 * torch.bincount(part.labels).max() / len(part.labels):.1f} %")
    clip = np.array([photo.split("_")[0] for photo in trained.photos])
    # Successive frames are almost equal, so a block of eight photos is held out whole.
    photos = {photo: i for i, photo in enumerate(sorted(set(trained.photos)))}
    quarter = np.array([photos[photo] // 8 % 4 == 3 for photo in trained.photos])
    for name, held_out in [("every fourth block", quarter), *((name, clip == name) for name in np.unique(clip))]:
        fitted, _, others, _ = explain.fit(trained.where(~held_out), args, quiet)
        held = trained.where(held_out)
        alone = Measured(held, others, explain.rules(fitted, others, held.hidden, held.atoms, args.support))
        gap, share = alone.gap()
        say(f"{name}, explainer trained without it: rules, network", f"{alone.f1():.1f}, {alone.network():.1f}")
        say(f"{name}: agreement; gap (for {share:.0f} %)", f"{alone.agreement():.1f} %; {gap:.1f} points")


if __name__ == "__main__":
    main()
