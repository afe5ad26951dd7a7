"""What a model needs to know to be built. No torch, so that planning stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import nn


class DataShape(Protocol):
    """The part of a data set's description that shapes a network (`epsbench.harness.plan.data.DataDescription`)."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> int: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class Architecture:
    """A classifier before it has weights: a frozen value whose fields are what a suite may set.

    Torch is imported inside `build` alone, so the verbs that only read never load it.
    """

    version: ClassVar[int | str] = 1

    def check(self, data: DataShape) -> None:
        """Raise `ValueError`, saying what would be right, when this model cannot be built for the data."""

    def build(self, data: DataShape) -> nn.Module:
        """A module from pixels (N, C, H, W) in [0, 1] to logits (N, classes); normalisation is inside."""
        raise TypeError(f"{type(self).__name__} must define build(data)")
