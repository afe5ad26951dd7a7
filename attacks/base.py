"""What an attack is: a frozen value whose fields are its hyper-parameters.

The engine (`epsbench.harness.run.attack.engine`) owns everything that depends on the data: random starts, the ε of each
row, projection on the ball, the [0, 1] box, restarts, early retirement, precision and counting. So an
attack cannot leave its ball by mistake, and it stays a few lines long. This module does not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm, RowNoise

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]


class Network(Protocol):
    """The victim as a free-form attack sees it: pixels (N, C, H, W) in [0, 1] to logits (N, classes).

    Every call is counted, and so is every gradient taken through `gradient`.
    """

    def __call__(self, x: Tensor) -> Tensor: ...

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the summed cross-entropy at ``x``, (N, C, H, W), and the logits, (N, classes)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """The freer form, for what is no plain gradient step (Square, DeepFool, another library's attack).

    ``norm`` is filled in from the suite's ``norm`` axis; every other field is a hyper-parameter.
    """

    version: ClassVar[int | str] = 1

    norm: Norm = field(default=NORMS["linf"], repr=False)

    @abstractmethod
    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        """Adversarial images (N, C, H, W) for images ``x`` in [0, 1], labels ``y`` (N,), ε (N, 1, 1, 1).

        ``noise`` draws random numbers keyed by example, so that verdicts do not depend on the batch size.
        What is returned is projected on the ball and the box, and judged, by the engine.
        """


@dataclass(frozen=True, kw_only=True)
class GradientAttack(ABC):
    """An attack that starts somewhere in the ball and moves along gradients of the cross-entropy."""

    version: ClassVar[int | str] = 1

    steps: int = 1
    restarts: int = 1
    random_start: bool = False
    norm: Norm = field(default=NORMS["linf"], repr=False)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, not {self.restarts}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts above 1 repeat the same path unless random_start = true")

    @abstractmethod
    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        """One step: images (N, C, H, W), gradient of the same shape, ε and step (N, 1, 1, 1); step counts from 0.

        The result need not lie in the ball or the box: the engine projects it.
        """

    def state(self, x: Tensor) -> State:
        """Tensors with one row an example that travel with it, as they are before the first step."""
        return {}

    def move(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """`update` for an attack with state; the plain attack has none."""
        return self.update(x_adv, gradient, eps, step), state
