"""What an attack is: a frozen value whose fields are its hyper-parameters.

The engine (`epsbench.harness.run.attack.engine`) does all that depends on the data: random starts, the ε of each
row, projection on the ball and on the box [0, 1], restarts, early stopping, precision and counting. So an attack is a
few lines long and cannot leave its ball by mistake. This module does not import torch.
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
"""What an attack remembers of its rows: tensors by name, the first axis of each is the row."""


class Network(Protocol):
    """The victim as an attack with a loop of its own sees it: pixels (N, C, H, W) in [0, 1] to logits (N, classes).

    Every call is counted, and so is every gradient taken through `gradient`.
    """

    def __call__(self, x: Tensor) -> Tensor: ...

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the summed cross-entropy at ``x``, (N, C, H, W), and the logits, (N, classes)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack with a loop of its own, for what is no plain gradient step.

    Its fields are its hyper-parameters.
    """

    version: ClassVar[int | str] = 1
    """Part of the id of every record made with the attack; another value makes those records stale."""

    norm: Norm = field(default=NORMS["linf"], repr=False)
    """The norm that bounds the perturbation; the suite's ``norm`` axis sets it."""

    @abstractmethod
    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        """Adversarial images (N, C, H, W) for images ``x`` in [0, 1], labels ``y`` (N,), ε (N, 1, 1, 1).

        ``noise`` draws random numbers keyed by example, so that verdicts do not depend on the batch size. The engine
        projects what is returned on the ball and the box, and the judge decides.
        """


@dataclass(frozen=True, kw_only=True)
class GradientAttack(ABC):
    """An attack that starts somewhere in the ball and moves along gradients of the cross-entropy."""

    version: ClassVar[int | str] = 1
    """As in `Attack`."""

    steps: int = 1
    """How many gradients are taken at most."""

    restarts: int = 1
    """How often the attack starts over on an image that withstood."""

    random_start: bool = False
    """Whether it starts at a random point of the ball instead of the image."""

    norm: Norm = field(default=NORMS["linf"], repr=False)
    """As in `Attack`."""

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
        """What the attack remembers of images (N, C, H, W) before the first step; nothing by default."""
        return {}

    def move(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """`update` for an attack with state, which it returns beside the images."""
        return self.update(x_adv, gradient, eps, step), state
