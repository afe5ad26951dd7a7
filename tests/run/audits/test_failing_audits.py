"""Audits and outputs beside the number that raise: findings, and never failed measurements."""

from __future__ import annotations

import pytest
import torch
from broken_models import Wrapped
from torch import Tensor, nn
from zoo import codes, measure

from epsbench.harness.errors import InputError
from epsbench.harness.records import Record
from epsbench.harness.run.audits import auditor, in_depth, own_attacks
from epsbench.harness.run.guard import guarded

AUDITS = [
    (auditor, "audit_model"), (auditor, "audit_gradients"), (auditor, "audit_outcome"), (auditor, "audit_convergence"),
    (in_depth, "audit_off_grid"), (auditor, "audit_replay"), (own_attacks, "reattack"), (own_attacks, "audit_reattack"),
]  # fmt: skip


def broken(*_: object, **__: object) -> None:
    raise ZeroDivisionError("planted")


@pytest.fixture(scope="module")
def before(honest, tmp_path_factory) -> Record:
    (record,) = measure(honest, tmp_path_factory.mktemp("before"), ['"pgd"'], [0.05])
    return record


@pytest.mark.parametrize(("module", "name"), AUDITS, ids=[name for _, name in AUDITS])
def test_an_audit_that_raises_is_a_finding(honest, before, tmp_path, monkeypatch, module, name):
    monkeypatch.setattr(module, name, broken)
    (record,) = measure(honest, tmp_path, ['"pgd"'], [0.05])
    (finding,) = [each for each in record.findings if each.code == "audit-failed"]
    assert "ZeroDivisionError: planted" in finding.message
    assert (record.status, record.metrics) == ("ok", before.metrics)


def test_a_comparison_of_cells_that_raises_is_a_finding(honest, tmp_path, monkeypatch):
    monkeypatch.setattr(auditor.History, "compare", broken)
    (record,) = measure(honest, tmp_path, ['"pgd"'], [0.1])
    assert (record.status, codes([record])) == ("ok", {"audit-failed"})


def test_an_input_error_and_an_interrupt_pass():
    for error in (InputError("no room"), KeyboardInterrupt()):

        def audit(error: BaseException = error) -> list:
            raise error

        with pytest.raises(type(error)):
            guarded("anything", audit)


def test_a_model_that_tries_to_exit_is_a_finding():
    def audit() -> list:
        raise SystemExit(3)

    assert [each.evidence["error"] for each in guarded("anything", audit)] == ["SystemExit"]


class ReadsOneShape(Wrapped):
    """Raises for batches of 7, which only an audit makes."""

    def before(self, x: Tensor) -> Tensor:
        if len(x) == 7:
            raise ValueError("no seven")
        return x


def test_a_model_that_raises_in_an_audit_is_measured(honest, tmp_path):
    (record,) = measure(ReadsOneShape(honest), tmp_path, ['"pgd"'], [0.05])
    assert record.status == "ok"
    assert any("no seven" in each.message for each in record.findings if each.code == "audit-failed")


class NoGradient(Wrapped):
    """Has no derivative at all."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def test_without_a_derivative_noise_is_measured_and_gradient_attacks_fail(honest, tmp_path):
    noise, fgsm = measure(NoGradient(honest), tmp_path, ['"noise"', '"fgsm"'], [0.1])
    assert (noise.status, codes([noise])) == ("ok", {"not-differentiable"})
    assert fgsm.status == "failed"
    assert fgsm.failure is not None
    assert "remove torch.no_grad()" in fgsm.failure.message


RAISES = """
from epsbench.attacks import GradientAttack

class Raises(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        raise RuntimeError("the attack's own fault")
"""


def test_an_attack_that_raises_on_a_model_with_a_gradient_gets_no_advice_about_gradients(honest, tmp_path):
    (tmp_path / "raises.py").write_text(RAISES)
    (record,) = measure(honest, tmp_path, ['"raises.py:Raises"'], [0.1])
    assert record.failure is not None
    assert record.failure.message == "the attack's own fault"


def test_pictures_that_cannot_be_written_are_a_finding(honest, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("epsbench.harness.run.robustness.record.write_pictures", full)
    (record,) = measure(honest, tmp_path, ['"fgsm"'], [0.1])
    assert (record.status, record.pictures) == ("ok", False)
    (finding,) = record.findings
    assert (finding.code, finding.evidence["output"]) == ("output-failed", "pictures")
    assert "no space" in finding.message


def test_a_profile_that_fails_is_a_finding_of_the_last_cell(honest: nn.Module, tmp_path, monkeypatch):
    monkeypatch.setattr("epsbench.harness.run.robustness.job.profile_attack", broken)
    first, last = measure(honest, tmp_path, ['"fgsm"'], [0.1, 0.2], profile=True)
    assert (first.status, codes([first])) == ("ok", set())
    assert (last.status, codes([last])) == ("ok", {"output-failed"})
