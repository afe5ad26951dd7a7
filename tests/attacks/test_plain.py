"""The engine gives the verdicts of the plain loop, row by row, whatever the attack and however the rows are packed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from epsbench.attacks import APGD, APGDT, FABT, MIFGSM, PGD, Attack, Noise, Square
from epsbench.attacks.losses import DLR, KLToClean, Margin
from epsbench.attacks.norms import NORMS, Norm
from epsbench.attacks.plain import path
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Impatient(PGD):
    """Ends after a number of steps that differs from row to row."""

    def done(self, rows, answer, state):
        return rows.step >= rows.y % 3


class RowL2(Norm):
    """A norm of a user's own: the largest Euclidean length of a row of pixels."""

    name = "row-l2"

    def size(self, delta):
        return delta.norm(dim=3).flatten(1).amax(1)

    def direction(self, gradient):
        return gradient / gradient.norm(dim=3, keepdim=True).clamp_min(1e-12)

    def project(self, delta, eps):
        return delta * (eps / delta.norm(dim=3, keepdim=True).clamp_min(1e-12)).clamp_max(1)

    def start(self, noise, x, eps):
        return eps * noise.uniform(1)[:, :, None, None] * self.direction(noise.normal(*x.shape[1:]))


@dataclass(frozen=True, kw_only=True)
class Shaken(PGD):
    """Shows the network another image than the point."""

    def views(self):
        return (2,)

    def view(self, rows, x, number):
        shaken = x + (2 * rows.noise.uniform(*x.shape[1:]) - 1) * rows.eps / 4
        return shaken.roll(1, 3) if number else shaken / 2


def attacks(steps: int, attempts: int) -> st.SearchStrategy[Attack]:
    def any_of(norm) -> list[Attack]:
        return [
            PGD(steps=steps, restarts=attempts, random_start=True, norm=norm),
            PGD(steps=steps, loss=Margin(), norm=norm),
            PGD(steps=steps, loss=KLToClean(), random_start=True, norm=norm),
            MIFGSM(steps=steps, norm=norm),
            Impatient(steps=steps, norm=norm),
            Shaken(steps=steps, norm=norm),
            Noise(norm=norm),
            APGD(steps=steps, restarts=attempts, norm=norm),
            APGD(steps=steps, loss=DLR(), norm=norm),
            APGDT(steps=steps, targets=attempts, norm=norm),
        ]

    def of_some_norms(norm) -> list[Attack]:
        return [
            FABT(steps=steps, targets=attempts, norm=norm),
            Square(steps=steps, restarts=attempts, norm=norm),
        ]

    built_in = [norm for norm in NORMS.values() if norm.shrinks]
    made = [each for norm in (*built_in, RowL2()) for each in any_of(norm)]
    return st.sampled_from([*made, *(each for norm in built_in for each in of_some_norms(norm))])


def plain_verdicts(network, attack: Attack, eps: float, targets: Targets) -> np.ndarray:
    """Which targets any point of any attempt fools, within ε."""
    everyone = torch.arange(len(targets))
    x, y = targets.pixels(everyone), targets.labels
    radius = torch.full((len(x), 1, 1, 1), eps)
    fooled = torch.zeros(len(x), dtype=torch.bool)

    def ask(point, loss, *inputs):
        if attack.query == "logits":
            with torch.no_grad():
                return None, network(point)
        return loss_gradient(network, point, loss, inputs)

    with torch.no_grad():
        clean = network(x)
    for number in range(attack.attempts(clean.shape[1])):
        attempt = torch.full_like(everyone, number)
        points = path(
            attack,
            ask,
            x,
            y,
            radius,
            attempt,
            lambda step, k=attempt: targets.noise(0, everyone, k, step),
            lambda: clean,
        )
        for point in points:
            inside = attack.norm.size(point - x) <= eps + 1e-6
            with torch.no_grad():
                fooled |= inside & (network(point).argmax(1) != y)
    return fooled.numpy()


@settings(max_examples=40, deadline=None, phases=(Phase.reuse, Phase.generate))
@given(
    data=st.data(), steps=st.integers(1, 7), attempts=st.integers(1, 3), batch=st.integers(1, 70),
    n=st.integers(1, 40), early=st.booleans(), poll=st.integers(1, 4),
)  # fmt: skip
def test_the_engine_is_the_plain_loop(network, digits, data, steps, attempts, batch, n, early, poll):
    attack = data.draw(attacks(steps, attempts))
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:n]
    targets = Targets(lambda at: x[right][at], y[right], right)
    tenth, fifth, half = Fraction(1, 10), Fraction(1, 5), Fraction(1, 2)
    radii = {"linf": [tenth, fifth], "row-l2": [tenth, fifth], "l2": [half]}
    eps = radii.get(attack.norm.name, [Fraction(3, 2)])
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    engine = Engine(victim, Judge(network, CPU), targets, batch, poll=poll)
    for outcome in engine.run(attack, eps, seed=0, early_stop=early):
        expected = plain_verdicts(network, attack, float(outcome.eps), targets)
        # FAB goes on from its points without a limit; rounding in another batch may move one across the boundary.
        differing = int((outcome.fooled != expected).sum())
        assert differing <= (1 if isinstance(attack, FABT) else 0), (attack, differing)


def test_a_candidate_is_decided_at_the_point_and_not_at_its_view(network, digits):
    """The view is another class for the network; the points are not."""
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:20]
    counts = []

    @dataclass(frozen=True, kw_only=True)
    class Elsewhere(PGD):
        def view(self, rows, x, number):
            return 1 - x

        def step(self, rows, answer, state):
            with torch.no_grad():
                torch.testing.assert_close(answer.logits, network(answer.x), rtol=1e-4, atol=1e-4)
            counts.append(len(rows.x))
            return super().step(rows, answer, state)

    targets = Targets(lambda at: x[right][at], y[right], right)
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    attack = Elsewhere(steps=4)
    (outcome,) = Engine(victim, Judge(network, CPU), targets, 7).run(attack, [Fraction(1, 100)], seed=0)
    assert outcome.backwards == sum(counts)
    assert outcome.forwards == 2 * sum(counts)
    assert attack.forwards(10) == 4


def test_a_view_without_a_gradient_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Blind(Square):
        def view(self, rows, x, number):
            return x

    with pytest.raises(ValueError, match=r"defines view\(\), which changes where a gradient is taken"):
        Blind().check(10)
