"""Whether an attack draws from the global random generators instead of the noise that is keyed by image."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import torch


@dataclass
class GlobalDraws:
    """Counts the blocks (``with draws: …``) in which a global generator of torch, NumPy or Python moved on.

    On a GPU the generator of the CPU is looked at alone where the device records a graph, which must not be asked.
    """

    watched: bool = True
    """Whether to look at all: the attacks that come along are known not to draw."""

    count: int = 0
    """How many blocks drew."""

    _before: list[Any] = field(default_factory=list)

    def __enter__(self) -> None:
        if self.watched:
            self._before = _states()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.watched:
            self.count += self._before != _states()


def _states() -> list[Any]:
    """The states of the generators, as values that can be compared."""
    numpy = np.random.get_state()
    states = [torch.get_rng_state().numpy().tobytes(), numpy[1].tobytes(), numpy[2], random.getstate()]  # type: ignore[index]
    if torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
        states += [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return states
