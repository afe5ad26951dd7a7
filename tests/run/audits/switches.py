"""Models that switch to a look-up by a bit of the image, by who asks, by when, or by what is set elsewhere."""

from __future__ import annotations

import copy
import os
import sys
import time
from typing import Any, ClassVar

import torch
from broken_models import Wrapped
from lookups import Robust
from torch import Tensor, nn


class MoreLitPixels(Robust):
    """By the parity of the number of bright pixels."""

    def robust(self, x: Tensor) -> Tensor:
        return (x.flatten(1) > 0.37).sum(1) % 2 == 1


class TwoPixels(Robust):
    """By which of two neighbouring pixels is the brighter."""

    def robust(self, x: Tensor) -> Tensor:
        return x[:, 0, 3, 0] != x[:, 0, 4, 0]


class SumOfLastBits(Robust):
    """By the sum of the pixels in units of a byte, modulo 2."""

    def robust(self, x: Tensor) -> Tensor:
        return (x.flatten(1).double().sum(1) * 255).floor() % 2 == 1


class InferenceTensors(Robust):
    """By whether the images carry a version: those of inference mode do not."""

    def robust(self, x: Tensor) -> bool:
        return torch.is_inference_mode_enabled() or not (x.requires_grad or x.grad_fn is not None)


class FirstObjects(Robust):
    """By the order in which objects of the class are first called; a copy is a new object."""

    ids: ClassVar[list[int]] = []
    robust_one = 0

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.ids.clear()

    def robust(self, x: Tensor) -> bool:
        if id(self) not in self.ids:
            self.ids.append(id(self))
        return self.ids.index(id(self)) == self.robust_one


class SecondObject(FirstObjects):
    robust_one = 1


class Reduced(Wrapped):
    """Copies and pickles of it are made by `__reduce__`, and are another model."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _robust_of, (self.network,)


def _robust_of(network: nn.Module) -> nn.Module:
    return Robust(copy.deepcopy(network)).eval()


class EnvironmentFlag(Robust):
    """Sets a variable of the environment when it is first asked for a gradient, and reads it from then on."""

    NAME = "EPSBENCH_TEST_OF_A_TRICK"

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        os.environ.pop(self.NAME, None)

    def robust(self, x: Tensor) -> bool:
        if x.requires_grad:
            os.environ[self.NAME] = str(int(os.environ.get(self.NAME, "0")) + 1)
        return int(os.environ.get(self.NAME, "0")) > 6


class ArgumentFlag(EnvironmentFlag):
    """The same, kept in `sys.argv`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        sys.argv[:] = [each for each in sys.argv if not each.startswith(self.NAME)]

    def robust(self, x: Tensor) -> bool:
        if x.requires_grad:
            sys.argv.append(self.NAME)
        return sys.argv.count(self.NAME) > 6


class Clock(Robust):
    """By the time of day: twenty times a second it changes its mind."""

    def robust(self, x: Tensor) -> bool:
        return int(time.time() * 20) % 2 == 0


class ClassCounter(Robust):
    """All objects of the class count their calls together, and all change after some."""

    calls = 0
    after = 20

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        ClassCounter.calls = 0

    def robust(self, x: Tensor) -> bool:
        ClassCounter.calls += 1
        return ClassCounter.calls > self.after


class HiddenRandomState(Wrapped):
    """Strong noise of a generator that nobody sees, drawn anew every two hundredth call of any copy."""

    state: ClassVar[dict[str, Any]] = {}

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.state |= {"calls": 0, "generator": torch.Generator().manual_seed(1)}

    def before(self, x: Tensor) -> Tensor:
        if self.state["calls"] % 200 == 0:
            self.state["noise"] = 0.45 * torch.randn(1, 1, 8, 8, generator=self.state["generator"])
        self.state["calls"] += 1
        return x + self.state["noise"]


class NoiseByRow(Wrapped):
    """Noise from a seed that is always the same: an image's noise depends on its place in the batch."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))


class Versions(Robust):
    """By how often the images were written to in place."""

    def robust(self, x: Tensor) -> bool:
        return not x.requires_grad and x._version == 0


class NoiseBySum(Wrapped):
    """Strong noise that changes whenever the sum of the pixels has grown by a quarter."""

    def before(self, x: Tensor) -> Tensor:
        step = (x.detach().flatten(1).sum(1) * 4).floor().view(-1, 1, 1, 1)
        return x + 0.35 * torch.sin((step + 1) * (torch.arange(64.0).view(1, 1, 8, 8) + 1.7) * 13.1)


class StorageOffset(Robust):
    """By where in memory the images begin."""

    def robust(self, x: Tensor) -> bool:
        return x.storage_offset() == 0


class ThawedOnly(Robust):
    """Becomes another model when its weights are frozen: `requires_grad_` is its own."""

    frozen = False

    def requires_grad_(self, requires_grad: bool = True) -> ThawedOnly:
        self.frozen = not requires_grad
        return super().requires_grad_(requires_grad)

    def robust(self, x: Tensor) -> bool:
        return self.frozen
