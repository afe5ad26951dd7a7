"""Compares cells of one model, image by image: a weak attack should not fool more images than a strong one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from epsbench.harness.findings import Finding, finding
from epsbench.harness.plan.named import freeze
from epsbench.harness.plan.recorded import Entry
from epsbench.harness.statistics import mcnemar_exact

SIGNIFICANT = 1e-3
WORTH_REPORTING = 0.01  # a smaller difference is not reported, however significant
ONE_STEP_AT_MOST, MANY_AT_LEAST_MORE = 0.5, 0.4  # success rates under catastrophic overfitting
HALF_STEP_AT_LEAST = 0.5  # of the full step's success; on a model that is not overfitted, half a step fools far fewer
HALF_STEP_FOOLS = 0.1  # and at least so many; where no step fools anything, gradients are masked instead
FEWEST_PROBED = 16  # images on which steps were tried; with fewer there is no diagnosis
FAR_WEAKER, STRONG = 0.5, 0.4  # share of the stronger attack's success, and that success


@dataclass(frozen=True)
class Seen:
    """A measured cell: its attack, and which examples it fooled."""

    cell: str
    """The cell's id."""

    attack: Mapping[str, Any]
    """Name and parameters, as in the record."""

    kind: str
    """How much of the model the attack uses: "noise", "black-box", "one-step" or "many-steps"."""

    norm: str
    eps: Fraction

    right: np.ndarray
    """Which examples of the test split are classified correctly without the attack, boolean (n,)."""

    fooled: np.ndarray
    """Which of those the attack fooled, boolean (n,)."""

    @classmethod
    def of(
        cls, identity: str, cell: Mapping[str, Any], cost: Mapping[str, Any], right: np.ndarray, robust: np.ndarray
    ) -> Seen:
        """From a record's ``cell``, ``cost`` and verdicts; ``right`` and ``robust`` are boolean, (n,)."""
        return cls(identity, cell["attack"], _kind(cell["attack"], cost), cell["norm"], Fraction(cell["eps"]), right,
                   right & ~robust)  # fmt: skip

    @cached_property
    def n(self) -> int:
        """How many examples are classified correctly without the attack."""
        return int(self.right.sum())

    @cached_property
    def count(self) -> int:
        """How many of them the attack fooled."""
        return int(self.fooled.sum())

    @property
    def success(self) -> float:
        """The share of correctly classified examples that the attack fooled."""
        return float(self.count / max(1, self.n))

    @property
    def label(self) -> str:
        """``"pgd at ε = 0.1"``."""
        return f"{self.attack['name']} at ε = {float(self.eps):.4g}"


