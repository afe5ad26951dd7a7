"""The floor of an attack: the least seconds its gradients and verdicts can take on this device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.timing import seconds

MOST_TRIALS = 3


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


@dataclass
class Floor:
    """The floor of an attacker's work. No attack is faster: where one seems to be, the rates are measured again."""

    rates: Rates
    """The least rates measured so far."""

    measure: Callable[[], Rates]
    """Measures them once more."""

    def share(self, gradients: int, verdicts: int, seconds: float) -> float | None:
        """The floor of so many gradients and verdicts over the seconds that they took, in (0, 1].

        A share above 1 shows that something else slowed the device while the rates were measured. None where it stays
        above 1 after `MOST_TRIALS` further measurements.
        """
        for trial in range(MOST_TRIALS + 1):
            share = self.rates.floor(gradients, verdicts) / seconds
            if share <= 1:
                return share
            if trial < MOST_TRIALS:
                again = self.measure()
                self.rates = Rates(min(self.rates.gradient, again.gradient), min(self.rates.verdict, again.verdict))
        return None


def uncounted_rates(victim: Victim, judge: Judge, targets: Targets, batch: int) -> Rates:
    """As `measure_rates`, without a trace in the victim's counts: the cells measured so far have taken theirs."""
    counts = victim.forwards, victim.backwards
    try:
        return measure_rates(victim, judge, targets, batch)
    finally:
        victim.forwards, victim.backwards = counts


def measure_rates(victim: Victim, judge: Judge, targets: Targets, batch: int) -> Rates:
    """The two rates at this batch, from a few bare calls."""
    x, y = targets.batch(batch)
    gradient = seconds(lambda: victim.gradient(x, y), victim.device)
    judged, _ = targets.batch(max(batch, judge.batch))
    verdict = seconds(lambda: judge.logits(judged, batch), victim.device)
    return Rates(gradient / len(x), verdict / len(judged))
