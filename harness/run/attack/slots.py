"""Rows in flight: what travels with a row, and how a row takes the slot of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Bundle:
    """Some rows and the tensors that travel with them."""

    rows: np.ndarray
    """The rows as `epsbench.harness.run.attack.schedule` numbers them, (N,)."""

    step: np.ndarray
    """How many steps each row has taken, (N,): the host's copy, so that the host need not ask the device."""

    tensors: dict[str, Tensor]
    """What travels with the rows, by name; the first axis of each is the row."""

    shared: frozenset[str] = frozenset()
    """Tensors that others may refer to as well, an attack's state: they are replaced and never written into."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: np.ndarray) -> Bundle:
        """The rows at these positions, copied."""
        chosen = self._positions(which)
        tensors = {name: t[chosen] for name, t in self.tensors.items()}  # which keeps the layout in memory
        return Bundle(self.rows[which], self.step[which], tensors, self.shared)

    @staticmethod
    def cat(bundles: list[Bundle]) -> Bundle:
        """All rows in order."""
        if len(bundles) == 1:
            return bundles[0]
        names = bundles[0].tensors
        tensors = {name: torch.cat([b.tensors[name] for b in bundles]) for name in names}
        rows, step = (np.concatenate([getattr(b, name) for b in bundles]) for name in ("rows", "step"))
        return Bundle(rows, step, tensors, bundles[0].shared)

    def without(self, holes: np.ndarray, new: Bundle | None) -> Bundle:
        """These rows without those at ``holes``; ``new`` rows take their slots. This bundle must not be used again.

        Rows that stay are not copied, except those that move from the end into slots left empty. So the cost depends
        on how many rows change, not on how many there are.
        """
        kept, taken = self, min(len(holes), len(new)) if new is not None else 0
        if new is not None:
            kept._write(holes[:taken], new.take(np.arange(taken)) if taken < len(new) else new)
        empty = holes[taken:]
        if len(empty):
            left = len(kept) - len(empty)
            stays = np.ones(len(kept), dtype=bool)
            stays[empty] = False
            movers = left + np.flatnonzero(stays[left:])
            kept._write(empty[empty < left], kept.take(movers))
            kept = kept._first(left)
        if new is not None and taken < len(new):
            rest = new.take(np.arange(taken, len(new)))
            kept = Bundle.cat([kept, rest]) if len(kept) else rest
        return kept

    def _write(self, where: np.ndarray, other: Bundle) -> None:
        """Put the rows of another bundle at these positions."""
        if not len(where):
            return
        at = self._positions(where)
        for name, value in self.tensors.items():
            owned = value.clone() if name in self.shared else value
            self.tensors[name] = owned.index_copy_(0, at, other.tensors[name])
        self.rows, self.step = self.rows.copy(), self.step.copy()
        self.rows[where], self.step[where] = other.rows, other.step

    def _first(self, count: int) -> Bundle:
        tensors = {name: t[:count] for name, t in self.tensors.items()}
        return Bundle(self.rows[:count], self.step[:count], tensors, self.shared)

    def _positions(self, which: np.ndarray) -> Tensor:
        return torch.from_numpy(which).to(self.tensors["y"].device)
