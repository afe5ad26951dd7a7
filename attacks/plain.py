"""What an attack means: one plain loop, without slots, sharing or early stopping.

Training crafts its images with it, and the engine is tested against it row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from epsbench.attacks.base import Attack, State
from epsbench.attacks.norms.base import RowNoise, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

Ask = Callable[..., tuple["Tensor | None", "Tensor"]]
"""``ask(point, loss, *inputs)``: the gradient (N, C, H, W), or None, and the logits (N, K) at some points."""

Draw = Callable[["Tensor | None"], RowNoise]
"""``draw(step)``: the noise of the rows after so many steps (N,); None: at the start."""


def path(
    attack: Attack,
    ask: Ask,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    attempt: Tensor,
    draw: Draw,
    clean: Callable[[], Tensor],
) -> Iterator[Tensor]:
    """Every point (N, C, H, W) that one attempt asks about, in order, and then the one that it ends with, within ε.

    Images ``x`` (N, C, H, W) in [0, 1], labels ``y`` and ``attempt`` (N,), ``eps`` (N, 1, 1, 1) in pixel units.
    ``clean`` gives the logits (N, K) at the clean images, where the attack wants them. Only points within ε of their
    image count.
    """
    region = attack.norm.region(x, eps)

    def rows(step: Tensor | None, target: Tensor = y) -> Rows:
        taken = attempt.new_zeros(len(x)) if step is None else step
        return Rows(x, y, eps, attempt, taken, target, attack.norm, region, lambda: draw(step), clean)

    target = attack.target(rows(None))
    point, state = attack.start(rows(None, target))
    point = _projected(attack, rows(None, target), point, state)
    over = attempt < 0
    for step in range(attack.budget()):
        yield point
        now = rows(attempt.new_full((len(x),), step), target)
        inputs = tuple(getattr(now, name) for name in attack.loss.inputs)
        gradient, logits = ask(point, attack.loss, *inputs)
        answer = Answer(point, y, logits, gradient, attack.loss, inputs)
        proposal, state = attack.step(now, answer, state)
        point = point.where(per_row(over), _projected(attack, now, proposal, state))
        if (done := attack.done(now, answer, state)) is not None:
            over = over | done
    yield point if attack.radius(rows(None), state) is None else rows(None).project(point)


def _projected(attack: Attack, rows: Rows, point: Tensor, state: State) -> Tensor:
    """The nearest point of the ball that the attack's points may lie in, and of the box."""
    radius = attack.radius(rows, state)
    return rows.project(point) if radius is None else roaming(rows, point, radius)


def roaming(rows: Rows, point: Tensor, radius: Tensor) -> Tensor:
    """`Rows.project` for another ``radius`` (N, 1, 1, 1) than ε."""
    norm = rows.norm
    return norm.within(norm.region(rows.x, radius), point, radius)
