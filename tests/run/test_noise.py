"""Keyed noise: uniform, normal, and blind to the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from epsbench.attacks.norms.l2 import L2
from epsbench.attacks.norms.linf import LInf
from epsbench.harness.run.noise import KeyedNoise, NoiseAhead, _mix, stream_key


def splitmix(z: int) -> int:
    """SplitMix64's finaliser in unbounded integers, the reference for the tensor version."""
    mask = 2**64 - 1
    z &= mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return z ^ (z >> 31)


@given(st.integers(-(2**63), 2**63 - 1))
def test_the_hash_is_splitmix64(z):
    (hashed,) = _mix(torch.tensor([z])).tolist()
    assert hashed % 2**64 == splitmix(z)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True), st.integers(0, 99))
def test_a_row_draws_the_same_alone_and_in_company(examples, restart):
    index = torch.tensor(examples)
    together = KeyedNoise(3, index, torch.full_like(index, restart))
    drawn = together.uniform(2, 3), together.normal(4)
    for row, example in enumerate(examples):
        alone = KeyedNoise(3, torch.tensor([example]), torch.tensor([restart]))
        assert torch.equal(alone.uniform(2, 3)[0], drawn[0][row])
        assert torch.equal(alone.normal(4)[0], drawn[1][row])


def test_draws_are_uniform_and_normal_and_differ_by_seed_restart_and_draw():
    index = torch.arange(200)
    noise = KeyedNoise(0, index, torch.zeros_like(index))
    first, second = noise.uniform(500), noise.uniform(500)
    assert stats.kstest(first.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(noise.normal(500).flatten().numpy(), "norm").pvalue > 1e-3
    others = [
        second,
        KeyedNoise(1, index, torch.zeros_like(index)).uniform(500),
        KeyedNoise(0, index, torch.ones_like(index)).uniform(500),
        KeyedNoise(0, index + 1, torch.zeros_like(index)).uniform(500),
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1]) < 0.01
    assert (first >= 0).all()
    assert (first < 1).all()


@pytest.mark.parametrize("norm", [LInf(), L2()], ids=lambda norm: norm.name)
def test_random_starts_are_uniform_in_the_ball(norm):
    index = torch.arange(4000)
    x = torch.zeros(4000, 1, 2, 2)
    eps = torch.full((4000, 1, 1, 1), 0.25)
    size = norm.size(norm.start(KeyedNoise(0, index, torch.zeros_like(index)), x, eps)) / 0.25
    # The share of a d-dimensional ball within radius r of its centre is r^d.
    assert stats.kstest(size.numpy() ** 4, "uniform").pvalue > 1e-3


@settings(deadline=None)
@given(rows=st.integers(1, 5), taken=st.lists(st.integers(0, 9), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_noise_drawn_ahead_is_that_of_every_step(rows, taken, seed):
    example, stream = torch.arange(rows) * 7 + seed, torch.arange(rows) % 3
    key, step = stream_key(seed, example, stream), torch.arange(rows) * 11
    ahead = NoiseAhead(key, step)
    for many in sorted(taken):  # a step may be asked for again, and one may be left out
        expected, actual = KeyedNoise.of_stream(key, step + many), ahead.after(many)
        for shape in ((3,), (2, 4), (3,), ()):
            assert torch.equal(actual.uniform(*shape), expected.uniform(*shape))
        assert torch.equal(actual.normal(5), expected.normal(5))
