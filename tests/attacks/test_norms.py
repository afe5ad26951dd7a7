"""Norms: projection, direction, and their closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from epsbench.attacks.norms import L0, L1, NORMS, L0Pixels
from epsbench.attacks.norms.base import choose_rows, laid_out_as, per_row, stuck
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


@settings(max_examples=50)
@given(st.sampled_from(list(NORMS.values())), deltas, st.integers(0, 2**31), st.floats(0, 6, width=32))
def test_projection_is_on_ball_and_box_and_no_other_point_there_is_nearer(norm, point, seed, radius):
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.rand(3, 2, 2, 2, generator=generator), torch.full((3, 1, 1, 1), radius)
    inside = norm.into_ball(x, point, eps)
    assert ((inside >= 0) & (inside <= 1)).all()
    assert (norm.size(inside - x) <= radius * (1 + 1e-5) + 1e-6).all()
    if norm.name == "l2":
        return  # it is projected on the ball, then on the box, as in the field; that is not always the nearest point
    distance = (point - inside).flatten(1).norm(dim=1)
    for share in (0.0, 0.1, 0.5, 1.0):
        other = inside + share * (torch.rand(x.shape, generator=generator) - inside)
        other = norm.into_ball(x, other, eps)
        assert ((point - other).flatten(1).norm(dim=1) >= distance - 1e-4).all()


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
@pytest.mark.parametrize("share", [1e-3, 1.0])
def test_rounding_takes_no_image_of_many_pixels_out_of_its_ball(name, share):
    """Changes that one number shortens may all be rounded the same way: by 1.5e-3 in sum, under L1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2, 3, 224, 224), generator=generator) / 255
    change = torch.randn(x.shape, generator=generator) * (torch.rand(x.shape, generator=generator) < share)
    for radius in {"linf": (4 / 255,), "l2": (0.5, 5.0), "l1": (5.0, 60.0)}[name]:
        point = x + radius * 1.05 * change / per_row(NORMS[name].size(change))
        inside = NORMS[name].into_ball(x, point, torch.full((2, 1, 1, 1), radius))
        size = NORMS[name].size(inside.double() - x.double())
        assert (size <= radius + 1e-6 * max(1, radius)).all()
        if share == 1.0:
            assert (size > 0.98 * radius).all()  # and the ball is used


@settings(max_examples=40)
@given(deltas, st.floats(0.125, 3, width=32))
def test_the_l1_projection_is_the_one_by_sorting(delta, radius):
    """Duchi et al. (2008), figure 1."""
    projected = L1().project(delta, torch.full((3, 1, 1, 1), radius))
    for row, expected in zip(projected, delta, strict=True):
        size = expected.flatten().abs()
        if float(size.sum()) > radius:
            ordered = size.sort(descending=True).values
            excess = (ordered.cumsum(0) - radius) / torch.arange(1, 9)
            threshold = excess[int((ordered > excess).sum()) - 1]
            size = (size - threshold).clamp_min(0)
        torch.testing.assert_close(row.flatten(), size * expected.flatten().sign(), rtol=1e-4, atol=1e-5)


def test_pixels_and_features_are_counted_apart():
    delta = torch.zeros(1, 3, 2, 2)
    delta[0, :, 0, 1] = torch.tensor([0.5, 0.25, 0.0])
    delta[0, 2, 1, 1] = -0.1
    assert (L0().size(delta).item(), L0Pixels().size(delta).item()) == (3, 2)
    one = torch.ones(1, 1, 1, 1)
    assert L0().project(delta, one).nonzero().tolist() == [[0, 0, 0, 1]]
    torch.testing.assert_close(L0Pixels().project(delta, one)[0, :, 0, 1], delta[0, :, 0, 1])
    assert L0Pixels().size(L0Pixels().project(delta, one)).item() == 1


@settings(max_examples=30)
@given(st.sampled_from([norm for norm in NORMS.values() if norm.shrinks]), deltas)
def test_the_dual_norm_is_what_the_direction_gains(norm, gradient):
    gain = (norm.direction(gradient) * gradient).flatten(1).sum(1)
    torch.testing.assert_close(norm.dual(gradient), gain, rtol=1e-4, atol=1e-6)


@given(st.sampled_from([norm for norm in NORMS.values() if norm.shrinks]), deltas)
def test_no_unit_step_gains_more_than_the_direction(norm, gradient):
    """⟨direction, g⟩ is the dual norm of g: the most any step of size 1 can gain."""
    gain = (norm.direction(gradient) * gradient).flatten(1).sum(1)
    flat = gradient.flatten(1)
    dual = {"linf": flat.abs().sum(1), "l2": flat.norm(dim=1), "l1": flat.abs().amax(1)}[norm.name]
    torch.testing.assert_close(gain, dual, rtol=1e-4, atol=1e-6)
    assert (norm.size(norm.direction(gradient)) <= 1 + 1e-5).all()


@pytest.mark.parametrize("norm", [LInf(), L2(), L1()], ids=lambda norm: norm.name)
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-30])
def test_direction_survives_tiny_gradients_and_zero(norm, scale):
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[0] = torch.tensor([[[3.0, 0.0], [0.0, -4.0]]]) * scale
    direction = norm.direction(gradient)
    assert norm.size(direction).tolist() == pytest.approx([1.0, 0.0])


@given(chosen=st.lists(st.booleans(), min_size=1, max_size=6))
def test_whole_rows_are_chosen_as_where_chooses_them(chosen):
    yes, no = torch.full((len(chosen), 1, 2, 2), torch.nan), torch.rand(len(chosen), 1, 2, 2)
    before, rows = no.clone(), torch.tensor(chosen)
    actual = choose_rows(rows, yes, no)
    assert torch.equal(actual.isnan().flatten(1).all(1), rows)
    assert torch.equal(actual[~rows], before[~rows])
    assert torch.equal(no, before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_chosen_rows_keep_their_layout(layout):
    """Another one costs every later operation several times its time."""
    yes, no = (torch.rand(4, 3, 5, 6).contiguous(memory_format=layout) for _ in range(2))
    for count in range(5):
        assert choose_rows(torch.arange(4) < count, yes, no).stride() == no.stride()
    line = laid_out_as(no, torch.rand(4, 3, 1, 6))
    assert no.addcmul(torch.rand(4, 1, 5, 1), line).stride() == no.stride()
    assert line.stride(3) == (3 if layout == torch.channels_last else 1)


@given(st.sampled_from([NORMS[name] for name in ("l1", "l0", "l0-pixels")]), deltas, st.integers(0, 2**31))
def test_a_step_of_few_pixels_moves_some_that_can_move(norm, gradient, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 3, gradient.shape, generator=generator) / 2  # two thirds of all numbers are at a face
    step = norm.ascent(x, gradient)
    moved = (x + 0.1 * step).clamp(0, 1) - x
    room = gradient.where(~stuck(x, gradient), torch.zeros(()))
    assert ((moved != 0).flatten(1).any(1) == (room != 0).flatten(1).any(1)).all()
    torch.testing.assert_close((step * gradient).flatten(1).sum(1), norm.dual(room), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["l2", "linf"])
def test_a_step_of_all_pixels_is_the_direction(name):
    x, gradient = torch.ones(1, 1, 2, 2), torch.tensor([[[[1.0, -2.0], [0.0, 3.0]]]])
    torch.testing.assert_close(NORMS[name].ascent(x, gradient), NORMS[name].direction(gradient), rtol=0, atol=0)
