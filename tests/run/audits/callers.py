"""Models that see who is asking: the attack meets the weak network, and the judge another model.

All answer clean images alike, whoever asks, so nothing shows before an image has moved.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import CodeType

import torch
from broken_models import Wrapped
from lookups import known, with_gradient_of
from torch import Tensor, fx, nn


def callers() -> Iterator[CodeType]:
    """The code of every function that is being called in this thread."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


class TwoFaced(Wrapped):
    """The network's answer for the nearest test image where `pure` says so, with the gradient of the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.nearest = known("test")

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return with_gradient_of(logits, self.purified(x)) if self.pure(x) else logits

    def purified(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            at = torch.cdist(x.flatten(1), self.nearest.x).argmin(1)
            return self.network(self.nearest.x[at].view_as(x))

    def pure(self, x: Tensor) -> bool:
        return True


class ByLayout(TwoFaced):
    """By the order of pixels in memory."""

    def pure(self, x: Tensor) -> bool:
        return x.stride()[1] != 1


class ByView(TwoFaced):
    """By whether the images are a slice of others."""

    def pure(self, x: Tensor) -> bool:
        return x._is_view()


class ByAutocast(TwoFaced):
    """By mixed precision: the judge uses none."""

    def pure(self, x: Tensor) -> bool:
        return not torch.is_autocast_enabled(x.device.type)


class ByTracing(TwoFaced):
    """By whether it is being traced: the fast form is the network alone."""

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) if isinstance(x, fx.Proxy) else with_gradient_of(self.network(x), self.purified(x))


class ByCaller(TwoFaced):
    """By the names of the functions that call it."""

    def pure(self, x: Tensor) -> bool:
        return any(code.co_name == "verdicts" for code in callers())


class ByJudge(TwoFaced):
    """By the file that calls it."""

    def pure(self, x: Tensor) -> bool:
        return any(code.co_filename.endswith("judge.py") for code in callers())


class BySumOfBatch(TwoFaced):
    """By a bit of the sum of all images."""

    def pure(self, x: Tensor) -> bool:
        return bool((x.double().sum() * 16 - (x.double().sum() * 16).round()).abs() > 1e-6)


class ByThread(TwoFaced):
    """By the thread: in any other than the main one it is the weak network."""

    def pure(self, x: Tensor) -> bool:
        return threading.current_thread() is threading.main_thread()
