"""Neighbours and balls by products of matrices: bit for bit those of the distances themselves."""

from __future__ import annotations

import pytest
import torch

from epsbench.harness.run.generative import overlap as module
from epsbench.harness.run.generative.overlap import Balls, Pairs, distances, nearest_points


def normal(n, d=20, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


SETS = {
    "normal": normal(300),
    "far from 0": normal(300) + 1000,
    "very near": normal(300) * 1e-3 + 50,
    "with copies": normal(30).repeat(10, 1),
    "one point": normal(1).expand(300, 20).clone(),
    "on a grid": normal(300, 3).round(),
    "of one dimension": torch.arange(300.0)[:, None] % 7,
    "of units that rarely fire": normal(300).sub(1.5).relu(),
}


@pytest.fixture(params=SETS)
def points(request):
    return SETS[request.param]


def test_neighbours(points, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 70)
    to_all = distances(points, points).fill_diagonal_(torch.inf)
    expected = to_all.topk(5, largest=False).values
    distance, index = nearest_points(points, 5)
    assert torch.equal(distance, expected)
    assert torch.equal(to_all.gather(1, index), distance)
    assert all(len(set(row)) == 5 for row in index.tolist())


def test_all_others_can_be_neighbours():
    few = normal(6)
    assert torch.equal(nearest_points(few, 5)[0], distances(few, few).fill_diagonal_(torch.inf).sort().values[:, :5])


@pytest.mark.parametrize("at_once", [7, 2**16])
def test_who_lies_in_which_ball(points, at_once, monkeypatch):
    """Also points on the edge: the limits are the distances themselves, of every pair in turn."""
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    others = torch.cat([points[:50], points[50:100] + 0.1])
    exact, pairs = distances(points, others), Pairs.of(points, others)
    radius = Balls.around(points).radii
    assert torch.equal(pairs.within(radius[:, None]), exact <= radius[:, None])
    for column in (0, 3, 70):
        limit = exact[:, column]
        assert torch.equal(pairs.within(limit[:, None]), exact <= limit[:, None])
        below = torch.nextafter(limit, torch.zeros(()))
        assert torch.equal(pairs.within(below[:, None]), exact <= below[:, None])
    assert torch.equal(pairs.within(exact[5]), exact <= exact[5])


def test_few_pairs_are_computed(monkeypatch):
    computed = []
    compute = distances

    def counted(a, b):
        computed.append(a.shape[:-1].numel() * b.shape[-2])
        return compute(a, b)

    monkeypatch.setattr(module, "distances", counted)
    x, y = normal(400), normal(400, seed=1)
    Pairs.of(x, y).within(Balls.around(x).radii[:, None])
    assert sum(computed) < 400 * 400 / 20
