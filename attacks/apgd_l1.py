"""Auto-PGD under L1: sparse steps, as sparse as the best point, in three stages of shrinking balls."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from epsbench.attacks.base import State
from epsbench.attacks.norms.base import Norm, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # the ball as a multiple of ε, and the share of the steps in it
SPARSE = 0.2  # the share of the features that the first steps change
SPARSER = 0.95  # below this share of the last sparsity, the step is long again and starts from the best point
SHORTER, SHORTEST = 1.5, 10.0  # the step's length is divided by the first, and never below ε over the second
EVERY = 0.04  # the share of a stage's steps between two checkpoints


@cache
def stages(steps: int) -> tuple[tuple[int, float], ...]:
    """After how many steps each stage begins, and the multiple of ε of its ball."""
    first, second = int(STAGES[0][1] * steps), int(STAGES[1][1] * steps)
    return (0, STAGES[0][0]), (first, STAGES[1][0]), (first + second, STAGES[2][0])


def sparse_start(norm: Norm, steps: int, rows: Rows) -> tuple[Tensor, State]:
    """A random point of the first stage's ball, and the state before the first answer."""
    ball = _ball(rows.step, steps)
    wide = rows.eps * per_row(ball)
    point = rows.project(rows.x + norm.surface(rows.noise, rows.x, wide), wide)
    zero = point.new_zeros(len(point))
    return point, {
        "best": point, "best_gradient": point.new_zeros(point.shape), "best_loss": zero - float("inf"),
        "length": zero + 1.0, "share": zero + SPARSE, "sparsity": zero + float(point[0].numel()),
        "ball": ball,
    }  # fmt: skip


def sparse_step(norm: Norm, steps: int, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
    """One step of APGD under L1 (Croce and Hein, 2021, section 4). ``length`` is a multiple of the stage's radius."""
    assert answer.gradient is not None
    size, total = answer.x.flatten(1), answer.x[0].numel()
    better = answer.loss > state["best_loss"]
    best = answer.x.where(per_row(better), state["best"])
    best_gradient = answer.gradient.where(per_row(better), state["best_gradient"])
    best_loss = answer.loss.where(better, state["best_loss"])

    # A checkpoint: has the best point become sparser?
    changed = ((best - rows.x).flatten(1).abs() > 0).sum(1).to(size.dtype)
    into = rows.step - _begin(rows.step, steps)
    every = _every(rows.step, steps)
    check = (into > 0) & (into % every == 0)
    sparser = check & (changed < SPARSER * state["sparsity"])
    shorter = (state["length"] / SHORTER).clamp_min(1 / SHORTEST)
    length = shorter.where(check, state["length"]).masked_fill(sparser, 1.0)
    share = (changed / total / SHORTER).where(check, state["share"])
    sparsity = changed.where(check, state["sparsity"])
    x = best.where(per_row(sparser), answer.x)
    gradient = best_gradient.where(per_row(sparser), answer.gradient)

    # The step: along the signs of the largest entries of the gradient (eq. 6), with an L1 length of ``length`` · ε.
    flat = gradient.flatten(1)
    order = flat.abs().sort(1, descending=True).indices.argsort(1)
    count = (share * total).round().clamp(1, total)
    sign = (flat.sign() * (order < count[:, None])).view_as(x)
    radius = rows.eps * per_row(state["ball"])
    move = per_row(length) * radius * sign / per_row(norm.size(sign)).clamp_min(1e-12)

    # A new stage begins at the best point, in the smaller ball, and knows nothing of the last one but its sparsity.
    ends = _begin(rows.step + 1, steps) > _begin(rows.step, steps)
    point = best.where(per_row(ends), rows.project(x + move, radius))
    changed_at_end = changed.clamp_min(1.0)
    return point, {
        "best": best, "best_gradient": best_gradient, "best_loss": best_loss.masked_fill(ends, -float("inf")),
        "length": length.masked_fill(ends, 1.0),
        "share": (changed_at_end / total / SHORTER).where(ends, share),
        "sparsity": changed_at_end.where(ends, sparsity), "ball": _ball(rows.step + 1, steps),
    }  # fmt: skip


def _ball(step: Tensor, steps: int) -> Tensor:
    """The radius of the stage that the points after so many steps (N,) belong to, as a multiple of ε, (N,)."""
    multiple = step * 0.0
    for begin, times in stages(steps):
        multiple = multiple.masked_fill(step >= begin, times)
    return multiple


def _begin(step: Tensor, steps: int) -> Tensor:
    """After how many steps the stage of these rows began, (N,)."""
    last = step * 0
    for begin, _ in stages(steps):
        last = last.masked_fill(step >= begin, begin)
    return last


def _every(step: Tensor, steps: int) -> Tensor:
    """How many steps lie between two checkpoints of a row's stage, (N,)."""
    begins = [begin for begin, _ in stages(steps)] + [steps]
    every = step * 0 + 1
    for begin, end in pairwise(begins):
        every = every.masked_fill(step >= begin, max(1, int(EVERY * (end - begin))))
    return every
