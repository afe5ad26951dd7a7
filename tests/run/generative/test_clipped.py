"""Clipped Density and Clipped Coverage against loops, simulated balls and sets whose share of good samples is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epsbench.harness.run.generative.clipped import clipped_coverage, clipped_density, filling
from epsbench.harness.run.generative.overlap import Overlap


def points(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [30, 31])
def test_counts_against_loops(n):
    real, generated, k = points(n).numpy(), (points(23, seed=1) + 0.4).numpy(), 3
    radius = np.array([sorted(np.linalg.norm(real - point, axis=1))[k] for point in real])
    short = np.minimum(radius, np.median(radius))
    overlap = Overlap.of(torch.from_numpy(real), torch.from_numpy(generated), k)
    for j, point in enumerate(generated):
        inside = (np.linalg.norm(real - point, axis=1) <= short).sum()
        assert overlap.clipped[j].item() == pytest.approx(min(inside / k, 1))
    for i, point in enumerate(real):
        inside = (np.linalg.norm(real - point, axis=1) <= short).sum() - 1 * (short[i] >= 0)
        assert overlap.clipped_real[i].item() == pytest.approx(min(inside / k, 1))
        filled = (np.linalg.norm(generated - point, axis=1) <= radius[i]).sum()
        assert overlap.filled[i].item() == pytest.approx(min(filled / k, 1))


def test_a_radius_between_the_two_middle_ones_is_the_limit():
    # The balls reach 1, 1, 3 and 3, so the limit is 2. The point at 12.5 is 1.5 from the one at 14, the other 2.5.
    real = torch.tensor([0.0, 1.0, 14.0, 17.0])[:, None]
    overlap = Overlap.of(real, torch.tensor([12.5, 11.5])[:, None], k=1)
    assert overlap.clipped.tolist() == [1, 0]
    assert overlap.realistic.tolist() == [True, True]


def test_the_filling_of_simulated_balls():
    n, m, k, rounds = 12, 9, 3, 4000
    generator = np.random.default_rng(0)
    measured = []
    for _ in range(rounds):
        # On a line, seen from 0: the ball reaches to the k-th nearest of n − 1 others.
        others, samples = generator.random(n - 1), generator.random(m)
        measured.append(min((samples <= np.sort(others)[k - 1]).sum(), k) / k)
    expected = filling(n, m, k)
    assert expected[0] == 0
    assert len(expected) == m + 1
    assert (np.diff(expected) > 0).all()
    assert expected[-1] == pytest.approx(np.mean(measured), abs=4 * np.std(measured) / rounds**0.5)


@pytest.mark.parametrize("good", [0.25, 0.5, 0.8, 1.0])
def test_the_share_of_good_samples_is_read_off(good):
    n = 1500
    generated = points(n, seed=1)
    generated[int(good * n) :] += 1000
    overlap = Overlap.of(points(n), generated)
    assert clipped_coverage(overlap).value == pytest.approx(good, abs=0.04)
    assert clipped_density(overlap).value == pytest.approx(good, abs=0.04)


def test_an_outlying_image_does_not_make_noise_look_good():
    # One image far away has a ball that holds all of the noise around it: density counts it, clipped density does not.
    real = torch.cat([points(400), torch.full((1, 3), 60.0)])
    overlap = Overlap.of(real, points(400, seed=1) * 5 + 60)
    assert overlap.density.mean() > 0.15
    assert clipped_density(overlap).value < 0.01


def test_crowding_does_not_make_up_for_samples_far_away():
    # Half of the samples are the most crowded image again and again; the others are noise.
    x = points(500)
    crowded = x[Overlap.of(x, x).density.argmax()].expand(250, 3)
    overlap = Overlap.of(x, torch.cat([crowded, points(250, seed=1) + 100]))
    assert overlap.density.mean() > 0.6
    assert clipped_density(overlap).value == pytest.approx(0.5 / overlap.clipped_real.mean().item(), abs=0.01)


def test_nothing_in_common_is_0():
    overlap = Overlap.of(points(50), points(40, seed=1) + 100)
    assert (clipped_density(overlap).value, clipped_coverage(overlap).value) == (0, 0)


def test_intervals_hold_the_value():
    overlap = Overlap.of(points(200), points(200, seed=1) + 0.5)
    for metric in (clipped_density(overlap), clipped_coverage(overlap)):
        assert 0 <= metric.low < metric.value < metric.high <= 1
        assert metric.n == 200
