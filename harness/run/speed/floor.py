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

    forward: float | None
    """Of a bare forward at the victim's precision, at the batch of attacks without gradients; None: not measured."""

    def floor(self, passes: Passes) -> float:
        """The least seconds an attack of so many passes can take on this device."""
        alone = self.forward or 0.0
        return passes.gradients * self.gradient + passes.verdicts * self.verdict + passes.forwards * alone

    def least(self, other: Rates) -> Rates:
        """The lower one of each rate."""
        known = [each.forward for each in (self, other) if each.forward is not None]
        gradient, verdict = min(self.gradient, other.gradient), min(self.verdict, other.verdict)
        return Rates(gradient, verdict, min(known, default=None))


@dataclass(frozen=True)
class Passes:
    """The rows that an attack sent through victim and judge."""

    gradients: int
    """Forward and backward through the victim."""

    verdicts: int
    """Forward through the judge."""

    forwards: int = 0
    """Forward alone through the victim."""


@dataclass
class Floor:
    """The floor of an attacker's work. No attack is faster: where one seems to be, the rates are measured again."""

    rates: Rates
    """The least rates measured so far."""

    measure: Callable[[], Rates]
    """Measures them once more."""

    def share(self, passes: Passes, seconds: float) -> float | None:
        """The floor of so many passes over the seconds that they took, in (0, 1].

        A share above 1 shows that something else slowed the device while the rates were measured. None where it stays
        above 1 after `MOST_TRIALS` further measurements.
        """
        for trial in range(MOST_TRIALS + 1):
            share = self.rates.floor(passes) / seconds
            known = not passes.forwards or self.rates.forward is not None
            if known and share <= 1:
                return share
            if trial < MOST_TRIALS:
                self.rates = self.rates.least(self.measure())
        return None


def uncounted_rates(
    victim: Victim, judge: Judge, targets: Targets, batch: int, repeats: int = 3, forward_batch: int = 0
) -> Rates:
    """As `measure_rates`, without a trace in the victim's counts: the cells measured so far have taken theirs."""
    counts = victim.forwards, victim.backwards
    try:
        return measure_rates(victim, judge, targets, batch, repeats, forward_batch)
    finally:
        victim.forwards, victim.backwards = counts


def measure_rates(
    victim: Victim,
    judge: Judge,
    targets: Targets,
    batch: int,
    repeats: int = 3,
    forward_batch: int = 0,
    *,
    gradient: float | None = None,
    forwards: bool = True,
) -> Rates:
    """The rates at this batch, each from so many bare calls; of forward passes alone at ``forward_batch``, if given.

    By the clock, as the seconds of an attack: a machine that is shared slows both alike. ``gradient`` are the seconds
    of a batch's gradients, where they are known. Forward passes alone are left out without ``forwards``.
    """

    def taken(call: Callable[[], object]) -> float:
        return seconds(call, victim.device, repeats, by_clock=True)

    x, y = targets.batch(batch)
    of_gradients = taken(lambda: victim.gradient(x, y)) if gradient is None else gradient
    judged, _ = targets.batch(max(batch, judge.batch))
    verdict = taken(lambda: judge.logits(judged, batch))
    alone, _ = targets.batch(forward_batch or batch)
    forward = taken(lambda: victim.scores(alone)) / len(alone) if forwards else None
    return Rates(of_gradients / len(x), verdict / len(judged), forward)
