"""Whoever watches an attack: how many of its planned gradients, or other queries, are behind it."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Takes the progress of an attack."""

    def begin(self, name: str, total: int) -> None:
        """An attack begins, or the next part of an ensemble, that takes ``total`` queries at most."""

    def at(self, done: int) -> None:
        """So many of them are done, or not needed any more."""


class Unwatched:
    """Nobody watches."""

    def begin(self, name: str, total: int) -> None:
        pass

    def at(self, done: int) -> None:
        pass
