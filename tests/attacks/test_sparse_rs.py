"""Sparse-RS on a toy whose best pixels are known, and under a norm that counts pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch import nn

from epsbench.attacks.norms.base import Norm
from epsbench.attacks.sparse_rs import SparseRS
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pixels(Norm):
    """The number of changed pixels."""

    name: ClassVar[str] = "l0-pixels"

    def size(self, delta):
        return (delta != 0).any(1).flatten(1).sum(1).float()

    def start(self, noise, x, eps):
        raise NotImplementedError

    def direction(self, gradient):
        raise NotImplementedError

    def project(self, delta, eps):
        change = delta.abs().sum(1).flatten(1)
        keep = change.argsort(1, descending=True).argsort(1) < eps.flatten()[:, None]
        return delta * keep.view(len(delta), 1, *delta.shape[2:])


class Score(nn.Module):
    """Class 1 where the weighted sum of all pixels is above a threshold."""

    def __init__(self, w: torch.Tensor, threshold: float) -> None:
        super().__init__()
        self.w, self.threshold = nn.Parameter(w), threshold

    def forward(self, x):
        z = (x * self.w).flatten(1).sum(1) - self.threshold
        return torch.stack([-z, z], 1)


def outcomes(network, x, eps, batch=64, **options):
    y = torch.zeros(len(x), dtype=torch.int64)
    targets = Targets.of(x, y)
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    attack = SparseRS(norm=Pixels(), **options)
    return list(Engine(victim, Judge(network, CPU), targets, batch, 9).run(attack, list(map(Fraction, eps)), seed=0))


@pytest.mark.parametrize("channels", [1, 3])
def test_it_finds_the_best_pixels_and_never_more_than_they_give(channels):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(channels, 4, 4, generator=generator)
    x = torch.full((6, channels, 4, 4), 0.5)
    gain = (w.abs() / 2).sum(0).flatten().sort(descending=True).values  # of a pixel at its best corner
    start = float((x[0] * w).sum())
    reachable = start + float(gain[:2].sum())  # by two pixels
    (within,) = outcomes(Score(w, reachable - 1e-3), x, [2], steps=2_000)
    assert within.fooled.all()
    assert within.size.max() <= 2
    (beyond,) = outcomes(Score(w, reachable + 1e-3), x, [2], steps=300)
    assert not beyond.fooled.any()
    assert beyond.forwards == 300 * 6


def test_a_query_moves_the_scheduled_share_of_pixels():
    w = torch.zeros(1, 10, 10)
    w[0, 0, 0] = 1e-9  # no point is better than another by more than this, so every query is about as good
    x, seen = torch.full((1, 1, 10, 10), 0.5), []

    class Spy(Score):
        def forward(self, images):
            seen.append((images[:1] != 0.5).flatten())  # one image, which the engine may repeat in a batch
            return super().forward(images)

    outcomes(Spy(w, 1.0), x, [40], steps=400)
    asked = [each for each in seen if each.shape == (100,) and each.any()]  # but for the clean image
    assert all(int(each.sum()) == 40 for each in asked[:400])
    moved = [int((a & ~b).sum()) for a, b in pairwise(asked[:4])]
    assert max(moved) <= 12  # two steps of ⌈0.3 / 2 · 40⌉ at most, where the first was refused
    last = [int((a & ~b).sum()) for a, b in pairwise(asked[390:399])]
    assert 1 <= max(last) <= 2  # ⌈0.3 / 20 · 40⌉ = 1


@pytest.mark.parametrize("k", [9, 8])
def test_pixels_that_have_nowhere_to_move_get_new_corners(k):
    """Of k of 9 pixels, ⌈0.15 k⌉ = 2 change a query: as many as there are others move, the rest are drawn anew."""
    w = torch.zeros(1, 3, 3)
    w[0, 0, 0] = 1e-9  # every query is about as good, so most are kept
    x, seen = torch.full((1, 1, 3, 3), 0.5), []

    class Spy(Score):
        def forward(self, images):
            seen.append(images[0].flatten())
            return super().forward(images)

    outcomes(Spy(w, 1.0), x, [k], steps=40)
    asked = [each for each in seen if bool((each != 0.5).any())][:40]
    assert len(asked) == 40
    assert all(int((each != 0.5).sum()) == k for each in asked)
    assert len({tuple(each.tolist()) for each in asked}) > 10
    changes = [int((a != b).sum()) for a, b in pairwise(asked[:20])]
    assert max(changes) <= 6  # two steps, where the first was refused, and a move changes two pixels


def test_all_pixels_find_what_their_best_corners_give():
    w = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(2))
    x = torch.full((4, 1, 3, 3), 0.5)
    reachable = float((x[0] * w).sum() + w.abs().sum() / 2)
    (outcome,) = outcomes(Score(w, reachable - 1e-3), x, [9], steps=400)
    assert outcome.fooled.all()


def test_a_row_knows_nothing_of_its_neighbours():
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(1, 5, 5, generator=generator)
    x = torch.rand(7, 1, 5, 5, generator=generator) / 2
    network = Score(w, float((x * w).flatten(1).sum(1).max()) + 1.5)
    verdicts = [outcomes(network, x, [1, 3], batch, steps=30)[1].fooled.tolist() for batch in (1, 3, 64)]
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_another_norm_is_refused():
    with pytest.raises(ValueError, match='norm = "l0-pixels"'):
        SparseRS().check(10)
    with pytest.raises(ValueError, match="alpha"):
        SparseRS(alpha=0.0)
