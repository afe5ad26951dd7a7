"""Norms: projection, direction, and their closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.l2 import L2
from epsbench.attacks.norms.linf import LInf

deltas = hnp.arrays("float32", (3, 2, 2, 2), elements=st.floats(-4, 4, width=32)).map(torch.from_numpy)
radii = st.floats(0, 2, width=32).map(lambda eps: torch.full((3, 1, 1, 1), eps))
norms = st.sampled_from(list(NORMS.values()))


@given(norms, deltas, radii)
def test_projection_lands_in_the_ball_and_is_idempotent(norm, delta, eps):
    projected = norm.project(delta, eps)
    assert (norm.size(projected) <= eps.flatten() * (1 + 1e-5) + 1e-7).all()
    torch.testing.assert_close(norm.project(projected, eps), projected, rtol=1e-5, atol=1e-6)


@given(norms, deltas, radii)
def test_projection_leaves_the_ball_alone(norm, delta, eps):
    inside = norm.size(delta) <= eps.flatten() * (1 - 1e-5)
    torch.testing.assert_close(norm.project(delta, eps)[inside], delta[inside], rtol=1e-5, atol=1e-6)


@given(norms, deltas)
def test_no_unit_step_gains_more_than_the_direction(norm, gradient):
    """⟨direction, g⟩ is the dual norm of g: the most any step of size 1 can gain."""
    gain = (norm.direction(gradient) * gradient).flatten(1).sum(1)
    dual = gradient.flatten(1).abs().sum(1) if norm == LInf() else gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(gain, dual, rtol=1e-4, atol=1e-6)
    assert (norm.size(norm.direction(gradient)) <= 1 + 1e-5).all()


@pytest.mark.parametrize("norm", [LInf(), L2()], ids=lambda norm: norm.name)
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-30])
def test_direction_survives_tiny_gradients_and_zero(norm, scale):
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[0] = torch.tensor([[[3.0, 0.0], [0.0, -4.0]]]) * scale
    direction = norm.direction(gradient)
    assert norm.size(direction).tolist() == pytest.approx([1.0, 0.0])
