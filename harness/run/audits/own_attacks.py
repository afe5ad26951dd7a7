"""The audits' own attacks, once a norm and ε, on test images, training images and images that nobody has stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm
from epsbench.harness.findings import Finding
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.gradients import broken_gradients
from epsbench.harness.run.audits.points import some_of
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.reattack import (
    IMAGES,
    Reattacked,
    audit_reattack,
    by_cross_entropy,
    by_margin,
    reattack,
)
from epsbench.harness.run.audits.replay import Replayed
from epsbench.harness.run.audits.same_function import audit_same_as_judged
from epsbench.harness.run.audits.unseen import HALVES, TRAINING, UNDER_ATTACK, audit_robust_on_test_alone, halves_joined
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.guard import guarded

NEAR = Fraction(3, 2)  # what holds at an ε is taken to hold up to so many times that ε
OTHERS = 512  # training images that the search by scores knows


@dataclass(frozen=True)
class _Tried:
    """What the attacks fool at one norm and ε: of some test images, and of others."""

    at: Tensor
    """Positions (N,) of the attacked test images among the targets."""
    test: Reattacked
    others: Mapping[str, Tensor]
    """Which of other images (M,), by name, gradient steps fool; empty where few test images withstand them."""
    there: list[Finding]
    """Findings about the model at the adversarial images of the cell."""


class OwnAttacks:
    """Attacks of the audits' own. Each norm and ε is tried once, and compared with every cell at it."""

    def __init__(self, probe: Probe, train: Examples | None) -> None:
        """``train`` are the model's training images, where they are known."""
        self._probe, self._train = probe, train
        self._tried: dict[tuple[str, Fraction], _Tried | list[Finding]] = {}

    def findings(
        self, attacked: Attacked, targets: Targets, norm: str, outcome: Outcome, replayed: Replayed | None
    ) -> list[Finding]:
        """Findings about a cell with this ``outcome`` on the ``targets``, in a ball of the norm of this name.

        ``replayed`` are adversarial images of the cell.
        """
        ball = NORMS.get(norm)
        if ball is None:
            return []
        near = [eps for other, eps in self._tried if other == norm and eps <= outcome.eps < NEAR * eps]
        key = (norm, max(near, default=outcome.eps))
        if key not in self._tried:
            self._try(key, attacked, targets, ball, replayed)
        tried = self._tried[key]
        return (
            tried if isinstance(tried, list) else guarded("other attacks", lambda: self._compare(tried, key, outcome))
        )

    def _try(
        self, key: tuple[str, Fraction], attacked: Attacked, targets: Targets, norm: Norm, replayed: Replayed | None
    ) -> None:
        """Keep what the attacks fool, or the finding that they could not run."""

        def attack() -> Iterator[Finding]:
            there = self._there(attacked, replayed) if replayed else []
            self._tried[key] = self._attack(attacked, targets, norm, float(key[1]), there)
            yield from ()

        failure = guarded("other attacks", attack)
        if failure:
            self._tried[key] = failure

    def _there(self, attacked: Attacked, replayed: Replayed) -> list[Finding]:
        """Findings at adversarial images, further away than other audits look.

        Finite differences are left out: at the edge of its ball even an honest model promises what no step delivers.
        """
        probe = replace(self._probe, x=replayed.x, y=replayed.y)
        moved = {"adversarial images": replayed.x}
        gradient = probe.slope(replayed.x, replayed.y)
        return [*audit_same_as_judged(probe, attacked, moved), *broken_gradients(gradient, "adversarial images")]

    def _attack(self, attacked: Attacked, targets: Targets, norm: Norm, eps: float, there: list[Finding]) -> _Tried:
        at = some_of(len(targets), IMAGES, self._probe.x.device)
        towards = self._probe.x if self._train is None else self._train.pixels(slice(0, OTHERS))
        test = reattack(self._probe, attacked, targets.pixels(at), targets.labels[at], norm, eps, towards)
        withstand = float((~(test.cross_entropy | test.margin)).float().mean()) if len(at) else 0.0
        others = {}
        if self._train is not None and withstand > min(UNDER_ATTACK.values()):
            rows = some_of(len(self._train), 2 * IMAGES, self._train.device)
            images = {
                TRAINING: (self._train.pixels(rows), self._train.labels[rows]),
                HALVES: halves_joined(self._train, 2 * IMAGES),
            }
            others = {name: self._fooled(attacked, x, y, norm, eps) for name, (x, y) in images.items()}
        return _Tried(at, test, others, there)

    def _fooled(self, attacked: Attacked, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
        """Which of some images that are classified correctly gradient steps fool."""
        if not len(x):
            return torch.zeros(0, dtype=torch.bool)
        right = (self._probe.logits(x).argmax(1) == y).nonzero().flatten()[:IMAGES]
        x, y = x[right], y[right]
        fooled = ~by_cross_entropy(self._probe, attacked, x, y, norm, eps)
        left = (~fooled).nonzero().flatten()
        if len(left):
            fooled[left] = ~by_margin(self._probe, attacked, x[left], y[left], norm, eps)
        return fooled

    def _compare(self, tried: _Tried, key: tuple[str, Fraction], outcome: Outcome) -> Iterator[Finding]:
        test, eps = tried.test, float(key[1])
        fooled = torch.from_numpy(outcome.fooled)[tried.at.cpu()].to(test.margin.device)
        yield from tried.there
        yield from audit_reattack(test, fooled, eps)
        yield from audit_robust_on_test_alone(test.cross_entropy | test.margin, tried.others, eps)
