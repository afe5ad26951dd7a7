"""Models that lie about some images only: gradient attacks fool the others, so the accuracy looks plausible.

``HALF_TRUTHS`` says how each is made of an honest network, and by which codes it may be named.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from broken_models import Wrapped
from hidden_gradients import Spoiled, flipped, zeroed
from lookups import Robust, known, with_gradient_of
from torch import Tensor, nn

DECOY = {"decoy-gradient", "discontinuous", "shattered"}
SEARCH = {"score-search-beats-gradient"}
STATE = {"answers-by-call-order", "verdict-not-repeated", "copy-differs-under-attack"}


def coarse(x: Tensor) -> Tensor:
    """A number (N,) of each image that small changes of its pixels leave as it is, nearly always."""
    return ((x > 0.5).flatten(1) * torch.arange(1, x[0].numel() + 1, device=x.device)).sum(1)


class LooksUpHalf(Robust):
    """Looks up every second image."""

    def robust(self, x: Tensor) -> Tensor:
        return coarse(x) % 2 == 0


class LooksUpClasses(Robust):
    """Looks up what the nearest training image says is 0 to 4."""

    def robust(self, x: Tensor) -> Tensor:
        return self.nearest(x).argmax(1) < 5


class FlipsClasses(Wrapped):
    """The gradient is flipped where the network predicts 0 to 4, and true elsewhere."""

    spoil = staticmethod(flipped)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        spoiled = self.network(Spoiled.apply(x, self.spoil))
        return torch.where((logits.argmax(1) < 5)[:, None], spoiled, logits)


class FlatClasses(FlipsClasses):
    """No gradient where the network predicts 0 to 4."""

    spoil = staticmethod(zeroed)


class HotClasses(Wrapped):
    """Logits a thousand times as large where the network predicts 0 to 4."""

    def after(self, logits: Tensor) -> Tensor:
        return torch.where((logits.argmax(1) < 5)[:, None], 1000 * logits, logits)


class RemembersHalf(Wrapped):
    """Gives every second image the answer of the image like it that came first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.seen: dict[int, Tensor] = {}

    def after(self, logits: Tensor) -> Tensor:
        return logits

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        keys = coarse(x).tolist()
        answers = [
            self.seen.setdefault(key, row) if key % 2 else row for key, row in zip(keys, logits.detach(), strict=True)
        ]
        return with_gradient_of(logits, torch.stack(answers))


class KnowsHalf(Robust):
    """Knows every second test image, and answers near it by its label."""

    split = "test"

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.nearest.x, self.nearest.y = self.nearest.x[::2], self.nearest.y[::2]

    def robust(self, x: Tensor) -> Tensor:
        return self.nearest.distance(x) < 0.15


class Overrules(Robust):
    """Keeps the network's answer where the nearest training image agrees, and overrules it where it does not."""

    def robust(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network(x).argmax(1) != self.nearest(x).argmax(1)


class ByThreads(Robust):
    """Looks images up under as many threads as there were when it was made."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.threads = torch.get_num_threads()

    def robust(self, x: Tensor) -> bool:
        return torch.get_num_threads() == self.threads


class SmoothHalf(Wrapped):
    """Half of the images go through a filter that takes the attack off, with a straight-through gradient."""

    def before(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            clean = known("train").x.view(-1, *x.shape[1:])
            nearest = clean[torch.cdist(x.flatten(1), clean.flatten(1)).argmin(1)]
        return torch.where((coarse(x) % 2 == 0)[:, None, None, None], with_gradient_of(x, nearest), x)


HALF_TRUTHS: dict[str, tuple[Callable[[nn.Module], nn.Module], set[str]]] = {
    "looks up half": (LooksUpHalf, DECOY),
    "looks up five classes": (LooksUpClasses, DECOY),
    "flipped for five classes": (FlipsClasses, DECOY | SEARCH),
    "flat for five classes": (FlatClasses, SEARCH | {"zero-gradient"}),
    "hot for five classes": (HotClasses, {"zero-gradient", "margin-beats-cross-entropy"}),
    "remembers half": (RemembersHalf, STATE | DECOY),
    "knows half": (KnowsHalf, DECOY | {"knows-test-images"}),
    "overrules": (Overrules, DECOY),
    "threads": (ByThreads, DECOY | {"caller-changes-output"}),
    "purifies half": (SmoothHalf, DECOY),
}
