"""Audits are remembered for a model that still answers as then, and for no other."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from zoo import digits

from epsbench.harness.api import evaluate
from epsbench.harness.findings import finding
from epsbench.harness.run.audits import auditor, constructed, in_depth, remembered

SWITCH = {"on": False}


class Switched(nn.Module):
    """Counts its rows for all copies. Where the switch is on, it computes something else with gradients."""

    rows = 0
    of_audits = 0

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        Switched.rows += len(x)
        logits: Tensor = self.inner(x)
        return logits.flip(1) * 0.1 if SWITCH["on"] and torch.is_grad_enabled() else logits


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    remembered._MODELS.clear()
    monkeypatch.setitem(SWITCH, "on", False)
    timed = auditor.Auditor._timed

    @contextmanager
    def counted(self: auditor.Auditor) -> Iterator[None]:
        before = Switched.rows
        with timed(self):
            yield
        Switched.of_audits += Switched.rows - before

    monkeypatch.setattr(auditor.Auditor, "_timed", counted)


def called(model: nn.Module, eps: float = 0.05, **more):
    """The result, and how many rows the audits asked the model about."""
    test, before = digits().test, Switched.of_audits
    x, y = test.pixels(slice(0, 200)), test.labels[:200]
    result = evaluate(model, x, y, attack="pgd:steps=10", eps=eps, batch_size=64, compile="off", **more)
    return result, Switched.of_audits - before


def codes(result) -> set[str]:
    return {each.code for each in result.findings}


def test_a_second_call_finds_the_same_and_asks_less(honest):
    model = Switched(honest)
    first, rows = called(model)
    second, fewer = called(model)
    assert fewer < 0.25 * rows
    assert codes(second) == codes(first)
    assert (second[0].robust == first[0].robust).all()
    assert second[0].record.evaluation == first[0].record.evaluation
    third, more = called(model, eps=0.08)  # attacks of the audits' own at another ε are made
    assert more > 1.5 * fewer
    assert codes(third) == codes(second)


def test_findings_are_remembered_with_their_numbers(honest):
    SWITCH["on"] = True
    model = Switched(honest)
    first, _ = called(model)
    second, _ = called(model)
    assert "gradient-mode-changes-output" in codes(first)
    assert [each.evidence for each in second.findings if each.code == "gradient-mode-changes-output"] == [
        each.evidence for each in first.findings if each.code == "gradient-mode-changes-output"
    ]


class Sharper(Switched):
    """Its outputs depend on a switch that nothing in the model shows."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.softmax(1) if SWITCH["on"] else logits


def test_a_model_that_answers_otherwise_by_now_is_audited_again(honest):
    model = Sharper(honest)
    assert "probabilities" not in codes(called(model)[0])
    SWITCH["on"] = True
    assert "probabilities" in codes(called(model)[0])


@pytest.mark.usefixtures("units_for_low_precision")
def test_other_weights_other_images_and_another_order_are_audited_anew(honest, monkeypatch):
    asked = []
    monkeypatch.setattr(in_depth, "audit_jumps", lambda probe, moved: asked.append(1) or iter(()))
    called(Switched(honest))
    called(Switched(honest))
    assert len(asked) == 1
    other = copy.deepcopy(honest)
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    called(Switched(other))
    assert len(asked) == 2
    called(Switched(honest), limit=150)
    assert len(asked) == 3
    called(Switched(honest), precision="bf16")  # another form is attacked
    assert len(asked) == 4


def test_findings_of_one_cell_are_not_those_of_the_next(honest, monkeypatch):
    model = Switched(honest)
    with monkeypatch.context() as lying:
        lying.setattr(auditor, "audit_replay", lambda *given: iter([finding("verdict-not-repeated", "once")]))
        assert "verdict-not-repeated" in codes(called(model)[0])
        assert "verdict-not-repeated" in codes(called(model)[0])
    assert "verdict-not-repeated" not in codes(called(model)[0])


def test_an_audit_that_raised_is_made_again(honest, monkeypatch):
    def raises(*given):
        raise RuntimeError("out of paper")

    with monkeypatch.context() as broken:
        broken.setattr(in_depth, "audit_jumps", raises)
        broken.setattr(constructed, "binarisation", raises)
        assert "audit-failed" in codes(called(Switched(honest))[0])
    assert "audit-failed" not in codes(called(Switched(honest))[0])


def test_the_oldest_models_are_forgotten():
    for number in range(remembered.MODELS + 2):
        remembered.remember(str(number), remembered.Remembered(outputs=[finding("at-chance", "")]))
    assert remembered.recall("1") is None
    assert remembered.recall("2") is not None
