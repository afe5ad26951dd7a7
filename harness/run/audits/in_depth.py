"""What only shows on moved images: is the model one function, with the gradient of its outputs?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn

from epsbench.harness.findings import Finding
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.call_order import audit_call_order
from epsbench.harness.run.audits.fresh_process import FreshProcess, Recipe, audit_fresh_process
from epsbench.harness.run.audits.jumps import audit_jumps
from epsbench.harness.run.audits.off_grid import audit_off_grid
from epsbench.harness.run.audits.points import on_the_way, points
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.replay import Replayed
from epsbench.harness.run.audits.same_function import audit_same_as_judged, audit_same_function, audit_same_gradient
from epsbench.harness.run.audits.slope import audit_slope
from epsbench.harness.run.audits.unseen import audit_unseen
from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.guard import guarded


@dataclass(frozen=True)
class Made:
    """What a model was made of. Audits that need what is None are left out."""

    original: nn.Module | None = None
    """The model that judge and victim are copies of."""

    data: Data | None = None
    """What it is trained and tested on."""

    recipe: Recipe | None = None
    """How it is built again."""

    trained: bool = False
    """Whether epsbench has trained it."""

    @property
    def train(self) -> Examples | None:
        """Its training images, where there are any."""
        return self.data.train if self.data is not None and len(self.data.train) else None


def audit_in_depth(
    probe: Probe, victim: Victim, gradient: Tensor | None, made: Made, replayed: Replayed | None
) -> tuple[list[Finding], dict[str, Tensor]]:
    """Findings at moved images, and the model's logits (N, classes) at each kind of them, by name.

    ``gradient`` (N, C, H, W) is that at the probe, None where the model has none. ``replayed`` are adversarial images.
    """
    with ExitStack() as ends:
        # It builds the model while the audits here go on.
        process = ends.enter_context(FreshProcess(made.recipe)) if made.recipe else None
        moved = points(probe, gradient)
        findings = list(_on_moved_images(probe, victim, moved, gradient, made))
        if process is not None:
            findings += guarded(
                "the model in a fresh process", lambda: audit_fresh_process(process, probe, moved, replayed)
            )
        return findings, {name: probe.logits_at(x) for name, x in moved.items()}


def _on_moved_images(
    probe: Probe, victim: Victim, moved: Mapping[str, Tensor], gradient: Tensor | None, made: Made
) -> Iterator[Finding]:
    data, train, attacked = made.data, made.train, Attacked(victim, probe.batch)
    if train is not None and gradient is not None:  # first: it asks about images that no other audit has shown
        yield from guarded("the order of calls", lambda: audit_call_order(probe, train))
    yield from guarded("the model, called in several ways", lambda: audit_same_function(probe, moved, made.original))
    yield from guarded("pixels off the grid", lambda: audit_off_grid(probe, moved))
    yield from guarded("jumps", lambda: audit_jumps(probe, moved))
    if gradient is not None:
        yield from guarded("the attacked copy", lambda: audit_same_as_judged(probe, attacked, moved))
        yield from guarded("the attacked copy's gradient", lambda: audit_same_gradient(probe, victim))
        places = {**moved, "on the way of one step": on_the_way(probe.x, moved["one step"])}
        yield from guarded("finite differences", lambda: audit_slope(probe, places))
    if data is not None and train is not None:
        yield from guarded("training images", lambda: audit_unseen(probe, train, data.test))
