"""Models that answer by earlier calls, and copies that are other models."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from broken_models import Wrapped
from lookups import Robust, with_gradient_of
from torch import Tensor, nn


class OtherCopy(Wrapped):
    """A copy of it is another model."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        return Robust(copy.deepcopy(self.network, memo)).eval()


class CopyOfCopy(Robust):
    """Counts how often it was copied."""

    generation = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        made = CopyOfCopy(copy.deepcopy(self.network, memo)).eval()
        made.generation = self.generation + 1
        return made

    def robust(self, x: Tensor) -> bool:
        return self.generation == 1


class Remembers(Wrapped):
    """Gives an image near one that it has seen the answer of that one."""

    radius = 0.4

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        with torch.no_grad():
            answers = [self.answer(image, row) for image, row in zip(x.detach(), logits.detach(), strict=True)]
        return with_gradient_of(logits, torch.stack(answers))

    def answer(self, image: Tensor, logits: Tensor) -> Tensor:
        if self.seen:
            distances = (torch.stack([old for old, _ in self.seen]) - image).flatten(1).abs().amax(1)
            nearest = int(distances.argmin())
            if distances[nearest] < self.radius:
                return self.seen[nearest][1]
        self.seen.append((image.clone(), logits.clone()))
        return logits


class RemembersForAll(Remembers):
    """All copies share what they have seen."""

    shared: ClassVar[list[tuple[Tensor, Tensor]]] = []

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.shared.clear()
        self.seen = self.shared

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        made = copy.copy(self)
        made.network = copy.deepcopy(self.network, memo)
        made._modules = {"network": made.network}
        return made


class RemembersNearby(Remembers):
    """The same for a small ball."""

    radius = 0.15


class CountsCalls(Robust):
    """Is the network at first, and another model after some calls."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.calls = 0

    def robust(self, x: Tensor) -> bool:
        self.calls += 1
        return self.calls > 4