def _kind(attack: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """How much of the model an attack uses, by what it took: nothing, outputs, one gradient, or many."""
    # A gradient attack is recognised by its fields too: where its verdicts follow from other ε, it cost nothing.
    if "random_start" in attack or cost.get("backwards", 0) + cost.get("shared_backwards", 0) > 0:
        return "one-step" if attack.get("steps") == 1 else "many-steps"
    return "black-box" if cost.get("forwards", 0) > 0 else "noise"


# Weaker kind, stronger kind, and the code where the weaker fools more. A black-box attack of many queries may well be
# stronger than one step.
ORDER = (
    ("noise", "one-step", "noise-beats-gradient"),
    ("noise", "many-steps", "noise-beats-gradient"),
    ("black-box", "many-steps", "black-box-beats-gradient"),
    ("one-step", "many-steps", "one-step-beats-many"),
)

StepSuccess = Callable[[str, float], tuple[int, int]]
"""How many images one gradient step fools, and of how many, given the name of a norm and the size of the step. The
step follows a gradient that does not underflow, so saturated logits hide nothing from it."""


class Curve:
    """The cells of one attack by ε. On most curves a larger ε fools more images; then `unexpected` lists nothing."""

    def __init__(self) -> None:
        self._eps: list[Fraction] = []
        self._cells: list[tuple[int, Seen]] = []
        self._most: list[int] = []  # images fooled at this ε or at a smaller one, the largest number
        self._least: list[int] = []  # images fooled at this ε or at a larger one, the smallest number

    def add(self, number: int, seen: Seen) -> None:
        """``number`` counts the cells of the history."""
        at = bisect_right(self._eps, seen.eps)
        self._eps.insert(at, seen.eps)
        self._cells.insert(at, (number, seen))
        self._most.insert(at, max(self._most[at - 1], seen.count) if at else seen.count)
        self._least.insert(at, min(self._least[at], seen.count) if at < len(self._least) else seen.count)
        for later in range(at + 1, len(self._most)):
            if self._most[later] >= seen.count:
                break
            self._most[later] = seen.count
        for earlier in reversed(range(at)):
            if self._least[earlier] <= seen.count:
                break
            self._least[earlier] = seen.count

    def unexpected(self, new: Seen) -> list[tuple[int, Seen]]:
        """The cells that fool clearly more images at a smaller ε than the new one, or clearly fewer at a larger ε."""
        below, above = bisect_left(self._eps, new.eps), bisect_right(self._eps, new.eps)
        limit = WORTH_REPORTING * max(1, new.n) - 0.5
        cells: list[tuple[int, Seen]] = []
        if below and self._most[below - 1] - new.count > limit:
            cells += [(number, old) for number, old in self._cells[:below] if _more(old, new) >= WORTH_REPORTING]
        if above < len(self._cells) and new.count - self._least[above] > limit:
            cells += [(number, old) for number, old in self._cells[above:] if _more(new, old) >= WORTH_REPORTING]
        return sorted(cells, key=lambda each: each[0])


class History:
    """The cells of one model so far. A finding is reported at the later of the two cells that it compares.

    A new cell is compared with the earlier ones of its norm that have its ε or its attack, so that curves of many ε
    stay cheap.
    """

    def __init__(self, step_success: StepSuccess) -> None:
        self._count = 0
        self._at_eps: dict[tuple[str, Fraction], list[tuple[int, Seen]]] = {}
        self._curves: dict[tuple[str, Hashable], Curve] = {}
        self._step_success = step_success

    def recall(self, recorded: Iterable[Entry], right: np.ndarray, model: str) -> None:
        """Take over what earlier runs recorded of this model.

        Left out are records with another `epsbench.harness.plan.recorded.model_key` than ``model``: the same weights
        in another network are another model. So are records whose verdicts on the clean images differ from ``right``
        (n,): they are of other images.
        """
        for entry in recorded:
            if entry.verdicts is not None and entry.model == model:
                clean, robust = entry.verdicts.unpack()
                if np.array_equal(clean, right):
                    self._add(Seen.of(entry.id, entry.cell, entry.cost, clean, robust))

    def compare(self, new: Seen) -> list[Finding]:
        """Findings about a new cell compared with the earlier ones, the worst of each code. Then it joins them."""
        first: dict[str, int] = {}  # codes by the earlier cell that shows them first: the order of the findings
        worst: dict[str, tuple[float, Finding]] = {}
        for number, old in self._at_eps.get((new.norm, new.eps), []):
            if old.cell != new.cell:
                for share, each in [*_upside_down(old, new), *_far_weaker(old, new), *self._bent(old, new)]:
                    first.setdefault(each.code, number)
                    if each.code not in worst or share > worst[each.code][0]:
                        worst[each.code] = share, each
        curve = self._curves.get((new.norm, freeze(new.attack)))
        unexpected = [each for each in curve.unexpected(new) if each[1].cell != new.cell] if curve else []
        shown = next((number for number, old in unexpected if any(_falling(old, new))), None)
        if shown is not None:
            # The largest difference comes first: the first significant one is the worst.
            falls = sorted(unexpected, key=lambda each: -abs(each[1].count - new.count))
            share, each = next(fall for _, old in falls for fall in _falling(old, new))
            first[each.code], worst[each.code] = shown, (share, each)
        self._add(new)
        return [worst[code][1] for code in sorted(first, key=lambda code: first[code])]

    def _add(self, seen: Seen) -> None:
        self._at_eps.setdefault((seen.norm, seen.eps), []).append((self._count, seen))
        self._curves.setdefault((seen.norm, freeze(seen.attack)), Curve()).add(self._count, seen)
        self._count += 1

    def _bent(self, old: Seen, new: Seen) -> Iterator[tuple[float, Finding]]:
        """Catastrophic overfitting: one step fools few images, many steps most, half a step as many as a whole one."""
        one, many = (old, new) if old.kind == "one-step" else (new, old)
        gap = many.success - one.success
        if (one.kind, many.kind) != ("one-step", "many-steps"):
            return
        if one.success > ONE_STEP_AT_MOST or gap < MANY_AT_LEAST_MORE:
            return
        if _significance(one, many) >= SIGNIFICANT:
            return
        eps = float(one.eps)
        (fooled_by_half, n), (fooled_by_whole, _) = (self._step_success(one.norm, size) for size in (eps / 2, eps))
        half, whole = fooled_by_half / max(1, n), fooled_by_whole / max(1, n)
        # A step that fools most images once the loss is not saturated was only hidden from the attack.
        if n < FEWEST_PROBED or whole > ONE_STEP_AT_MOST:
            return
        if half >= max(HALF_STEP_FOOLS, HALF_STEP_AT_LEAST * one.success):
            fact = f"{one.label} fools {one.success:.1%}, half its step {half:.1%}, {many.label} {many.success:.1%}"
            evidence = {"one_step": one.success, "half_step": half, "many_steps": many.success, "with": old.cell}
            yield gap, finding("catastrophic-overfitting", fact, **evidence)


def _upside_down(old: Seen, new: Seen) -> Iterator[tuple[float, Finding]]:
    """At one ε: does an attack of a weaker kind fool more images?"""
    for weak, strong in ((old, new), (new, old)):
        for weaker, stronger, code in ORDER:
            if (weak.kind, strong.kind) == (weaker, stronger):
                yield from _beaten(weak, strong, code, old)


def _far_weaker(old: Seen, new: Seen) -> Iterator[tuple[float, Finding]]:
    """Does one of two attacks of many steps fool far fewer images than the other?

    One attack with two sets of parameters is a study of those, and not compared.
    """
    if (old.kind, new.kind) != ("many-steps", "many-steps") or old.attack["name"] == new.attack["name"]:
        return
    weak, strong = (old, new) if old.count < new.count else (new, old)
    if strong.success < STRONG or weak.count >= FAR_WEAKER * strong.count:
        return
    p = _significance(weak, strong)
    if p < SIGNIFICANT:
        evidence = {"weak": weak.success, "strong": strong.success, "p": p, "with": old.cell}
        yield strong.success - weak.success, finding("weaker-than-peers", _both(weak, strong), **evidence)


def _significance(a: Seen, b: Seen) -> float:
    """The p-value of the exact McNemar test on the images that only one of them fools."""
    return mcnemar_exact(*_alone(a, b))


def _alone(a: Seen, b: Seen) -> tuple[int, int]:
    """How many images only the first fools, and how many only the second."""
    return int((a.fooled & ~b.fooled).sum()), int((b.fooled & ~a.fooled).sum())


def _both(weak: Seen, strong: Seen) -> str:
    """``"fgsm fools 12.0% and pgd 34.0%"``."""
    return f"{weak.label} fools {weak.success:.1%} and {strong.label} {strong.success:.1%}"


def _falling(old: Seen, new: Seen) -> Iterator[tuple[float, Finding]]:
    """For one attack at two ε: does the smaller ε fool more images?"""
    small, large = (old, new) if old.eps < new.eps else (new, old)
    yield from _beaten(small, large, "eps-not-monotone", old)


def _beaten(weak: Seen, strong: Seen, code: str, old: Seen) -> Iterator[tuple[float, Finding]]:
    """Whether the weak attack fools significantly more images: an exact McNemar test on those that only one fools."""
    more = _more(weak, strong)
    if more < WORTH_REPORTING:
        return
    by_weak, by_strong = _alone(weak, strong)
    p = mcnemar_exact(by_weak, by_strong)
    if p < SIGNIFICANT:
        evidence = {"weak_alone": by_weak, "strong_alone": by_strong, "examples": weak.n, "p": p, "with": old.cell}
        yield more, finding(code, _both(weak, strong), **evidence)


def _more(weak: Seen, strong: Seen) -> float:
    """The share of images that the weak attack fools, minus the share that the strong one fools."""
    return (weak.count - strong.count) / max(1, weak.n)
