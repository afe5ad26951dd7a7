"""The steps that audits take under norms whose steepest direction is one pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lookups import RandomDecoyOfNetwork
from scipy.optimize import linprog
from zoo import codes, measure

from epsbench.attacks.norms import NORMS
from epsbench.harness.findings import voids
from epsbench.harness.run.audits.steepest import steepest

SHAPE = (2, 3, 4)


def place() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (6, 2, 3, 4), of which many pixels are at a face of the box, and gradients."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(6, *SHAPE, generator=generator) * 2 - 0.5).clamp(0, 1)
    return x, torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("size", [0.3, 2.5, 100.0])
def test_a_step_under_l1_gains_the_most_that_a_change_within_the_box_can(size):
    x, gradient = place()
    moved = steepest(NORMS["l1"], x, gradient, x.new_full((len(x), 1, 1, 1), size))
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
    moved = steepest(l0, x, gradient, x.new_full((len(x), 1, 1, 1), size))
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
    assert steepest(NORMS[norm], x, gradient, size).equal(x + 0.4 * NORMS[norm].direction(gradient))


@pytest.mark.parametrize(("norm", "eps"), [("l1", 5), ("l0", 8)])
def test_an_honest_model_is_not_blamed_for_a_norm_whose_step_is_one_pixel(honest, tmp_path, norm, eps):
    """One step of FGSM moves one pixel. That is the attack's weakness and no sign of masked gradients."""
    one, many = measure(honest, tmp_path, ['"fgsm"', '{ name = "pgd", steps = 10 }'], [eps], norm)
    assert one.metrics["robust_accuracy"].value > many.metrics["robust_accuracy"].value + 0.4  # what the audits see
    assert not voids([*one.findings, *many.findings])
    assert "catastrophic-overfitting" not in codes([one, many])


def test_masked_gradients_are_still_reported_under_such_a_norm(honest, tmp_path):
    records = measure(RandomDecoyOfNetwork(honest), tmp_path, ['{ name = "pgd", steps = 10 }'], [8], "l1")
    assert "score-search-beats-gradient" in codes(records)
