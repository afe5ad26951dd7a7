"""Nearest training images against a plain loop, and the median's interval against the binomial distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from epsbench.harness.run.generative import neighbours as module
from epsbench.harness.run.generative.neighbours import nearest, neighbours
from epsbench.harness.run.metrics import median_metric
from epsbench.harness.run.speed import torch_private


def images(n, seed, shape=(1, 4, 4)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 16, (n, *shape), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("batch", [3, 256])
def test_against_a_loop(batch, monkeypatch):
    monkeypatch.setattr(module, "BATCH", batch)
    a, b = images(20, 0, (2, 3, 3)), images(50, 1, (2, 3, 3))
    distance, index = nearest(a, b)
    for i in range(20):
        each = [np.sqrt(((a[i].numpy().astype(float) - other.numpy()) ** 2).sum()) for other in b]
        assert index[i] == np.argmin(each)
        assert distance[i].item() == pytest.approx(min(each))


@pytest.mark.parametrize("brightest", [15, 63, 64, 255])
def test_products_of_bytes_and_of_floats_are_equal(brightest, monkeypatch):
    """Of the largest levels, too, that bytes are used for, and where only one of both sets has larger ones."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, brightest + 1, (n, 1, 20, 20), generator=generator, dtype=torch.uint8) for n in (60, 90))
    a[0], b[0], dark = brightest, brightest, b % 16
    bytewise = [nearest(a, b), nearest(a, dark)]
    monkeypatch.setattr(module, "FAST_AT_BYTES", frozenset())
    for one, other in zip(bytewise, (nearest(a, b), nearest(a, dark)), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    exact = (a.flatten(1).double()[:, None] - b.flatten(1).double()).square().sum(2).min(1)
    assert torch.equal(bytewise[0][1], exact.indices)


def test_bytes_are_used_where_they_are_fast_and_torch_has_the_product(monkeypatch):
    small, large = images(5, 0).flatten(1), images(5, 0).flatten(1) + 60
    monkeypatch.setattr(module, "FAST_AT_BYTES", {torch.backends.cpu.get_cpu_capability()})
    assert module._product_of_bytes(small) is not None
    assert module._product_of_bytes(large) is None
    expected = nearest(images(5, 0), images(9, 1))
    monkeypatch.setitem(torch_private.NAMES, "int_mm", "torch.nowhere._int_mm")
    assert module._product_of_bytes(small) is None
    assert all(torch.equal(*pair) for pair in zip(nearest(images(5, 0), images(9, 1)), expected, strict=True))


def test_copies_are_at_distance_0():
    train = images(30, 2)
    measured = neighbours(train[10:22], images(12, 3), train, 16)
    assert measured.metrics["neighbour_distance"].value == 0
    assert measured.metrics["floor_neighbour_distance"].value > 0
    above, below = measured.pictures["neighbours"]
    assert np.array_equal(above, below)


def test_distances_are_in_pixels():
    train = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    white = torch.full((9, 1, 2, 2), 15, dtype=torch.uint8)
    measured = neighbours(white, train, train, 16)
    assert measured.metrics["neighbour_distance"].value == pytest.approx(2)  # the root of four pixels' 1²
    assert measured.metrics["neighbour_distance"].n == 9
    assert measured.metrics["floor_neighbour_distance"].value == 0
    picture = measured.pictures["neighbours"]
    assert picture.shape == (2, 8, 1, 2, 2)
    assert picture.dtype == np.float32
    assert (picture[0] == 1).all()
    assert (picture[1] == 0).all()


def test_many_grey_levels():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8) for n in (10, 100))
    b[70] = a[3]
    expected = torch.cdist(a.flatten(1).double(), b.flatten(1).double()).min(1)
    distance, index = nearest(a, b)
    assert torch.equal(index, expected.indices)
    torch.testing.assert_close(distance.double(), expected.values, rtol=1e-6, atol=1e-3)
    assert distance[3] == 0


@pytest.mark.parametrize("n", [6, 10, 37, 500])
def test_the_interval_of_a_median(n):
    values = torch.arange(1, n + 1).float()[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    metric = median_metric(values)
    assert metric.value == (n + 1) / 2
    assert metric.n == n
    # The values are their ranks: the interval holds the median unless fewer than ``low`` lie below, or above, it.
    chance = stats.binom.cdf(metric.high - 1, n, 0.5) - stats.binom.cdf(metric.low - 1, n, 0.5)
    assert chance >= 0.95
    narrower = stats.binom.cdf(metric.high - 2, n, 0.5) - stats.binom.cdf(metric.low, n, 0.5)
    assert narrower < 0.95
    assert metric.low + metric.high == n + 1


def test_too_few_for_an_interval():
    metric = median_metric(torch.tensor([2.0, 1.0, 4.0]))
    assert (metric.value, metric.low, metric.high) == (2, None, None)
