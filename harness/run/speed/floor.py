"""The floor of an attack: the least seconds its gradients and verdicts can take on this device."""

from __future__ import annotations

from dataclasses import dataclass

from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.timing import seconds


@dataclass(frozen=True)
class Rates:
    """Seconds a row."""

    gradient: float
    """Of a bare gradient, at the victim's precision and batch."""

    verdict: float
    """Of a float32 forward of the judge."""

    def floor(self, gradients: int, verdicts: int) -> float:
        """The least seconds an attack of so many gradients and verdicts can take on this device."""
        return gradients * self.gradient + verdicts * self.verdict


def measure_rates(victim: Victim, judge: Judge, targets: Targets, batch: int) -> Rates:
    """The two rates at this batch, from a few bare calls."""
    x, y = targets.batch(batch)
    gradient = seconds(lambda: victim.gradient(x, y), victim.device)
    judged, _ = targets.batch(max(batch, judge.batch))
    verdict = seconds(lambda: judge.logits(judged, batch), victim.device)
    return Rates(gradient / len(x), verdict / len(judged))
