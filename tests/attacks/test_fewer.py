"""The end of a search for the fewest changes: exchanged changes, against closed forms and without them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import CPU, Linear, Plane, _sparse, engine_of

from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.sigma_zero import SigmaZero
from epsbench.harness.run.attack.fewer import Fewer
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.line_search import lead_of


def fewer(network: torch.nn.Module, norm: str, rounds: int = 60) -> tuple[Fewer, list[int]]:
    """The search on a network, and how many rows it has asked the gradient of, call by call."""
    asked: list[int] = []

    def ask(x, y, examples):
        asked.append(len(x))
        gradient, logits = loss_gradient(network, x, Margin(), (y,))
        return gradient, lead_of(logits, y)

    return Fewer(Judge(network, CPU), ask, NORMS[norm], rounds, 16), asked


def test_on_a_plane_the_fewest_changes_are_left():
    generator = torch.Generator().manual_seed(3)
    x, w = torch.rand(12, 1, 5, 5, generator=generator), torch.randn(1, 5, 5, generator=generator)
    value = (x * w).flatten(1).sum(1)
    b = float(value.max()) + 0.5
    far = (w > 0).float().expand_as(x)  # every number at the face that helps
    _, exact = _sparse(w, b - value, x)
    search, _ = fewer(Plane(w, b), "l0")
    ends = search(x, far, torch.zeros(12, dtype=torch.int64), torch.arange(12))
    assert (search.norm.size(ends - x) == exact).all()
    assert (exact < 20).all()


@pytest.mark.parametrize("norm", ["l0", "l0-pixels"])
def test_points_go_on_fooling_and_never_have_more_changes(norm):
    generator = torch.Generator().manual_seed(4)
    network = Linear(torch.randn(5, 48, generator=generator))
    x = torch.rand(40, 3, 4, 4, generator=generator)
    points = torch.rand(40, 3, 4, 4, generator=generator)
    with torch.no_grad():
        y = network(x).argmax(1)
        rows = (network(points).argmax(1) != y).nonzero().flatten()
    x, points, y = x[rows], points[rows], y[rows]
    search, asked = fewer(network, norm, 7)
    ends = search(x, points, y, torch.arange(len(x)))
    with torch.no_grad():
        assert (network(ends).argmax(1) != y).all()
    before, after = (search.norm.size(each - x) for each in (points, ends))
    assert (after <= before).all()
    assert after.median() < before.median() / 2
    assert ends.min() >= 0
    assert ends.max() <= 1
    assert len(asked) <= 7


def test_exchanged_changes_bring_few_steps_as_near_as_many(network, digits):
    x, y = (each[:40] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    runs = {}
    for name, attack in {
        "few": SigmaZero(norm=NORMS["l0"]),
        "bare": SigmaZero(norm=NORMS["l0"], polish=0),
        "many": SigmaZero(norm=NORMS["l0"], polish=0, steps=300, step_size=1.0),
    }.items():
        (runs[name],) = engine_of(network, x, y).run(attack, [Fraction(1)], seed=0)
    assert runs["few"].distances.mean() < runs["bare"].distances.mean()
    assert np.median(runs["few"].distances) <= np.median(runs["many"].distances)
    assert runs["few"].backwards < runs["many"].backwards / 3
    assert runs["bare"].backwards == 50 * len(x)


def test_a_step_size_must_be_above_0():
    with pytest.raises(ValueError, match="step_size must be above 0, not 0"):
        replace(SigmaZero(norm=NORMS["l0"]), step_size=0)
