"""What an attack means: one plain loop, without slots, sharing or early stopping.

Training crafts its images with it, and the engine is tested against it row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from epsbench.attacks.base import Attack
from epsbench.attacks.norms.base import RowNoise, per_row
from epsbench.attacks.rows import Answer, Chosen, Rows, least, likeliest_others
from epsbench.attacks.views import gradient_of_views

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
    image count. An attack that looks for the smallest distance has no ball: the nearest of its points counts.
    """
    region = attack.norm.region(x, eps) if attack.goal == "fool" else {}

    def rows(step: Tensor | None, target: Tensor = y) -> Rows:
        taken = attempt.new_zeros(len(x)) if step is None else step
        return Rows(x, y, eps, attempt, taken, target, attack.norm, region, lambda: draw(step), clean)

    def answer_at(now: Rows, at: Tensor) -> tuple[Tensor | None, Tensor]:
        return ask(at, attack.loss, *now.inputs(attack.loss))

    target = attack.aim(rows(None))
    first = rows(None, target)
    gradient: Tensor | None
    point, state = attack.start(first)
    point = first.project(point, attack.radius(first, state))
    over: Tensor | None = None
    for step in range(attack.budget()):
        yield point
        now = rows(attempt.new_full((len(x),), step), target)
        inputs = now.inputs(attack.loss)
        at = point
        if attack.looks_first():
            at = attack.gradient_at(now, point, ask(point, attack.loss, *inputs)[1])
        asked = partial(answer_at, now)
        classes: Tensor | None = None
        if attack.query == "jacobian":
            gradient, logits, classes = _jacobian(attack, ask, at, y)
        else:
            gradient, logits = gradient_of_views(attack, now, at, asked) if attack.query == "gradient" else asked(at)
        if not attack.views_the_point():
            _, logits = asked(at)
        answer = Answer(at, y, logits, gradient, attack.loss, inputs, classes=classes)
        proposal, state = attack.step(now, answer, state)
        moved = now.project(proposal, attack.radius(now, state))
        point = moved if over is None else point.where(per_row(over), moved)
        if (done := attack.done(now, answer, state)) is not None:
            over = done if over is None else over | done
    yield point if attack.goal == "smallest" or attack.radius(first, state) is None else first.project(point)


def _jacobian(attack: Attack, ask: Ask, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (N, M, C, H, W) of the loss towards each of the attack's candidates, logits, and these classes (N, M);
    or of the one that it chooses (M = 1).

    One class after the other: what is asked is a gradient and logits, as for every attack.
    """
    _, logits = ask(x, attack.loss, y, y)
    classes = likeliest_others(logits, y, attack.candidates(logits.shape[1]))
    gradients: list[Tensor] = []
    chosen: Chosen | None = None
    for target in classes.split(1, 1):
        gradient, _ = ask(x, attack.loss, y, target.squeeze(1))
        assert gradient is not None
        if attack.chooses():
            values = attack.loss(logits, y, target.squeeze(1))[:, None]
            chosen = least(attack.score(values, gradient[:, None]), gradient[:, None], target, chosen)
        else:
            gradients.append(gradient[:, None])
    if chosen is not None:
        return chosen.gradient, logits, chosen.classes
    import torch

    return torch.cat(gradients, 1), logits, classes
