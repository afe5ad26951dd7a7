"""An answer of several gradients: at views of a point, such as resized copies or neighbours of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from epsbench.attacks.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from epsbench.attacks.base import Attack


def gradient_of_views(
    attack: Attack, rows: Rows, point: Tensor, ask: Callable[[Tensor], tuple[Tensor | None, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The gradient with respect to ``point`` (N, C, H, W), averaged over its views, and the logits at the last one.

    With several groups of views the gradient is (N, groups, C, H, W): one mean a group. ``ask`` gives the gradient of
    the attack's loss at any images, and their logits.
    """
    import torch

    means, number = [], 0
    logits = point
    for size in attack.views():
        total = None
        for _ in range(size):
            gradient, logits = _of_view(attack, rows, point, number, ask)
            total, number = gradient if total is None else total + gradient, number + 1
        assert total is not None
        means.append(total / size if size > 1 else total)
    return means[0] if len(means) == 1 else torch.stack(means, 1), logits


def _of_view(
    attack: Attack, rows: Rows, point: Tensor, number: int, ask: Callable[[Tensor], tuple[Tensor | None, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The gradient at one view, taken back through the view to the point by the chain rule."""
    import torch

    leaf = point.detach().requires_grad_(True)
    with torch.enable_grad():
        view = attack.view(rows, leaf, number)
    gradient, logits = ask(view.detach())
    assert gradient is not None
    if view is not leaf:
        (gradient,) = torch.autograd.grad(view, leaf, gradient)
    return gradient, logits
