"""A whole turn of the rows as CUDA graphs: query, margin, step, projection and hold in one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epsbench.attacks.base import State
from epsbench.attacks.norms.base import RowNoise
from epsbench.harness.findings import slower
from epsbench.harness.run.attack.graphs import Ladder, Query, steps_down
from epsbench.harness.run.attack.turn import Turn

WORTH = 200  # turns; before so many, the few that a capture takes are a small part of the work
SAME = 0.99  # of a tensor's entries: kernels that add up in another order may turn a sign


class TurnGraphs:
    """`Turn.take`, by a graph where one can be captured, is faster, and computes the same.

    That is tried at the first turn, where ``turns`` lie ahead and the victim's queries are graphs already. A step that
    asks the device something cannot be captured. A finding says so, and the attack goes on without a graph.
    """

    def __init__(self, turn: Turn, turns: float) -> None:
        self.turn, self.victim = turn, turn.victim
        self._due = turns >= WORTH and bool(self.victim.graphs) and not self.victim.random
        self._graphs: Ladder | None = None
        self._given: tuple[str, ...] = ()
        self._changed: tuple[str, ...] = ()

    def take(self, t: State, shared: frozenset[str], draw: Callable[[], RowNoise]) -> None:
        """As `Turn.take`."""
        if self._due:
            self._due = False
            self._try(t, shared)
        rows = len(t["y"])
        if self._graphs is None or not self._graphs.serves(rows):
            self.turn.take(t, shared, draw)
            return
        t.update(zip(self._changed, self._graphs(*(t[name] for name in self._given)), strict=True))
        self.victim.forwards += rows * self.turn.asks.forwards
        self.victim.backwards += rows * self.turn.asks.gradients

    def _try(self, t: State, shared: frozenset[str]) -> None:
        """Capture turns of as many rows as ``t`` has, and of fewer."""
        counts, queries, message = (self.victim.forwards, self.victim.backwards), self.victim.graphs, ""
        reason: Exception | None = None
        self._given, given = tuple(t), tuple(each.clone() for each in t.values())
        try:
            expected = self.turn.after(dict(zip(self._given, given, strict=True)), shared)
            self._changed = tuple(expected)
            self.victim.graphs = {}  # a graph cannot be part of another
            graphs = Ladder(self._plain(shared), tuple(t.values()), steps_down(len(t["y"])))
            self.victim.graphs = queries
            if all(map(_same, graphs(*t.values()), expected.values())):
                graphs.keep(graphs.faster(self.victim.device, self._plain(shared)))
                self._graphs = graphs
            else:
                message = "the captured turn computes something else"
        except Exception as error:  # noqa: BLE001 - what is raised may be the attack's, the model's or the driver's
            message, reason = "a turn of this attack cannot be captured as a CUDA graph", error
        finally:
            self.victim.graphs, (self.victim.forwards, self.victim.backwards) = queries, counts
        finding = slower("not-graphed", message, reason)
        if message and finding not in self.victim.findings:
            self.victim.findings.append(finding)

    def _plain(self, shared: frozenset[str]) -> Query:
        """What a turn changes, by the tensors of the rows."""

        def after(*tensors: Tensor) -> tuple[Tensor, ...]:
            new = self.turn.after(dict(zip(self._given, tensors, strict=True)), shared)
            return tuple(new[name] for name in self._changed)

        return after


def _same(ours: Tensor, expected: Tensor) -> bool:
    """Whether two tensors agree in almost all entries."""
    if ours.is_floating_point():
        agree = torch.isclose(ours, expected, rtol=1e-2, atol=1e-4, equal_nan=True)
    else:
        agree = ours == expected
    return float(agree.float().mean()) >= SAME
