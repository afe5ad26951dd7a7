"""What was found fastest for a model in an earlier call of this process, so that a second call does not time it again.

The same forms also make the same sums: a call where timing chose another one would differ by rounding.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from epsbench.harness.findings import Finding
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.recent import Recent
from epsbench.harness.run.speed.accelerate import computes_the_same, gives_the_logits
from epsbench.harness.run.speed.chosen import Chosen
from epsbench.harness.run.speed.floor import Rates

CHOICES = 16  # the last ones are remembered
FEW = 33  # images on which a program is compared with its network


@dataclass(frozen=True)
class Tuned:
    """The choices for a victim and its judge."""

    prepared: str
    """The victim's form before anything was timed."""

    chosen: Chosen
    """What was chosen."""

    form: str
    """The victim's form then."""

    precision: str
    """What it computes in."""

    findings: tuple[Finding, ...]
    """Faster forms that the model refused."""

    rates: Rates | None
    """The least seconds of gradients and verdicts; None where they were not measured."""

    def apply(self, victim: Victim, judge: Judge, targets: Targets) -> bool:
        """Give the same forms to another copy of the model; False where its programs compute something else by now.

        Then the victim is as it was.
        """
        started, precision = time.perf_counter(), victim.precision
        victim.precision = self.precision
        self.chosen.apply(victim, judge, targets)
        if not self._same(victim, targets):
            victim.precision, victim.programs, victim.forward_program = precision, {}, None
            victim.fixed, victim.look_program, victim.graphs = None, None, {}
            return False
        victim.form, victim.findings = self.form, list(self.findings)
        victim.compile_seconds += time.perf_counter() - started
        return True

    @staticmethod
    def _same(victim: Victim, targets: Targets) -> bool:
        """Whether the programs give the network's gradients and logits, on a few images."""
        x, _ = targets.batch(FEW)
        forwards = (victim.forward_program, "float32"), (victim.look_program, victim.precision)
        if not all(gives_the_logits(victim, each, x, precision) for each, precision in forwards if each is not None):
            return False
        return all(computes_the_same(victim, program, loss, x) for loss, program in victim.programs.items())


_CHOICES = Recent[Tuned](CHOICES)
remember = _CHOICES.remember


def recall(key: str, victim: Victim) -> Tuned | None:
    """What is remembered under a key for a victim that was prepared alike; None where nothing is."""
    known = _CHOICES.recall(key)
    return known if known is not None and known.prepared == victim.form else None
