"""What an architecture is, and what it needs to know of the data. No torch, so that planning stays fast."""

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
    """A classifier without weights: a frozen value whose fields are the parameters that a suite may set.

    Only `build` imports torch, so the verbs that only read never load it.
    """

    version: ClassVar[int | str] = 1

    def check(self, data: DataShape) -> None:
        """Raise `ValueError`, with what to change, when this model cannot be built for the data."""

    def build(self, data: DataShape) -> nn.Module:
        """A module from pixels (N, C, H, W) in [0, 1] to logits (N, classes); it normalises its input itself."""
        raise TypeError(f"{type(self).__name__} must define build(data)")
