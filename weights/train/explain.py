"""Train the explainer of a weights file: rules over regions, after SELOR (Lee et al., arXiv:2210.07024).

    rtformer explain TRAIN --labels TRAIN_LABELS --weights net.safetensors --emit table -o table
    python explain.py table --weights net.safetensors --out explained.safetensors

The table is all that it learns from; atoms are defined in Rust. Two networks are trained:

1. The consequent estimator, a small transformer, reads an antecedent (one to four atoms) and predicts the classes of the training regions
   that match it, their deviation, and how many there are. It learns from sampled antecedents, whose counts are exact, and is then frozen.
2. The antecedent generator, a GRU, reads a region's features and emits atoms that hold for it. It learns atom by atom first: the exact
   counts say how likely the region's label would be after each possible atom. Then it learns whole antecedents through the frozen
   estimator, by straight-through Gumbel-softmax; the loss is the likelihood of the region's label under the estimated consequent. An
   antecedent keeps at least --support training regions.

The output holds the generator and one bitset per atom, from which the program counts. The estimator is needed for training only.
"""

import argparse
import csv
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORMAT = 1
LENGTH = 4  # the most atoms of a rule
WIDTH = 128  # of the generator
CANNOT = -1e9  # the score of an atom that is not allowed
NOT_ALLOWED = -1.0  # its share


