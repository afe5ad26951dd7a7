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
from epsbench.harness.run.audits.reattack import IMAGES, SCREENED, Reattacked, audit_reattack, reattack
from epsbench.harness.run.audits.remembered import Remembered, digest_of
from epsbench.harness.run.audits.replay import Replayed
from epsbench.harness.run.audits.same_function import audit_same_as_judged
from epsbench.harness.run.audits.unseen import HALVES, TRAINING, UNDER_ATTACK, audit_robust_on_test_alone, halves_joined
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.guard import guarded

NEAR = Fraction(3, 2)  # what holds at an ε is taken to hold up to so many times that ε
COMPARED, FOLLOWED = 8, 8  # adversarial images whose logits are compared, and whose gradients must be finite
OTHERS = 512  # training images that the search by scores knows


@dataclass(frozen=True)
class _Place:
    """The attacks at one norm and ε: on some test images, and on others."""

    at: Tensor
    """Positions (N,) of the attacked test images among the targets."""
    test: Reattacked
    others: Mapping[str, Reattacked]
    """On images of other kinds, by name."""
    there: list[Finding]
    """Findings about the model at the adversarial images of the cell."""


class OwnAttacks:
    """Attacks of the audits' own. Each norm and ε is tried once, and compared with every cell at it."""

    def __init__(self, probe: Probe, train: Examples | None, memory: Remembered) -> None:
        """``train`` are the model's training images, where they are known; ``memory`` knows what was tried before."""
        self._probe, self._train, self._memory = probe, train, memory
        self._places: dict[tuple[str, Fraction], _Place | list[Finding]] = {}

    def findings(
        self, attacked: Attacked, targets: Targets, norm: str, outcome: Outcome, replayed: Replayed | None
    ) -> list[Finding]:
        """Findings about a cell with this ``outcome`` on the ``targets``, in a ball of the norm of this name.

        ``replayed`` are adversarial images of the cell.
        """
        ball = NORMS.get(norm)
        if ball is None:
            return []
        near = [eps for other, eps in self._places if other == norm and eps <= outcome.eps < NEAR * eps]
        key = (norm, max(near, default=outcome.eps))
        if key not in self._places:
            self._enter(key, attacked, targets, ball, replayed)
        place = self._places[key]
        return (
            place if isinstance(place, list) else guarded("other attacks", lambda: self._compare(place, key, outcome))
        )

    def _enter(
        self, key: tuple[str, Fraction], attacked: Attacked, targets: Targets, norm: Norm, replayed: Replayed | None
    ) -> None:
        """Keep the attacks, or the finding that they could not run."""

        def attack() -> Iterator[Finding]:
            there = self._there(attacked, replayed) if replayed else []
            self._places[key] = self._place(attacked, targets, norm, float(key[1]), there)
            yield from ()

        failure = guarded("other attacks", attack)
        if failure:
            self._places[key] = failure

    def _there(self, attacked: Attacked, replayed: Replayed) -> list[Finding]:
        """Findings at adversarial images, further away than other audits look.

        Finite differences are left out: at the edge of its ball even an honest model promises what no step delivers.
        """
        known, key = self._memory.there, digest_of(attacked.victim.form, attacked.victim.precision, replayed.x)
        if key not in known:
            probe = replace(self._probe, x=replayed.x, y=replayed.y)
            same = audit_same_as_judged(probe, attacked, {"adversarial images": replayed.x[:COMPARED]})
            gradient = probe.slope(replayed.x[:FOLLOWED], replayed.y[:FOLLOWED])
            known[key] = [*same, *broken_gradients(gradient, "adversarial images")]
        return known[key]

    def _place(self, attacked: Attacked, targets: Targets, norm: Norm, eps: float, there: list[Finding]) -> _Place:
        probe, train = self._probe, self._train
        towards = probe.x if train is None else train.pixels(slice(0, OTHERS))

        def attacks(x: Tensor, y: Tensor, logits: Tensor) -> Reattacked:
            key = digest_of(norm.name, eps, attacked.victim.form, attacked.victim.precision, x, y)
            return reattack(probe, attacked, x, y, logits, norm, eps, towards, (self._memory.tried, key))

        at = some_of(len(targets), IMAGES, probe.x.device)
        x, y = targets.pixels(at), targets.labels[at]
        test = attacks(x, y, probe.logits(x) if targets.logits is None else targets.logits[at])
        others = {}
        if train is not None:
            rows = some_of(len(train), 2 * IMAGES, train.device)
            images = {
                TRAINING: (train.pixels(rows), train.labels[rows]),
                HALVES: halves_joined(train, 2 * IMAGES),
            }
            others = {name: attacks(*self._right(*each)) for name, each in images.items() if len(each[0])}
        return _Place(at, test, others, there)

    def _right(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of some images those that are classified correctly, with labels and logits; at most as many as of the test
        images."""
        logits = self._probe.logits(x)
        right = (logits.argmax(1) == y).nonzero().flatten()[:IMAGES]
        return x[right], y[right], logits[right]

    def _compare(self, place: _Place, key: tuple[str, Fraction], outcome: Outcome) -> Iterator[Finding]:
        test, eps = place.test, float(key[1])
        fooled = torch.from_numpy(outcome.fooled)[place.at.cpu()].to(test.nearest.device)
        yield from place.there
        yield from audit_reattack(test, fooled, eps)
        stands = 1 - float(outcome.fooled.mean())
        doubted = [name for name, other in place.others.items() if _less_robust(name, other, stands)]
        if doubted:
            attacked = {name: _by_gradients(place.others[name]) for name in doubted}
            yield from audit_robust_on_test_alone(_by_gradients(test), attacked, eps)


def _less_robust(name: str, other: Reattacked, stands: float) -> bool:
    """Whether a few images may withstand clearly more seldom than test images, of which a share ``stands``."""
    few = torch.arange(len(other.nearest), device=other.nearest.device) < SCREENED
    n = int(few.sum())
    withstand = n - int(_by_gradients(other, few).sum())
    return n > 0 and withstand / n < stands - UNDER_ATTACK[name] / 2


def _by_gradients(attacks: Reattacked, rows: Tensor | None = None) -> Tensor:
    """Which images (N,) gradient steps fool with either loss; of those marked in ``rows``, or of all."""
    rows = torch.ones_like(attacks.nearest, dtype=torch.bool) if rows is None else rows
    fooled = attacks.cross_entropy(rows)
    return fooled | attacks.margin(rows & ~fooled)
