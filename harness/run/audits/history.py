"""Cells of one model held against each other, image by image: no weak attack may do better than a strong one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from epsbench.harness.findings import Finding, found
from epsbench.harness.records import Record, read_record
from epsbench.harness.statistics import mcnemar_exact

SIGNIFICANT = 1e-3
WORTH_TELLING = 0.01  # a difference below one point is let pass, however significant
ONE_STEP_AT_MOST, MANY_AT_LEAST_MORE = 0.5, 0.4  # success rates under catastrophic overfitting
HALF_STEP_AT_LEAST = 0.5  # of the full step's success; an honest model's success falls off far faster


@dataclass(frozen=True)
class Seen:
    """A measured cell: which attack, how strong in kind, and which examples (n,) of the test split it fooled."""

    cell: str
    attack: dict[str, Any]
    kind: str
    norm: str
    eps: Fraction
    right: np.ndarray
    fooled: np.ndarray

    @classmethod
    def of(
        cls, identity: str, cell: dict[str, Any], cost: dict[str, Any], right: np.ndarray, robust: np.ndarray
    ) -> Seen:
        """From what a record holds. ``right`` and ``robust`` are boolean, (n,)."""
        return cls(identity, cell["attack"], _kind(cell["attack"], cost), cell["norm"], Fraction(cell["eps"]), right,
                   right & ~robust)  # fmt: skip

    @property
    def success(self) -> float:
        """The share fooled of those right on the clean image."""
        return float(self.fooled.sum() / max(1, self.right.sum()))

    @property
    def label(self) -> str:
        return f"{self.attack['name']} at ε = {float(self.eps):.4g}"


def _kind(attack: dict[str, Any], cost: dict[str, Any]) -> str:
    """How much of the model an attack uses, from what it did: nothing, outputs, one gradient, or many."""
    # By its fields where it has those of a gradient attack: implied by other ε, it may have cost nothing.
    if "random_start" in attack or cost.get("backwards", 0) + cost.get("shared_backwards", 0) > 0:
        return "one-step" if attack.get("steps") == 1 else "many-steps"
    return "black-box" if cost.get("forwards", 0) > 0 else "noise"


# Kind that should not win, kind that should not lose, code. A black box of many queries may well beat one step.
ORDER = (
    ("noise", "one-step", "noise-beats-gradient"),
    ("noise", "many-steps", "noise-beats-gradient"),
    ("black-box", "many-steps", "black-box-beats-gradient"),
    ("one-step", "many-steps", "one-step-beats-many"),
)

HalfStep = Callable[[str, float], float]  # success rate of one gradient step of a size, under the norm of a name


class History:
    """The cells of one model so far. A finding goes to the cell at which it becomes visible."""

    def __init__(self, step_success: HalfStep) -> None:
        self._seen: list[Seen] = []
        self._step_success = step_success

    def recall(self, results: Path, weights: str, right: np.ndarray) -> None:
        """Read what an earlier run recorded of the model with these weights on these examples."""
        for path in sorted((results / "cells").glob("*.json")):
            if weights in path.read_text(encoding="utf-8"):
                record = read_record(path)
                if seen := _remembered(record, right):
                    self._seen.append(seen)

    def compare(self, new: Seen) -> list[Finding]:
        """Findings about a new cell beside the earlier ones, of each code the worst; then it is one of them."""
        worst: dict[str, tuple[float, Finding]] = {}
        for old in self._seen:
            if old.norm != new.norm or old.cell == new.cell:
                continue
            for share, finding in [*_upside_down(old, new), *_falling(old, new), *self._bent(old, new)]:
                if finding.code not in worst or share > worst[finding.code][0]:
                    worst[finding.code] = share, finding
        self._seen.append(new)
        return [finding for _, finding in worst.values()]

    def _bent(self, old: Seen, new: Seen) -> Iterator[tuple[float, Finding]]:
        """Catastrophic overfitting: one step fools little, many most, and half the one step as much as all of it."""
        one, many = (old, new) if old.kind == "one-step" else (new, old)
        gap = many.success - one.success
        if (one.kind, many.kind) != ("one-step", "many-steps") or one.eps != many.eps:
            return
        if one.success > ONE_STEP_AT_MOST or gap < MANY_AT_LEAST_MORE:
            return
        half = self._step_success(one.norm, float(one.eps) / 2)
        if half >= HALF_STEP_AT_LEAST * one.success:
            fact = f"{one.label} fools {one.success:.1%}, half its step {half:.1%}, {many.label} {many.success:.1%}"
            evidence = {"one_step": one.success, "half_step": half, "many_steps": many.success, "with": old.cell}
            yield gap, found("catastrophic-overfitting", fact, **evidence)


def _remembered(record: Record, right: np.ndarray) -> Seen | None:
    if record.status != "ok" or record.cell.get("task") != "robustness" or record.verdicts is None:
        return None
    if "source" in record.cell:  # images made on another model say nothing of how strong an attack is on this one
        return None
    clean, robust = record.verdicts.unpack()
    if not np.array_equal(clean, right):
        return None
    return Seen.of(record.id, record.cell, record.cost, clean, robust)


def _upside_down(old: Seen, new: Seen) -> Iterator[tuple[float, Finding]]:
    if old.eps != new.eps:
        return
    for weak, strong in ((old, new), (new, old)):
        for weaker, stronger, code in ORDER:
            if (weak.kind, strong.kind) == (weaker, stronger):
                yield from _beaten(weak, strong, code, old)


def _falling(old: Seen, new: Seen) -> Iterator[tuple[float, Finding]]:
    if old.attack == new.attack and old.eps != new.eps:
        small, large = sorted((old, new), key=lambda seen: seen.eps)
        yield from _beaten(small, large, "eps-not-monotone", old)


def _beaten(weak: Seen, strong: Seen, code: str, old: Seen) -> Iterator[tuple[float, Finding]]:
    """Does the weak one fool significantly more? Exact McNemar on the images fooled by one of them alone."""
    n = int(weak.right.sum())
    by_weak, by_strong = int((weak.fooled & ~strong.fooled).sum()), int((strong.fooled & ~weak.fooled).sum())
    more = (by_weak - by_strong) / max(1, n)
    p = mcnemar_exact(by_weak, by_strong)
    if more >= WORTH_TELLING and p < SIGNIFICANT:
        fact = f"{weak.label} fools {weak.success:.1%} and {strong.label} {strong.success:.1%}"
        evidence = {"weak_alone": by_weak, "strong_alone": by_strong, "examples": n, "p": p, "with": old.cell}
        yield more, found(code, fact, **evidence)
