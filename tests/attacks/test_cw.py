"""Carlini and Wagner's attack: the weight of its first search, and where a search begins."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from known_distances import Plane, engine_of

from epsbench.attacks.cw import CW
from epsbench.attacks.plain import path
from epsbench.harness.run.attack.gradient import loss_gradient

SLOPE = torch.tensor([3.0, 1.0, 0.5, -2.0]).view(1, 2, 2)
X, Y = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.int64)


def points(attack: CW, network: torch.nn.Module) -> list[torch.Tensor]:
    """Every point that the attack asks about."""

    def ask(point, loss, *inputs):
        return loss_gradient(network, point, loss, inputs)

    one = torch.zeros(1, dtype=torch.int64)
    return list(path(attack, ask, X, Y, torch.ones(1, 1, 1, 1), one, lambda step: None, lambda: X))


def test_the_first_weight_is_that_of_the_plane_where_none_is_given():
    network = Plane(SLOPE, 2.0)
    attack = CW(steps=400, searches=1, learning_rate=0.01)
    end = points(attack, network)[-1]
    # Least is ‖δ‖² + c · margin where δ = −c / 2 times the gradient of the margin, for c = 2 · margin / ‖gradient‖².
    with torch.no_grad():
        margin = [float(logits[0] - logits[1]) for logits in (network(X)[0], network(end)[0])]
    assert margin[0] > 0.5
    assert abs(margin[1]) < 0.02 * margin[0]


@pytest.mark.parametrize("given", [None, 1e-3])
def test_a_search_begins_at_the_image_only_where_a_weight_is_given(given):
    asked = points(CW(steps=10, searches=2, learning_rate=0.05, first_weight=given), Plane(SLOPE, 2.0))
    away = [float((point - X).abs().max()) for point in asked]
    again = [number for number, distance in enumerate(away[1:], 1) if distance < 1e-5]
    assert bool(again) == (given is not None)


def test_few_steps_of_today_find_what_many_steps_of_the_paper_find():
    network = Plane(SLOPE, 2.0)
    paper = CW(steps=1000, searches=9, learning_rate=0.01, first_weight=1e-3, polish=0)
    runs = [next(iter(engine_of(network, X, Y).run(each, [Fraction(1)], seed=0))) for each in (CW(), paper)]
    assert runs[0].distances[0] <= 1.0001 * runs[1].distances[0]
    assert 20 * runs[0].backwards < runs[1].backwards
