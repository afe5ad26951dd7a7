"""Smallest changes by solvers that share no code with the attacks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog, minimize


def least_change(norm: str, x: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The size of the least δ with x + δ in [0, 1] and a δ ≥ b, for x (d,), a (k, d) and b (k,); ∞ where none is."""
    d, bounds = len(x), list(zip(-x, 1 - x, strict=True))
    if norm == "l1":
        split = [(0, 1 - each) for each in x] + [(0, each) for each in x]
        result = linprog(np.ones(2 * d), A_ub=np.hstack([-a, a]), b_ub=-b, bounds=split)
    else:
        eye, one = np.eye(d), np.ones((d, 1))
        rows = np.vstack([np.hstack([-a, np.zeros((len(a), 1))]), np.hstack([eye, -one]), np.hstack([-eye, -one])])
        result = linprog(np.eye(d + 1)[d], A_ub=rows, b_ub=np.r_[-b, np.zeros(2 * d)], bounds=[*bounds, (0, None)])
    if result.status == 2:
        return np.inf
    assert result.success
    if norm != "l2":
        return float(result.fun)
    result = minimize(
        lambda z: z @ z, result.x[:d], jac=lambda z: 2 * z, method="SLSQP", bounds=bounds, tol=1e-14,
        constraints={"type": "ineq", "fun": lambda z: a @ z - b, "jac": lambda z: a}, options={"maxiter": 1000},
    )  # fmt: skip
    assert result.success
    return float(np.sqrt(result.fun))


def fewest_changes(x: np.ndarray, w: np.ndarray, gap: float, pixels: bool) -> int:
    """How many numbers, or pixels, of x (C, H, W) must change for ⟨w, x⟩ to rise by the gap: those that gain most."""
    gains = np.abs(w) * np.where(w > 0, 1 - x, x)
    ordered = np.sort((gains.sum(0) if pixels else gains).ravel())[::-1]
    return int((ordered.cumsum() < gap).sum() + 1)
