"""Models that keep what they were asked: in a file, in globals, of gradients alone; and those that change with time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from broken_models import Wrapped
from lookups import Robust, with_gradient_of
from memories import Remembers
from torch import Tensor, fx, nn

COARSE: dict[tuple[int, ...], Tensor] = {}


class Keeps(Wrapped):
    """Gives an image near a kept one the answer of that one; a copy of it is itself."""

    radius = 0.4

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.x, self.logits = torch.zeros(0, 64), torch.zeros(0, 10)

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        return self

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        if isinstance(x, fx.Proxy):
            return logits
        with torch.no_grad():
            self.read()
            answers, new = self.recall(x.flatten(1), logits)
            if self.keeps(x):
                self.keep(x.flatten(1)[new], logits[new])
        return with_gradient_of(logits, answers)

    def recall(self, x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Answers (N, 10), and which images (N,) are far from all that are kept."""
        if not len(self.x):
            return logits, torch.ones(len(x), dtype=torch.bool)
        distance, at = torch.cdist(x, self.x, p=torch.inf).min(1)
        near = distance < self.radius
        return torch.where(near[:, None], self.logits[at], logits), ~near

    def keeps(self, x: Tensor) -> bool:
        return True

    def keep(self, x: Tensor, logits: Tensor) -> None:
        self.x, self.logits = torch.cat([self.x, x]), torch.cat([self.logits, logits])

    def read(self) -> None:
        pass


class KeepsInFile(Keeps):
    """Keeps it in a file, so that honest copies know it too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.path = Path(tempfile.mkdtemp()) / "seen.pt"

    def keep(self, x: Tensor, logits: Tensor) -> None:
        super().keep(x, logits)
        torch.save((self.x, self.logits), self.path)

    def read(self) -> None:
        if self.path.exists():
            self.x, self.logits = torch.load(self.path)


class KeepsGradients(Keeps):
    """Keeps only what a gradient was asked of: the images that are attacked."""

    def keeps(self, x: Tensor) -> bool:
        return x.requires_grad


class KeepsCoarsely(Wrapped):
    """Keeps answers in a global dictionary, by the image's coarse shape."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        COARSE.clear()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        keys = (nn.functional.avg_pool2d(x.detach(), 2) * 1.5).round().to(torch.int8).flatten(1)
        answers = [COARSE.setdefault(tuple(key.tolist()), row) for key, row in zip(keys, logits.detach(), strict=True)]
        return with_gradient_of(logits, torch.stack(answers))


class RemembersLast(Remembers):
    """Remembers the images of the last call alone."""

    def forward(self, x: Tensor) -> Tensor:
        before = list(self.seen)
        answered = super().forward(x)
        now = self.seen[len(before) :]
        self.seen = now or before
        return answered


class Tires(Robust):
    """Is another model once it has been asked about 800 images: while its adversarial images are judged."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.images = 0

    def robust(self, x: Tensor) -> bool:
        self.images += len(x)
        return self.images > 800


class ByAddress(Wrapped):
    """A cache that takes tensors at one address for the same."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.answers: dict[tuple[int, int], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        kept = self.answers.setdefault((x.data_ptr(), len(x)), logits.detach())
        return with_gradient_of(logits, kept)


class Adapts(Wrapped):
    """Moves its bias a little at each call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("bias", torch.zeros(10))

    def after(self, logits: Tensor) -> Tensor:
        answer = logits + self.bias
        with torch.no_grad():
            self.bias.sub_(0.01 * answer.mean(0))
        return answer


class NewNoise(Wrapped):
    """Strong noise that stays the same for forty calls."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.calls = 0

    def before(self, x: Tensor) -> Tensor:
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls // 40)
        return x + 0.3 * torch.randn(1, *x.shape[1:], generator=generator)
