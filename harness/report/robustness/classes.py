"""What the judge answers class by class: confusion under attack, accuracy of every class, and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epsbench.harness.records.predictions import Answers
from epsbench.harness.report.drawing.table import ASIDE, NEEDED, Column, Entry, Table, fold
from epsbench.harness.report.results.cells import attack_key
from epsbench.harness.report.results.class_names import all_class_names
from epsbench.harness.report.results.units import (
    ABSENT,
    defense_name,
    norm_name,
    percent,
    percent_range,
    scalar,
)
from epsbench.harness.report.robustness.leaderboard import Board, Row
from epsbench.harness.report.robustness.scores import worst_case
from epsbench.harness.statistics import share_with_interval

BINS = 15
CAPTION = (
    "The accuracy of a class is the worst case over attacks at that ε. Its interval is that of one class: it does not "
    "account for the choice of the lowest of several. Confused: of the images of a class, the share that the model "
    "takes for the other one under the strongest attack. Calibration error: the mean distance of confidence and "
    f"accuracy over {BINS} bins of confidence of equal width (Guo et al., 2017), in percentage points; under attack, "
    "of the strongest attack that judged every image at that ε. An image that is fooled is not attacked further, so "
    "the attack does not raise the model's confidence in the wrong class. Of several seeds the first is shown."
)
FOLDED = frozenset({"data", "augmentation", "setting", "ε", "attack"})


@dataclass(frozen=True)
class Seen:
    """What one model, of one seed, answers without an attack and under the strongest one at the ε of the ranks."""

    board: Board
    """Its leaderboard."""
    row: Row
    """Its row there."""
    attack: str
    """The label of the strongest attack."""
    answers: Answers
    """The judge's answers under that attack."""
    calibrated: Answers | None
    """The same under the strongest attack that judged every image at that ε; None where there is none."""
    robust: np.ndarray
    """Which images (n,) are classified correctly under every attack at that ε."""
    names: tuple[str, ...]
    """What the classes are called."""

    @property
    def clean(self) -> np.ndarray:
        """Which images (n,) are classified correctly without an attack."""
        return np.asarray(self.answers.clean == self.answers.labels)

    def confusion(self) -> np.ndarray:
        """How many images of each class (rows) are seen as each class (columns) under the attack, (K, K)."""
        return confusion(self.answers.labels, self.answers.adversarial, len(self.names))

    def by_class(self, bits: np.ndarray) -> list[tuple[int, float, float, float]]:
        """Class, share of true ``bits`` (n,) among its images and the ends of its interval; absent classes left out."""
        shares = []
        for index in range(len(self.names)):
            own = bits[self.answers.labels == index]
            if len(own):
                shares.append((index, *share_with_interval(own)))
        return shares

    def calibration(self) -> Mapping[str, list[Bin]]:
        """The bins without and under the attack; the latter only where every confidence is known."""
        both = {"clean": bins(self.answers.clean_confidence, self.clean)}
        if (under := self.calibrated) is not None:
            both["under attack"] = bins(under.adversarial_confidence, under.adversarial == under.labels)
        return both


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in one interval."""

    confidence: float
    """Their mean confidence."""
    accuracy: float
    """The share that is classified correctly."""
    low: float
    """The lower end of its interval."""
    high: float
    """The upper end."""
    n: int
    """How many images there are."""


def confusion(labels: np.ndarray, seen: np.ndarray, classes: int) -> np.ndarray:
    """How many images of each label (rows) are seen as each class (columns), (classes, classes)."""
    return np.bincount(labels * classes + seen, minlength=classes * classes).reshape(classes, classes)


def bins(confidence: np.ndarray, right: np.ndarray, count: int = BINS) -> list[Bin]:
    """The bins (k/count, (k+1)/count] of confidence (n,) that hold images, with the share of true ``right`` (n,)."""
    place = np.clip(np.ceil(confidence * count).astype(int) - 1, 0, count - 1)
    made = []
    for index in np.unique(place):
        own = right[place == index]
        made.append(Bin(float(confidence[place == index].mean()), *share_with_interval(own), len(own)))
    return made


def calibration_error(made: Sequence[Bin]) -> float:
    """The expected calibration error (Guo et al., 2017, equation 5): Σ |B| / n · |accuracy − confidence|, in [0, 1]."""
    total = sum(each.n for each in made)
    return sum(each.n * abs(each.accuracy - each.confidence) for each in made) / total if total else 0.0


def seen(boards: Sequence[Board]) -> list[Seen]:
    """The models whose records hold what the judge answered, in the order of the leaderboards."""
    shown = (_seen(board, row) for board in boards for row in board.rows)
    return [one for one in shown if one is not None]


def _seen(board: Board, row: Row) -> Seen | None:
    eps, _ = board.ranked
    for seed in row.seeds:
        records = [record for record in row.measured.get(eps, ()) if record.cell["seed"] == seed]
        answered = [record for record in records if record.predictions is not None]
        if not answered or len({record.training.get("weights_sha256") for record in records}) > 1:
            continue
        robust = [record.verdicts.unpack()[1] for record in records if record.verdicts is not None]
        answered.sort(key=lambda record: record.metrics["robust_accuracy"].value)
        unpacked = [record.predictions.unpack() for record in answered if record.predictions is not None]
        answers, strongest = unpacked[0], answered[0]
        if not len(answers.labels) or len({len(bits) for bits in [*robust, *(each.labels for each in unpacked)]}) > 1:
            continue
        known = (each for each in unpacked if not np.isnan(each.adversarial_confidence).any())
        assert strongest.predictions is not None
        names = all_class_names(strongest, strongest.predictions.classes)
        label = board.labels[attack_key(strongest.cell)]
        return Seen(board, row, label, answers, next(known, None), worst_case(robust), names)
    return None


def classes_table(models: Sequence[Seen]) -> Table | None:
    """One line a model: its least robust class, its most frequent confusion, its calibration."""
    if not models:
        return None
    columns = (
        Column("data", weight=ASIDE),
        Column("model", label=True),
        Column("defense", label=True, weight=NEEDED),
        Column("augmentation", weight=NEEDED),
        Column("setting", weight=NEEDED),
        Column("ε", True, weight=NEEDED),
        Column("attack", label=True, weight=ASIDE),
        Column("least robust class"),
        Column("its accuracy", True, weight=NEEDED),
        Column("most confused", weight=NEEDED),
        Column("confused", True),
        Column("calibration error", True),
        Column("under attack", True),
    )
    table = Table("Classes and calibration under attack", columns, tuple(map(_line, models)), CAPTION)
    return fold(table, FOLDED)


def _line(model: Seen) -> tuple[Entry, ...]:
    index, value, low, high = min(model.by_class(model.robust), key=lambda share: share[1])
    pair = next(confusions(model), None)
    errors = {name: f"{100 * calibration_error(made):.1f}" for name, made in model.calibration().items()}
    return (
        Entry(model.board.data),
        Entry(model.row.model),
        Entry(defense_name(model.row.defense)),
        Entry(ABSENT if model.row.augmentation == "none" else model.row.augmentation),
        Entry(model.row.extra or ABSENT),
        Entry(f"{norm_name(model.board.norm)} {scalar(model.board.ranked[1])}"),
        Entry(model.attack),
        Entry(model.names[index]),
        Entry(percent(value), percent_range(low, high)),
        Entry(f"{model.names[pair[0]]} → {model.names[pair[1]]}" if pair else ABSENT),
        Entry(percent(pair[2]) if pair else ABSENT),
        *(Entry(errors.get(name, ABSENT)) for name in ("clean", "under attack")),
    )


def confusions(model: Seen) -> Iterator[tuple[int, int, float]]:
    """Label, other class and the share of the label's images that are seen as it, the most frequent first."""
    counts = model.confusion()
    totals = counts.sum(1)
    np.fill_diagonal(counts, 0)
    shares = counts / np.maximum(totals, 1)[:, None]
    for place in np.argsort(-shares, axis=None, kind="stable"):
        label, other = divmod(int(place), len(shares))
        if not counts[label, other]:
            return
        yield label, other, float(shares[label, other])


def by_class_table(model: Seen) -> Table:
    """Every class of one model: accuracy without an attack, in the worst case, and what it is taken for most."""
    columns = (
        Column("class"),
        Column("images", True),
        Column("clean", True),
        Column("worst case", True),
        Column("taken for"),
        Column("confused", True),
    )
    clean = {index: share for index, *share in model.by_class(model.clean)}
    first: dict[int, tuple[int, float]] = {}
    for label, other, share in confusions(model):
        first.setdefault(label, (other, share))
    rows = []
    for index, value, low, high in model.by_class(model.robust):
        pair = first.get(index)
        rows.append(
            (
                Entry(model.names[index]),
                Entry(f"{int((model.answers.labels == index).sum()):,}"),
                Entry(percent(clean[index][0]), percent_range(*clean[index][1:])),
                Entry(percent(value), percent_range(low, high)),
                Entry(model.names[pair[0]] if pair else ABSENT),
                Entry(percent(pair[1]) if pair else ABSENT),
            )
        )
    where = f"{model.board.data}, {norm_name(model.board.norm)} ε = {model.board.ranked[1]}"
    return Table(f"Classes of {model.row.label} on {where}, under {model.attack}", columns, tuple(rows))
