"""Random numbers keyed by (seed, example, stream): the same on every device, at every batch size."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood, 2014), its constants as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64

_AHEAD, _AT_ONCE = 64, 2**15  # steps, and numbers, that `NoiseAhead` draws at once


class _Sequence(ABC):
    """A sequence of draws of each row."""

    def __init__(self) -> None:
        self._draws = 0

    @abstractmethod
    def _numbers(self, shape: tuple[int, ...]) -> Tensor:
        """The uniform numbers (N, *shape) of the draw that `_draws` counts."""

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) float32, uniform on the 2²⁴ multiples of 2⁻²⁴ in [0, 1)."""
        self._draws += 1
        return self._numbers(shape)

    def normal(self, *shape: int) -> Tensor:
        """(N, *shape) float32, standard normal (Box and Muller, 1958)."""
        radius = (-2.0 * torch.log1p(-self.uniform(*shape))).sqrt_()
        return radius * torch.cos(2.0 * math.pi * self.uniform(*shape))


class KeyedNoise(_Sequence):
    """Random numbers for a batch of rows, each row with its own sequence.

    This is a counter-based generator: number k of a row is a hash of (seed, example, stream, draw, k) in integer
    arithmetic. So it is bit-identical on CPU and GPU and does not depend on other rows. ``stream`` separates the
    sequences of one example, such as those of its restarts, its posterior samples or its training steps.
    """

    def __init__(self, seed: int, example: Tensor, stream: Tensor, step: Tensor | None = None) -> None:
        """``example``, ``stream`` and ``step`` are int64 (N,), on the device on which the numbers are needed.

        Each step of a stream has a sequence of its own, and so has the stream before its first step (None).
        """
        super().__init__()
        self.example = example
        self._key = _at_step(stream_key(seed, example, stream), step)

    @classmethod
    def of_stream(cls, key: Tensor, step: Tensor | None) -> KeyedNoise:
        """As the constructor, where `stream_key` has been computed before: it is the same at every step."""
        noise = cls.__new__(cls)
        noise._key, noise._draws = _at_step(key, step), 0
        return noise

    def _numbers(self, shape: tuple[int, ...]) -> Tensor:
        return _uniform(self._key, self._draws, shape)


class NoiseAhead:
    """The noise of some rows at their coming steps: few numbers a step are drawn for many steps at once.

    They are those of `KeyedNoise.of_stream`, step by step. A step's hash takes twenty operations, whatever their size.
    """

    def __init__(self, key: Tensor, step: Tensor) -> None:
        """``key`` (N,) as `stream_key` gives it; ``step`` (N,) of each row now. All rows go on together."""
        self._key, self._step = key, step
        self._drawn: dict[tuple[int, tuple[int, ...]], tuple[int, Tensor]] = {}

    def after(self, taken: int) -> _Drawn:
        """The noise after so many further steps."""
        return _Drawn(self, taken)

    def uniform(self, taken: int, draw: int, shape: tuple[int, ...]) -> Tensor:
        """The numbers of draw number ``draw``, which counts from 1, after so many further steps."""
        first, block = self._drawn.get((draw, shape), (0, None))
        if block is None or not first <= taken < first + len(block):
            # More and more, as soon as the same rows have gone on for a while.
            most = min(2 * taken + 1, _AHEAD, _AT_ONCE // max(1, len(self._key) * math.prod(shape)))
            count = max(1, most)
            steps = self._step + torch.arange(taken, taken + count, device=self._key.device)[:, None]
            numbers = _uniform(_at_step(self._key, steps).flatten(), draw, shape)
            first, block = taken, numbers.view(count, len(self._key), *shape)
            self._drawn[draw, shape] = first, block
        return block[taken - first]


class _Drawn(_Sequence):
    """The noise of rows at one step, from what was drawn ahead."""

    def __init__(self, ahead: NoiseAhead, taken: int) -> None:
        super().__init__()
        self._ahead, self._taken = ahead, taken

    def _numbers(self, shape: tuple[int, ...]) -> Tensor:
        return self._ahead.uniform(self._taken, self._draws, shape)


def stream_key(seed: int, example: Tensor, stream: Tensor) -> Tensor:
    """The key (N,) of the sequences of ``stream`` (N,) of each ``example`` (N,)."""
    key = _mix(torch.full_like(example, seed) + _GOLDEN)
    key = _mix(key ^ (example * _MIX_1))
    return _mix(key ^ (stream * _MIX_2))


def _uniform(key: Tensor, draw: int, shape: tuple[int, ...]) -> Tensor:
    """The uniform numbers (N, *shape) of draw number ``draw`` of each ``key`` (N,)."""
    key = _mix(key + torch.full_like(key, draw) * _MIX_2)
    counter = torch.arange(math.prod(shape), device=key.device) * _GOLDEN
    bits = _mix(key[:, None] + counter)
    # The shift keeps the sign; the mask makes the top 24 bits an unsigned number.
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32).mul_(2.0**-24).view(-1, *shape)


def _at_step(key: Tensor, step: Tensor | None) -> Tensor:
    return key if step is None else _mix(key ^ ((step + 1) * _GOLDEN))


def _mix(z: Tensor) -> Tensor:
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _MIX_1
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _MIX_2
    return z ^ ((z >> 31) & (2**33 - 1))
