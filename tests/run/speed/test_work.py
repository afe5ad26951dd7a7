"""The work that is announced to those who make a victim faster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.harness.run.robustness.attacker import _work


def announced(*attacks: Any) -> tuple[type, ...]:
    work = _work([SimpleNamespace(attack=attack, cells=[None]) for attack in attacks], 5, 10)  # type: ignore[misc]
    return tuple(type(loss) for loss in work.losses)


def test_no_program_is_traced_for_a_jacobian_which_it_would_not_serve():
    assert announced(DeepFool()) == ()
    assert announced(DDN(), DeepFool()) == (type(DDN().loss),)
