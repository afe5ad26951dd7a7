"""The victim as an attack with a loop of its own sees it, and what such an attack asks on its way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from epsbench.attacks.norms import Norm
from epsbench.attacks.norms.base import per_row
from epsbench.harness.run.attack.schedule import in_ball
from epsbench.harness.run.attack.victim import Victim

ROWS = 64  # of each batch are looked at; more would cost time and change no finding


class QueryLog(nn.Module):
    """A module from pixels (N, C, H, W) in [0, 1] to logits, as another library's attack takes it.

    Every row that goes forward is counted, and every row that goes backward, whoever takes the gradient. For the first
    images of a batch it remembers which iterate fooled, where the last gradient was taken, and whether anything but the
    image itself was asked about. Only calls with a whole batch are looked at: in other shapes it is unknown which row
    belongs to which image. Only images that lie in their own ball count.

    It stays in evaluation mode, whatever mode an attack asks for.
    """

    def __init__(self, victim: Victim, x: Tensor, y: Tensor, eps: Tensor, norm: Norm) -> None:
        """``x`` (N, C, H, W), ``y`` (N,), ``eps`` (N, 1, 1, 1): the batch that the attack gets."""
        super().__init__()
        if isinstance(victim.network, nn.Module):
            self.network = victim.network  # so that `parameters` tells libraries the device
        self._victim, self._n, self._norm = victim, len(x), norm
        self.x, self.y, self._eps = x[:ROWS].clone(), y[:ROWS].clone(), eps[:ROWS].flatten().clone()
        self.candidate = self.x.clone()
        self.seen = torch.zeros_like(self.y, dtype=torch.bool)
        self.elsewhere = torch.zeros_like(self.seen)
        self._last: Tensor | None = None
        self.eval()

    def train(self, mode: bool = True) -> QueryLog:
        """Changes nothing but the flag of a module that is already in evaluation mode: see the class."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """The victim's logits (N, classes)."""
        logits = self._victim(x)
        if logits.requires_grad:
            at = x.detach()

            def count(gradient: Tensor) -> None:
                self._victim.backwards += len(at) * self._victim.passes
                self._note_gradient(at)

            logits.register_hook(count)
        self._look(x, logits)
        return logits

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The victim's gradient (N, C, H, W) of the summed cross-entropy, and its logits."""
        gradient, logits = self._victim.gradient(x, y)
        self._note_gradient(x)
        self._look(x, logits)
        return gradient, logits

    def short(self, x_adv: Tensor) -> Tensor:
        """For the returned images: whether the last gradient was taken at the very image, (min(N, 64),) bool."""
        if self._last is None:
            return torch.zeros_like(self.seen)
        return (self._last == x_adv[:ROWS]).flatten(1).all(1)

    def _note_gradient(self, x: Tensor) -> None:
        if len(x) == self._n:
            self._last = x[:ROWS].detach().clone()

    @torch.no_grad()
    def _look(self, x: Tensor, logits: Tensor) -> None:
        if len(x) != self._n:
            return
        at = x[:ROWS].detach()
        inside = in_ball(self._norm.size(at - self.x), self._eps)
        inside &= (at.flatten(1).amin(1) >= 0) & (at.flatten(1).amax(1) <= 1)
        self.elsewhere |= inside & (at != self.x).flatten(1).any(1)
        new = inside & (logits[:ROWS].argmax(1) != self.y) & ~self.seen
        self.candidate = torch.where(per_row(new), at, self.candidate)
        self.seen |= new
