"""`Norm.step`: the step of a given size that gains the most along a gradient, within the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from epsbench.attacks.norms import NORMS

SHAPE = (2, 3, 4)


def place() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (6, 2, 3, 4), of which many pixels are at a face of the box, and gradients."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(6, *SHAPE, generator=generator) * 2 - 0.5).clamp(0, 1)
    return x, torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("size", [0.3, 2.5, 100.0])
def test_a_step_under_l1_gains_the_most_that_a_change_within_the_box_can(size):
    x, gradient = place()
    moved = NORMS["l1"].step(x, gradient, x.new_full((len(x), 1, 1, 1), size))
    assert ((moved >= 0) & (moved <= 1)).all()
    assert (NORMS["l1"].size(moved - x) <= size + 1e-5).all()
    gained = ((moved - x) * gradient).flatten(1).sum(1)
    for row in range(len(x)):
        # Of a change p − q with p, q ≥ 0, the size is Σ (p + q).
        flat, slope = x[row].flatten().double().numpy(), gradient[row].flatten().double().numpy()
        best = linprog(
            np.concatenate([-slope, slope]), np.ones((1, 2 * len(flat))), [size],
            bounds=[(0, 1 - pixel) for pixel in flat] + [(0, pixel) for pixel in flat],
        )  # fmt: skip
        assert float(gained[row]) == pytest.approx(-best.fun, rel=1e-4)


@pytest.mark.parametrize("norm", ["l0", "l0-pixels"])
@pytest.mark.parametrize("size", [0.75, 3.0])
def test_a_step_under_l0_takes_the_changes_that_gain_the_most(norm, size):
    x, gradient = place()
    l0 = NORMS[norm]
    moved = l0.step(x, gradient, x.new_full((len(x), 1, 1, 1), size))
    assert ((moved >= 0) & (moved <= 1)).all()
    assert (l0.size(moved - x) == (1 if size < 1 else size)).all()
    # The most that every pixel can gain, and that of the chosen ones.
    most = torch.maximum(gradient * (1 - x), -gradient * x)
    units = most.sum(1).flatten(1) if norm == "l0-pixels" else most.flatten(1)
    expected = units.topk(max(1, int(size)), 1).values.sum(1)
    torch.testing.assert_close(((moved - x) * gradient).flatten(1).sum(1), expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_other_norms_take_a_plain_step(norm):
    x, gradient = place()
    size = x.new_full((len(x), 1, 1, 1), 0.4)
    assert NORMS[norm].step(x, gradient, size).equal(x + 0.4 * NORMS[norm].direction(gradient))
