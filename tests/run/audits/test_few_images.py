"""The audits ask an honest model about few images, and all that look wrong apart."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from broken_models import Wrapped
from stateful import ByAddress
from torch import Tensor, nn
from zoo import probe_of

from epsbench.attacks.pgd import PGD
from epsbench.harness.run.audits import attack, calls, same_function
from epsbench.harness.run.audits.gradients import SCREENED as STEPPED
from epsbench.harness.run.audits.gradients import audit_gradients
from epsbench.harness.run.audits.jumps import audit_jumps
from epsbench.harness.run.audits.points import on_the_way, points
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.same_function import CHANNELS_LAST, COPY, INNER, LEAF, PLAIN, SLICE
from epsbench.harness.run.audits.slope import SCREENED, audit_slope

N = 32


class Depth:
    """How often it was copied."""

    def __init__(self, copies: int = 0) -> None:
        self.copies = copies

    def __deepcopy__(self, memo: dict[int, Any]) -> Depth:
        return Depth(self.copies + 1)


class Smooth(nn.Module):
    """A small network without an edge. It counts the rows and the passes of all copies."""

    rows, passes = 0, 0

    def __init__(self) -> None:
        super().__init__()
        self.depth = Depth()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        Smooth.rows += len(x)
        Smooth.passes += 1
        logits: Tensor = self.layers(x.contiguous())
        return logits


class Differs(Smooth):
    """Another network in one way of being called."""

    def __init__(self, when: Callable[[Differs, Tensor], bool]) -> None:
        super().__init__()
        self.when = when

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.flip(1) if self.when(self, x) else logits


class RefusesLayouts(Wrapped):
    def before(self, x: Tensor) -> Tensor:
        if not x.is_contiguous() or x.stride()[1] == 1:
            raise RuntimeError("view size is not compatible")
        return x


class RefusesNothing(Wrapped):
    def after(self, logits: Tensor) -> Tensor:
        return logits - logits.max()


def made() -> tuple[Probe, dict[str, Tensor]]:
    """A probe of an honest network, and its places."""
    probe = probe_of(Smooth(), N)
    return probe, dict(points(probe, probe.gradient(probe.x, probe.y)))


def asked(audit: Callable[[], object]) -> int:
    """The rows that an audit asks about; it finds nothing."""
    before = Smooth.rows
    assert not list(audit())  # type: ignore[call-overload]
    return Smooth.rows - before


WAYS: dict[str, Callable[[Differs, Tensor], bool]] = {
    LEAF: lambda model, x: x.requires_grad and x.is_leaf,
    INNER: lambda model, x: x.requires_grad and not x.is_leaf,
    PLAIN: lambda model, x: torch.is_grad_enabled() and not x.requires_grad,
    CHANNELS_LAST: lambda model, x: x.stride()[1] == 1,
    SLICE: lambda model, x: x.storage_offset() > 0,
    COPY: lambda model, x: model.depth.copies > 2,  # the judge has a copy itself
}


@pytest.mark.parametrize("how", WAYS)
def test_a_way_that_is_tried_together_with_another_is_named_alone(how):
    probe = probe_of(Differs(WAYS[how]), N)
    moved = points(probe, None)
    findings = list(same_function.audit_same_function(probe, moved, None))
    assert [each.evidence["call"] for each in findings] == [how]


def test_ways_are_tried_together_where_a_model_is_the_same():
    probe, moved = made()
    for x in moved.values():
        probe.logits_at(x)
    before = Smooth.passes
    assert not list(same_function.audit_same_function(probe, moved, None))
    batches = sum(-(-images // size) for images in (4, 12) for size in same_function.SIZES)
    assert Smooth.passes - before == 2 * 4 + batches + 1  # three pairs, a thread, and the large batch
    assert SLICE in {how for _, hows in same_function._together(Smooth(), Smooth()) for how in hows}


def test_a_model_that_refuses_a_layout_is_no_finding():
    probe = probe_of(RefusesLayouts(Smooth()), N)
    assert not list(same_function.audit_same_function(probe, points(probe, None), None))


def test_batches_of_one_size_lie_in_the_same_memory():
    network, x = Smooth(), probe_of(Smooth(), 9).x
    with torch.no_grad():
        expected = network(x)
    for size in (1, 2, 4, 12):
        assert torch.allclose(calls.in_batches(network, size)(x), expected, atol=1e-6)
    by_address = calls.in_batches(ByAddress(network), 1)(x)
    assert int((by_address - expected).abs().amax(1).gt(1e-3).sum()) == 8  # all but the first


def test_finite_differences_that_agree_on_the_first_images_end_there():
    probe, moved = made()
    places = {**moved, "on the way of one step": on_the_way(probe.x, moved["one step"])}
    assert asked(lambda: audit_slope(probe, places)) == 3 * SCREENED * len(places)


def test_images_that_no_longer_jump_are_not_followed():
    probe, moved = made()
    for x in moved.values():
        probe.logits_at(x)
    before = Smooth.passes
    rows = asked(lambda: audit_jumps(probe, moved))
    assert rows < N * (Smooth.passes - before)


def test_steps_that_beat_random_ones_on_the_first_images_end_there():
    probe, _ = made()
    gradient, logits = probe.gradient(probe.x, probe.y), probe.logits(probe.x)
    nobody = torch.full_like(logits, -1).scatter(1, ((probe.y + 1) % 10)[:, None], 1)  # none is right: no further steps
    rows = asked(lambda: audit_gradients(probe, gradient, nobody))
    assert rows == 2 * STEPPED
    assert asked(lambda: audit_gradients(probe, gradient, logits)) >= rows


def test_calls_without_an_image_count_and_may_be_refused():
    network, x = Smooth(), probe_of(Smooth(), 4).x
    before = Smooth.passes, Smooth.rows
    calls.count_up(network, x, 50)
    assert (Smooth.passes - before[0], Smooth.rows - before[1]) == (50, 0)
    calls.count_up(RefusesNothing(network), x, 50)
    assert Smooth.passes - before[0] == 51


def test_logits_that_are_known_are_not_asked_for_again():
    probe, moved = made()
    logits = probe.logits(probe.x)
    probe.know(probe.x, logits)
    probe.logits_at(moved["one step"])
    probe.forget()
    assert asked(lambda: [] if probe.logits_at(probe.x, 5).equal(logits[:5]) else [0]) == 0
    assert asked(lambda: [] if len(probe.logits_at(moved["one step"], 5)) == 5 else [0]) == 5
    assert asked(lambda: [] if len(probe.logits_at(moved["one step"])) == N else [0]) == N


@pytest.mark.parametrize(
    ("answers", "asked_about", "finds"),
    [
        ([(0.0, 1.0, 1.05)], [12], False),  # converged
        ([(0.0, 1.0, 1.5), (0.0, 1.0, 1.5)], [12, 32], True),
        ([(0.0, 1.0, 1.5), (0.0, 1.0, 1.15)], [12, 32], False),  # less than a fifth on all
        ([(0.0, 0.0, 0.0), (0.0, 0.1, 1.0)], [12, 32], True),  # nothing has risen on the first
    ],
)
def test_one_more_step_is_taken_on_all_images_where_the_first_leave_a_doubt(monkeypatch, answers, asked_about, finds):
    few: list[int] = []

    def step(given: Any, outcome: Any, victim: Any, targets: Any, chosen: Tensor) -> tuple[float, float, float]:
        few.append(len(chosen))
        return answers[len(few) - 1]

    monkeypatch.setattr(attack, "_one_more_step", step)
    nothing: Any = None
    outcome: Any = SimpleNamespace(eps=0.1)
    findings = attack.audit_convergence(PGD(), outcome, nothing, nothing, torch.arange(32))
    assert (few, [each.code for each in findings]) == (asked_about, ["unconverged"] * finds)
