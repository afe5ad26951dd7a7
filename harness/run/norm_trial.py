"""A user's own norm, tried before anything is trained: does it keep a change within its ball?"""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.attacks.norms.base import Norm, per_row
from epsbench.harness.errors import FAILURES
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.run.audits.attack import OUTSIDE
from epsbench.harness.run.noise import KeyedNoise

ROWS = 3


def norm_problem(norm: Norm, x: Tensor, eps: float) -> str | None:
    """What is wrong with a norm on images ``x`` (N, C, H, W) at ``eps``; None where nothing is."""
    x = x[:1].expand(ROWS, *x.shape[1:]).contiguous()
    index = torch.arange(ROWS, device=x.device)
    noise, radius = KeyedNoise(0, index, index), x.new_full((ROWS, 1, 1, 1), eps)
    delta = 2 * noise.uniform(*x.shape[1:]) - 1
    try:
        with isolated(0):
            return _misfit(norm, x, radius, delta, KeyedNoise(1, index, index))
    # The norm is the user's code: it may raise anything, or even try to exit.
    except FAILURES as error:
        return f"it raises {what_was_raised(error)}"


def _misfit(norm: Norm, x: Tensor, eps: Tensor, delta: Tensor, noise: KeyedNoise) -> str | None:
    images = {
        "project": norm.project(delta, eps), "start": norm.start(noise, x, eps), "direction": norm.direction(delta),
        "into_ball": norm.into_ball(x, x + delta, eps),
    }  # fmt: skip
    for method, value in images.items():
        if problem := _wrong(method, value, tuple(x.shape)):
            return problem
    for method, rows in (("size", norm.size(delta)), ("dual", norm.dual(delta))):
        if problem := _wrong(method, rows, (len(x),)):
            return problem
    if bool((norm.size(torch.zeros_like(x)) != 0).any()):
        return "size() of no change is not 0"
    # Twice, and scaled up: what is projected is inside, however far away it was.
    far = norm.project(1e3 * delta, eps)
    inside_of = (("project", images["project"]), ("start", images["start"]), ("project", far))
    for method, inside in (*inside_of, ("into_ball", images["into_ball"] - x)):
        if bool((norm.size(inside) > eps.flatten() * (1 + OUTSIDE) + OUTSIDE).any()):
            return f"what {method}() returns has size {float(norm.size(inside).max()):.6g} at ε = {float(eps[0]):g}"
    small = delta * per_row(0.5 * eps.flatten() / norm.size(delta).clamp_min(1e-12))
    if norm.shrinks and not torch.allclose(norm.project(small, eps), small, rtol=1e-4, atol=1e-6):
        return "project() moves a change that lies inside the ball"
    return None


def _wrong(method: str, value: object, shape: tuple[int, ...]) -> str | None:
    if not isinstance(value, Tensor):
        return f"{method}() returns a {type(value).__name__}, not a tensor"
    if tuple(value.shape) != shape:
        return f"{method}() returns the shape {tuple(value.shape)}, not {shape}"
    if not bool(value.isfinite().all()):
        return f"{method}() returns NaN or infinity"
    return None