@dataclass
class Table:
    """The regions of `regions.csv`, without those that have no label."""

    about: dict
    photos: list[str]
    ids: np.ndarray  # [n]
    seen: Tensor  # [n] the network's classes
    labels: Tensor  # [n]
    pixels: Tensor  # [n]
    values: Tensor  # [n, features] f32
    atoms: Tensor  # [n, atoms] bool
    hidden: Tensor  # [n, channels] f32

    @property
    def names(self) -> list[str]:
        return [atom["atom"] for atom in self.about["atoms"]]

    @property
    def classes(self) -> list[str]:
        return self.about["classes"]

    @staticmethod
    def read(folder: Path, unlabelled: bool = False) -> "Table":
        about = json.loads((folder / "atoms.json").read_text())
        number = {name: i for i, name in enumerate(about["classes"])}
        photos, ids, seen, labels, pixels, rows = [], [], [], [], [], []
        with open(folder / "regions.csv", newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            header = next(lines)
            for line in lines:
                if not line[3] and not unlabelled:
                    continue
                photos.append(line[0])
                ids.append(int(line[1]))
                seen.append(number[line[2]])
                labels.append(number.get(line[3], -1))
                pixels.append(int(line[4]))
                rows.append(np.array(line[5:], dtype=np.float32))
        columns = header[5:]
        data = np.stack(rows)
        of = lambda kind: torch.from_numpy(data[:, [i for i, name in enumerate(columns) if name.startswith(kind)]])
        atoms = [name[2:] for name in columns if name.startswith("a_")]
        if atoms != [atom["atom"] for atom in about["atoms"]]:
            raise SystemExit(f"{folder}: regions.csv and atoms.json name different atoms; emit the table again")
        as_tensor = lambda numbers: torch.tensor(numbers, dtype=torch.long)
        return Table(about, photos, np.array(ids), as_tensor(seen), as_tensor(labels), as_tensor(pixels), of("f_"), of("a_") > 0.5, of("h_"))

    def where(self, keep: np.ndarray) -> "Table":
        """The regions for which `keep` is true."""
        index = torch.from_numpy(np.flatnonzero(keep))
        photos = [photo for photo, kept in zip(self.photos, keep) if kept]
        of = lambda tensor: tensor[index]
        return Table(self.about, photos, self.ids[keep], of(self.seen), of(self.labels), of(self.pixels), of(self.values), of(self.atoms), of(self.hidden))


class Counter:
    """Exact counts over the training regions. The atom after the last is NULL, which holds for all."""

    def __init__(self, table: Table):
        n, self.atoms = table.atoms.shape
        self.regions, self.classes = n, len(table.classes)
        self.holds = torch.cat([table.atoms.T, torch.ones(1, n, dtype=torch.bool)]).contiguous()
        self.wide = table.atoms.float()
        self.labels = F.one_hot(table.labels, self.classes).float()
        self.prior = self.labels.mean(0)

    def matches(self, antecedents: Tensor) -> Tensor:
        """`[b, length]` atoms → `[b, n]`: whether each region matches."""
        found = self.holds[antecedents[:, 0]].clone()
        for i in range(1, antecedents.shape[1]):
            found &= self.holds[antecedents[:, i]]
        return found

    def by_class(self, antecedents: Tensor, batch: int = 512) -> Tensor:
        """`[b, length]` atoms → `[b, classes]`: how many regions match, by label."""
        return torch.cat([self.matches(some).float() @ self.labels for some in antecedents.split(batch)])


def sample(table: Table, counter: Counter, count: int, support: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Antecedents, and their counts by class: one to four atoms that hold together for some region of a class; every class is equally frequent.

    Most of the first half prefer atoms that speak for the class. The second half varies those antecedents that are most precise for each
    class, several times over. The generator will emit such antecedents, so the estimator must know them.
    """
    null = counter.atoms
    lift = (counter.wide.T @ counter.labels + 1e-3) / (counter.wide.sum(0)[:, None] * counter.prior + 1e-3)  # [atoms, classes]
    of_class = [torch.nonzero(table.labels == c).flatten() for c in range(counter.classes)]
    usable = [c for c, regions in enumerate(of_class) if len(regions) >= support]
    found, counted = [], []

    def keep(atoms: Tensor, most: int) -> None:
        counts = counter.by_class(atoms)
        index = torch.nonzero(counts.sum(1) >= support).flatten()[:most]
        found.append(atoms[index])
        counted.append(counts[index])

    while sum(map(len, found)) < count // 2:
        b = 4096
        classes = torch.tensor(usable)[torch.randint(len(usable), (b,), generator=chance)]
        regions = torch.stack([of_class[c][torch.randint(len(of_class[c]), (1,), generator=chance)[0]] for c in classes.tolist()])
        greed = torch.randint(0, 6, (b, 1), generator=chance)
        noise = -torch.log(-torch.log(torch.rand(b, null, generator=chance).clamp(1e-9, 1 - 1e-7)))
        score = greed * lift[:, classes].T.log() + noise
        score = score.masked_fill(~table.atoms[regions], CANNOT)
        atoms = score.topk(LENGTH, dim=1).indices
        length = torch.randint(1, LENGTH + 1, (b, 1), generator=chance)
        atoms = atoms.masked_fill(torch.arange(LENGTH) >= length, null)
        keep(atoms, b)
    rounds = 4
    for _ in range(rounds):
        known, counts = torch.cat(found), torch.cat(counted)
        shares = counts / counts.sum(1, keepdim=True)
        each = count // (2 * rounds * len(usable))
        for c in usable:
            best = known[shares[:, c].topk(min(len(known), 3 * each)).indices]
            best = best[torch.randint(len(best), (3 * each // 2,), generator=chance)]
            # Another atom that holds for a region of the class, in a random place.
            region = of_class[c][torch.randint(len(of_class[c]), (len(best),), generator=chance)]
            atom = torch.multinomial(table.atoms[region].float(), 1, generator=chance)
            place = torch.randint(LENGTH, (len(best), 1), generator=chance)
            varied = torch.where((best == atom).any(1, keepdim=True), best, best.scatter(1, place, atom))
            keep(varied, each)
    return torch.cat(found), torch.cat(counted)


class Estimator(nn.Module):
    """Reads an antecedent as a set of atoms; NULL fills the rest."""

    def __init__(self, atoms: int, classes: int, width: int = 64):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(atoms + 1, width) * 0.3)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        head = lambda outputs: nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))
        self.classes, self.deviation, self.coverage = head(classes), head(1), head(1)

    def forward(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[b, length, atoms + 1]`, one atom each → logits of the classes, deviation, and the logit of the coverage."""
        x = self.encoder(chosen @ self.embedding).mean(1)
        return self.classes(x), self.deviation(x).squeeze(1).exp(), self.coverage(x).squeeze(1)


def pretrain(estimator: Estimator, antecedents: Tensor, counts: Tensor, regions: int, epochs: int, log) -> None:
    """Learns the exact class shares, deviation and coverage of the antecedents, and is frozen."""
    n = counts.sum(1, keepdim=True)
    shares = counts / n
    deviation = (shares * (1 - shares)).sum(1).sqrt()
    coverage = n.squeeze(1) / regions
    batch = 512
    steps = epochs * math.ceil(len(antecedents) / batch)
    optimizer = torch.optim.AdamW(estimator.parameters(), 2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(antecedents)).split(batch):
            chosen = F.one_hot(antecedents[index], estimator.embedding.shape[0]).float()
            logits, off, covered = estimator(chosen)
            loss = F.kl_div(logits.log_softmax(1), shares[index], reduction="batchmean")
            loss = loss + (off - deviation[index]).square().mean()
            loss = loss + 0.1 * (F.logsigmoid(covered) - coverage[index].log()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
        log(f"estimator, epoch {epoch + 1}: loss {total / len(antecedents):.4f}")
    estimator.requires_grad_(False).eval()


class Generator(nn.Module):
    """Three layers of one width; see `src/explain/generator.rs`, which computes the same."""

    def __init__(self, atoms: int, hidden: Tensor):
        super().__init__()
        self.register_buffer("mean", hidden.mean(0))
        self.register_buffer("std", hidden.std(0).clamp(min=1e-3))
        self.encoder = nn.Linear(hidden.shape[1], WIDTH)
        self.gru = nn.GRUCell(WIDTH, WIDTH)
        self.embedding = nn.Parameter(torch.randn(atoms, WIDTH) * 0.1)
        self.head = nn.Linear(WIDTH, atoms + 1)

    def start(self, hidden: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        x = (hidden - self.mean) / self.std
        if noise:
            x = F.dropout(x + noise * torch.randn_like(x), noise)
        region = self.encoder(x).relu()
        return region, torch.zeros_like(region)

    def next(self, region: Tensor, state: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        """`last` is the chosen atom, `[b, atoms]`; returns the state and the scores, the last of which is the end's."""
        state = self.gru(region if last is None else region + last @ self.embedding, state)
        return state, self.head(state)


def rounded(generator: Generator) -> dict[str, Tensor]:
    """The tensors as they are stored: matrices as int8 with a scale for each row. Rounds the generator's own, too."""
    gru = generator.gru
    matrices = {
        "encoder.weight": generator.encoder.weight,
        "gru.weight_ih": gru.weight_ih,
        "gru.weight_hh": gru.weight_hh,
        "head.weight": generator.head.weight,
        "embedding.weight": generator.embedding,
    }
    vectors = {
        "mean": generator.mean,
        "std": generator.std,
        "encoder.bias": generator.encoder.bias,
        "gru.bias_ih": gru.bias_ih,
        "gru.bias_hh": gru.bias_hh,
        "head.bias": generator.head.bias,
    }
    stored = {name: vector.detach().float().clone() for name, vector in vectors.items()}
    with torch.no_grad():
        for name, matrix in matrices.items():
            scale = (matrix.abs().amax(1) / 127).clamp(min=1e-12)
            stored[name] = (matrix / scale[:, None]).round().to(torch.int8)
            stored[name + ".scale"] = scale.clone()
            matrix.copy_(stored[name].float() * scale[:, None])
    return stored


def choose(score: Tensor, allowed: Tensor, chance: float) -> Tensor:
    """One choice in each row, as one-hot, with gradients by straight-through Gumbel-softmax. `chance` scales the Gumbel noise."""
    gumbel = -torch.log(-torch.log(torch.rand_like(score).clamp(1e-9, 1 - 1e-7)))
    soft = (score + chance * gumbel).masked_fill(~allowed, CANNOT).softmax(1)
    hard = F.one_hot(soft.argmax(1), score.shape[1]).float()
    return hard - soft.detach() + soft


def emit(generator: Generator, hidden: Tensor, holds: Tensor, others: Tensor, support: float, noise: float, chance: float) -> Tensor:
    """Antecedents for regions, in training: `[b, length, atoms + 1]`, one choice each.

    `others` are the atoms of the regions that count for the support, `[n, atoms]` f32. An atom must hold for the region, exclude some of
    the matching regions (which an atom that is used already cannot), and keep at least `support` of them.
    """
    region, state = generator.start(hidden, noise)
    b, n = len(hidden), len(others)
    matching, left = torch.ones(b, n), torch.full((b, 1), float(n))
    last, ended, chosen = None, torch.zeros(b, 1, dtype=torch.bool), []
    for step in range(LENGTH):
        state, score = generator.next(region, state, last)
        with torch.no_grad():
            counts = matching @ others
            allowed = holds & (counts >= support) & (counts < left) & ~ended
            none = ~allowed.any(1, keepdim=True)
            allowed = torch.cat([allowed, none | ended | torch.full_like(none, step > 0)], 1)
        choice = choose(score, allowed, chance)
        chosen.append(choice)
        last = choice[:, :-1]
        with torch.no_grad():
            index = choice.argmax(1)
            ended = ended | (index == score.shape[1] - 1)[:, None]
            atom = index.clamp(max=others.shape[1] - 1)
            matching = torch.where(ended, matching, matching * others.T[atom])
            left = matching.sum(1, keepdim=True)
    return torch.stack(chosen, 1)


def class_balance(labels: Tensor, classes: int) -> Tensor:
    """How often a region is drawn. Rare classes are drawn more often: a class's share is the square root of that of its regions."""
    frequency = torch.bincount(labels, minlength=classes).float().clamp(min=1)
    return (frequency**-0.5)[labels]


def usable_atoms(counter: Counter, support: int) -> Tensor:
    """`[atoms]`: those that say something, and that enough regions match."""
    return (counter.wide.mean(0) < 0.98) & (counter.wide.sum(0) >= support)


@torch.no_grad()
def guide(table: Table, counter: Counter, args, batch: int = 128) -> tuple[Tensor, Tensor]:
    """For each region, an antecedent that speaks for its label, `[n, length]`, and for each of its steps a distribution over the atoms and
    NULL, `[n, length, atoms + 1]` f16, NOT_ALLOWED for those that are not allowed.

    The objective is the sum over antecedents of p(antecedent | region) p(label | antecedent). Given the label, the next atom is therefore
    the more likely, the more likely the label is after it: the distribution is proportional to the odds of the label to the power
    --sharpness, and the antecedent is drawn from it. The region itself does not count.
    """
    n, null = counter.regions, counter.atoms
    usable = usable_atoms(counter, args.support)
    paths = torch.full((n, LENGTH), null)
    shares = torch.full((n, LENGTH, null + 1), NOT_ALLOWED, dtype=torch.half)
    for index in torch.arange(n).split(batch):
        label = table.labels[index]
        same = counter.labels.T[label]
        prior = counter.prior[label][:, None]
        matching = torch.ones(len(index), n)
        matching[torch.arange(len(index)), index] = 0
        ended, odds = torch.zeros(len(index), 1, dtype=torch.bool), torch.full((len(index), 1), CANNOT)
        for step in range(LENGTH):
            counts, of_label = matching @ counter.wide, (matching * same) @ counter.wide
            left = matching.sum(1, keepdim=True)
            allowed = table.atoms[index] & usable & (counts >= args.support) & (counts < left) & ~ended
            none = ~allowed.any(1, keepdim=True)
            allowed = torch.cat([allowed, none | ended | torch.full_like(none, step > 0)], 1)
            # The fewer regions support a share, the closer it is to the label's share of all regions.
            share = (of_label + args.shrink * prior) / (counts + args.shrink)
            after = torch.cat([torch.logit(share, 1e-4), odds], 1)
            target = (args.sharpness * after).masked_fill(~allowed, -math.inf).softmax(1)
            choice = torch.multinomial(target, 1)
            paths[index, step] = choice[:, 0]
            shares[index, step] = target.masked_fill(~allowed, NOT_ALLOWED).half()
            ended |= choice == null
            odds = after.gather(1, choice)
            atom = choice[:, 0].clamp(max=null - 1)
            matching = torch.where(ended, matching, matching * counter.wide.T[atom])
    return paths, shares


def descent(generator: Generator, rate: float, steps: int) -> Callable[[Tensor], None]:
    """What takes one of `steps` steps down a loss; the learning rate rises to `rate` and falls again."""
    optimizer = torch.optim.AdamW(generator.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)

    def descend(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    return descend


def follow(generator: Generator, table: Table, counter: Counter, paths: Tensor, shares: Tensor, args, log) -> None:
    """Teaches the generator the distributions along the antecedents of `guide`, by Kullback-Leibler divergence."""
    drawn = class_balance(table.labels, counter.classes)
    batch = 2 * args.batch
    batches = args.draws // batch
    descend = descent(generator, args.guided_rate, args.guided * batches)
    for epoch in range(args.guided):
        generator.train()
        total = 0.0
        for index in torch.multinomial(drawn, batches * batch, replacement=True).split(batch):
            region, state = generator.start(table.hidden[index], 0.1)
            last, loss = None, torch.zeros(())
            for step in range(LENGTH):
                state, score = generator.next(region, state, last)
                target = shares[index, step].float()
                allowed = target >= 0
                guess = score.masked_fill(~allowed, CANNOT).log_softmax(1)
                target = target.clamp(min=0)
                loss = loss + (torch.xlogy(target, target) - target * guess).sum(1).mean()
                last = F.one_hot(paths[index, step], counter.atoms + 1)[:, :-1].float()
            descend(loss)
            total += loss.item()
        log(f"generator, guided epoch {epoch + 1}: divergence {total / batches:.4f}")


def train(generator: Generator, estimator: Estimator, table: Table, counter: Counter, args, log) -> None:
    """Trains the generator through the frozen estimator."""
    n, batch = counter.regions, args.batch
    drawn = class_balance(table.labels, counter.classes)
    batches = args.draws // batch
    descend = descent(generator, args.rate, args.epochs * batches)
    usable = usable_atoms(counter, args.support)
    for epoch in range(args.epochs):
        generator.train()
        total = right = 0.0
        chance = args.noise * (1 - 0.8 * epoch / max(args.epochs - 1, 1))
        for index in torch.multinomial(drawn, batches * batch, replacement=True).split(batch):
            # The support is estimated on some regions here; it is exact when rules are made.
            some = torch.randperm(n)[: args.some]
            holds = table.atoms[index] & usable
            chosen = emit(generator, table.hidden[index], holds, counter.wide[some], args.support * len(some) / n, 0.1, chance)
            logits, _, covered = estimator(chosen)
            # The fewer regions support the estimate, the closer it is to "anything": one region is added for each class.
            smooth = 1 / (torch.sigmoid(covered) * n).clamp(min=1)
            share = (logits.softmax(1) + smooth[:, None]) / (1 + counter.classes * smooth[:, None])
            loss = F.nll_loss(share.log(), table.labels[index])
            descend(loss)
            total += loss.item()
            right += (share.argmax(1) == table.labels[index]).float().mean().item()
        log(f"generator, epoch {epoch + 1}: loss {total / batches:.4f}, estimated accuracy {100 * right / batches:.1f} %")


@torch.no_grad()
def rules(generator: Generator, counter: Counter, hidden: Tensor, holds: Tensor, support: int) -> Tensor:
    """The antecedents that the program emits, `[b, length]`; NULL is the number of atoms. Counts are exact."""
    generator.eval()
    made = [rules_of(generator, counter, h, a, support) for h, a in zip(hidden.split(256), holds.split(256))]
    return torch.cat(made)


def rules_of(generator: Generator, counter: Counter, hidden: Tensor, holds: Tensor, support: int) -> Tensor:
    null, b = counter.atoms, len(hidden)
    region, state = generator.start(hidden)
    matching = torch.ones(b, counter.regions, dtype=torch.bool)
    left = torch.full((b,), counter.regions)
    last, ended, made = None, torch.zeros(b, dtype=torch.bool), []
    for step in range(LENGTH):
        state, score = generator.next(region, state, last)
        score[:, :-1].masked_fill_(~holds, CANNOT)
        if step == 0:
            score[:, -1] = CANNOT * 2
        order = torch.argsort(score, dim=1, descending=True, stable=True)
        choice = torch.full((b,), null)
        open_rows = torch.nonzero(~ended).flatten()
        for rank in range(order.shape[1]):
            if not len(open_rows):
                break
            atom = order[open_rows, rank]
            found = matching[open_rows] & counter.holds[atom]
            count = found.sum(1)
            ends = (atom == null) | (score[open_rows, atom] <= CANNOT)  # nothing else is allowed
            good = ~ends & (count >= support) & (count < left[open_rows])
            rows = open_rows[good]
            choice[rows], left[rows], matching[rows] = atom[good], count[good], found[good]
            ended[open_rows[ends]] = True
            open_rows = open_rows[~ends & ~good]
        made.append(choice)
        last = F.one_hot(choice, null + 1)[:, :-1].float()
    return simplified(counter, torch.stack(made, 1))


def simplified(counter: Counter, made: Tensor) -> Tensor:
    """Removes atoms that the others imply: without them, the same regions match. NULL comes last."""
    made, null = made.clone(), counter.atoms
    matches = counter.matches(made).sum(1)
    for i in range(LENGTH):
        without = made.clone()
        without[:, i] = null
        implied = (counter.matches(without).sum(1) == matches) & (without != null).any(1)
        made[:, i] = torch.where(implied, null, made[:, i])
    order = torch.argsort((made == null).int(), dim=1, stable=True)
    return made.gather(1, order)


def macro_f1(truth: Tensor, guess: Tensor, classes: int) -> float:
    """The mean F1 over the classes that occur in the truth."""
    scores = []
    for c in range(classes):
        t, g = truth == c, guess == c
        if t.any():
            scores.append(2 * (t & g).sum().item() / (t.sum() + g.sum()).item())
    return sum(scores) / max(len(scores), 1)


def read_safetensors(path: Path) -> tuple[dict, bytes]:
    """The header and the bytes after it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def is_explainers(name: str) -> bool:
    return name.startswith("explainer.")


def network_digest(header: dict, data: bytes) -> str:
    """As `Weights::tensors_digest`."""
    digest = hashlib.sha256()
    for name in sorted(name for name in header if name != "__metadata__" and not is_explainers(name)):
        info = header[name]
        start, end = info["data_offsets"]
        digest.update(f"{name} {info['dtype']} {info['shape']}\n".encode())
        digest.update(data[start:end])
    return digest.hexdigest()


def stored_atoms(about: dict) -> list[int]:
    """As `Atoms::stored`: the ranges between quartiles follow from "at least the quartile"."""
    features = [name for name, _ in about["thresholds"]]
    ranges = {f"{feature}_{kind}" for feature in features for kind in ("below_q1", "below_q2", "below_q3", "q1_to_q2", "q2_to_q3", "q1_to_q3")}
    return [i for i, atom in enumerate(about["atoms"]) if atom["atom"] not in ranges]


def write(source: Path, out: Path, table: Table, tensors: dict[str, Tensor], support: int) -> int:
    """Writes the weights with an explainer; the network's tensors stay as they are, byte for byte. Returns the number of added bytes."""
    header, data = read_safetensors(source)
    metadata = dict(header.pop("__metadata__", {}))
    photos: list[tuple[str, int]] = []
    for photo in table.photos:
        if photos and photos[-1][0] == photo:
            photos[-1] = (photo, photos[-1][1] + 1)
        else:
            photos.append((photo, 1))
    n = len(table.photos)
    metadata["explainer"] = json.dumps(
        {
            "format": FORMAT,
            "digest": table.about["digest"],
            "regions": n,
            "minimum_support": support,
            "channels": table.hidden.shape[1],
            "classes": table.classes,
            "thresholds": table.about["thresholds"],
            "atoms": table.names,
            "photos": photos,
        },
        separators=(",", ":"),
    )
    bits = np.packbits(table.atoms[:, stored_atoms(table.about)].T.numpy(), axis=1, bitorder="little")
    bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
    tensors = tensors | {
        "bits": torch.from_numpy(bits),
        "labels": table.labels.to(torch.uint8),
        "region_ids": torch.from_numpy(table.ids.astype("<u2").view(np.uint8).reshape(n, 2).copy()),
    }
    kinds = {torch.float32: "F32", torch.int8: "I8", torch.uint8: "U8"}
    entries = [(name, info["dtype"], info["shape"], data[slice(*info["data_offsets"])]) for name, info in header.items() if not is_explainers(name)]
    entries += [(f"explainer.{name}", kinds[t.dtype], list(t.shape), t.contiguous().numpy().tobytes()) for name, t in tensors.items()]
    # The widest types first, so that every tensor is aligned to its own type.
    bytes_of = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}
    entries.sort(key=lambda entry: (-bytes_of[entry[1]], entry[0]))
    written, end = {"__metadata__": dict(sorted(metadata.items()))}, 0
    for name, kind, shape, content in entries:
        written[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + len(content)]}
        end += len(content)
    text = json.dumps(written, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    part = out.with_name(out.name + ".part")
    part.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(entry[3] for entry in entries))
    part.replace(out)
    return out.stat().st_size - source.stat().st_size


def fit(table: Table, args, log=print) -> tuple[Generator, Estimator, Counter, dict[str, Tensor]]:
    """Trains both networks on a table. The generator's weights are rounded as they are stored."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    chance = torch.Generator().manual_seed(args.seed)
    counter = Counter(table)
    start = time.time()
    antecedents, counts = sample(table, counter, args.antecedents, args.support, chance)
    log(f"{len(antecedents)} antecedents with at least {args.support} of {counter.regions} regions, {time.time() - start:.0f} s")
    generator = Generator(counter.atoms, table.hidden)
    with torch.no_grad():
        generator.head.bias[:-1].masked_fill_(~usable_atoms(counter, args.support), -1e4)
    paths, shares = guide(table, counter, args)
    log(f"guided by exact counts, {time.time() - start:.0f} s")
    follow(generator, table, counter, paths, shares, args, log)
    # What the generator will emit, too, so that the estimator knows it.
    own = torch.unique(paths, dim=0)
    estimator = Estimator(counter.atoms, counter.classes)
    antecedents, counts = torch.cat([antecedents, own]), torch.cat([counts, counter.by_class(own)])
    pretrain(estimator, antecedents, counts, counter.regions, args.pretraining, log)
    train(generator, estimator, table, counter, args, log)
    tensors = rounded(generator)
    log(f"trained in {time.time() - start:.0f} s")
    return generator, estimator, counter, tensors


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="folder with regions.csv and atoms.json")
    training(parser)
    parser.add_argument("--weights", type=Path, required=True, help="the weights that the table was made with")
    parser.add_argument("--out", type=Path, required=True, help="the weights with the explainer")
    return parser


def training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--support", type=int, default=50, help="the fewest training regions that match a rule")
    parser.add_argument("--antecedents", type=int, default=60_000, help="antecedents that the estimator learns from")
    parser.add_argument("--pretraining", type=int, default=6, help="epochs of the estimator")
    parser.add_argument("--guided", type=int, default=10, help="epochs in which exact counts guide the generator")
    parser.add_argument("--guided-rate", type=float, default=3e-3, help="learning rate of these epochs")
    parser.add_argument("--sharpness", type=float, default=4.0, help="power of the label's odds with which atoms are preferred")
    parser.add_argument("--shrink", type=float, default=5.0, help="regions with the classes' average shares that are added to counts")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the generator with the estimator")
    parser.add_argument("--draws", type=int, default=20_000, help="regions in an epoch of the generator")
    parser.add_argument("--batch", type=int, default=64, help="regions in a batch of the generator")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of the generator with the estimator")
    parser.add_argument("--noise", type=float, default=1.0, help="scale of the Gumbel noise")
    parser.add_argument("--some", type=int, default=2000, help="regions from which the generator's training estimates the support")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="the operations are too small to gain from more, unless the machine is idle")


def main() -> None:
    args = arguments().parse_args()
    table = Table.read(args.table)
    header, data = read_safetensors(args.weights)
    digest = network_digest(header, data)
    if digest != table.about["digest"]:
        raise SystemExit(
            f"{args.table}: was made with the network {table.about['digest'][:12]}, but {args.weights} holds the network "
            f"{digest[:12]}; emit the table again with these weights"
        )
    if table.about["thresholds_from"] != "table":
        raise SystemExit(f"{args.table}: has the thresholds of an explainer; emit the table with weights that have none")
    generator, _, counter, tensors = fit(table, args)
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    some = torch.randperm(counter.regions)[:2000]
    guesses = counter.by_class(rules(generator, counter, table.hidden[some], table.atoms[some], args.support)).argmax(1)
    f1 = [100 * macro_f1(table.labels[some], guess, counter.classes) for guess in (guesses, table.seen[some])]
    print(f"{parameters} parameters; on {len(some)} training regions: macro F1 {f1[0]:.1f} %, network {f1[1]:.1f} %")
    added = write(args.weights, args.out, table, tensors, args.support)
    print(f"{args.out}: {args.out.stat().st_size} bytes, {added} more than without the explainer")


if __name__ == "__main__":
    main()
