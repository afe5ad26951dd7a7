"""Iterated FGSM with momentum: an example of an attack with state, which travels with its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import State
from epsbench.attacks.pgd import PGD

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MIFGSM(PGD):
    """Steps along an accumulated gradient (Dong et al., 2018, algorithm 1; eq. 6): m ← μ·m + ∇/‖∇‖₁."""

    version: ClassVar[str] = "8ab56f5f37b61afd"

    relative_step_size: float = 0.1
    decay: float = 1.0

    def state(self, x: Tensor) -> State:
        return {"momentum": x.new_zeros(x.shape)}

    def move(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        length = gradient.flatten(1).abs().sum(1).view(-1, 1, 1, 1)
        momentum = self.decay * state["momentum"] + gradient / length.clamp_min(1e-38)
        return self.update(x_adv, momentum, eps, step), {"momentum": momentum}
