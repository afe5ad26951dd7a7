"""The binarisation tests of a model's attacks: each is made at the first ε of its attack."""

from __future__ import annotations

from typing import Any

from torch import nn

from epsbench.attacks.base import Attack
from epsbench.harness.findings import Finding
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.audits.binarisation import binarisation
from epsbench.harness.run.audits.remembered import Remembered, digest_of, failed
from epsbench.harness.run.guard import guarded


class ConstructedExamples:
    """What the binarisation tests gave, by attack."""

    def __init__(self, memory: Remembered) -> None:
        """``memory`` knows what was tested before."""
        self._memory = memory
        self._tested: dict[Attack, tuple[list[Finding], dict[str, Any]]] = {}

    def findings(self, network: nn.Module, attack: Attack, targets: Targets, eps: float) -> list[Finding]:
        """Findings of the test of an attack on the features of a network, at ``eps`` or where it was tested first."""
        if attack not in self._tested:
            key = attack, digest_of(eps, targets.index, targets.labels)
            self._tested[attack] = self._memory.constructed.get(key) or self._test(network, attack, targets, eps)
            if not failed(self._tested[attack][0]):
                self._memory.constructed[key] = self._tested[attack]
        return self._tested[attack][0]

    def counts(self, attack: Attack) -> dict[str, Any]:
        """What the test of this attack counted, or why it was not made; empty where it was not due."""
        return self._tested[attack][1] if attack in self._tested else {}

    @staticmethod
    def _test(network: nn.Module, attack: Attack, targets: Targets, eps: float) -> tuple[list[Finding], dict[str, Any]]:
        counts: dict[str, Any] = {}
        return guarded("constructed examples", lambda: binarisation(network, attack, targets, eps, counts)), counts
