"""What a model draws or sets while it is audited changes nothing that comes after."""

from __future__ import annotations

import os
import random
from typing import Any

import torch
from broken_models import Wrapped
from zoo import measure

from epsbench.harness.findings import Finding
from epsbench.harness.isolation import global_state_kept
from epsbench.harness.run.audits.auditor import Auditor


class Draws(Wrapped):
    """Draws random numbers that it does not use, and sets what is set for the whole process."""

    def before(self, x: torch.Tensor) -> torch.Tensor:
        torch.rand(())
        random.random()
        os.environ["EPSBENCH_TEST_OF_AUDITS"] = str(random.random())
        return x


def test_what_a_model_draws_or_sets_in_audits_reaches_no_cell(honest, tmp_path, monkeypatch):
    states = []
    doubt = Auditor.doubt

    def state() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), os.environ.get("EPSBENCH_TEST_OF_AUDITS")

    def watched(*arguments: Any) -> list[Finding]:
        states.append(state())
        findings = doubt(*arguments)
        states.append(state())
        return findings

    monkeypatch.setattr(Auditor, "doubt", watched)
    with global_state_kept():
        measure(Draws(honest).eval(), tmp_path, ['"pgd"'], [0.05])
    assert len(states) == 2
    assert states[0] == states[1]
