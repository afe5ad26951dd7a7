"""A classifier made ready for attacks along its gradients, on itself or on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from epsbench.attacks.base import Attack, GradientAttack
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.names import registry
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.memory import is_out_of_memory, release
from epsbench.harness.run.speed.accelerate import LONG, accelerate
from epsbench.harness.run.speed.batch_size import find_batch
from epsbench.harness.run.speed.floor import Rates, measure_rates
from epsbench.harness.run.speed.judging import lay_out
from epsbench.harness.run.speed.prepare import prepare

KEPT = 64  # adversarial images that the audits look at


@dataclass(frozen=True)
class Attacker:
    """The engine that attacks along one classifier's gradients, and the least time its work can take, where timed.

    ``weights`` is the digest of that classifier's weights where it is another than the one that judges.
    """

    engine: Engine
    rates: Rates | None
    weights: str = ""

    def floor_share(self, outcome: Outcome) -> float | None:
        """The least time these gradients and verdicts can take on this device, over the time they took."""
        if self.rates is None or not outcome.seconds:
            return None
        return self.rates.floor(outcome.backwards + outcome.shared_backwards, outcome.judge_forwards) / outcome.seconds


def make_attacker(
    network: nn.Module,
    judge: Judge,
    targets: Targets,
    probe: tuple[Tensor, Tensor],
    cells: Sequence[RobustnessCell],
    precision: str,
    context: Context,
    weights: str | None = None,
) -> Attacker:
    """Prepare ``network`` for the attacks of ``cells`` on ``targets``, in the fastest form that suits their number.

    ``probe`` is a few images (N, C, H, W) and labels (N,) to try it on. ``weights`` is given where the judge is another
    model: every image is then made to its end.
    """
    victim = prepare(network, context.device, precision, *probe)
    attacks = [registry.make("attack", cell.attack, context.base, norm=cell.norm) for cell in cells]
    rows = _rows(attacks, len(targets))
    batch = context.batch_size or find_batch(victim, targets, rows)
    batch = max(1, min(batch, len(targets)))
    batch, rates = _tuned(victim, judge, targets, batch, rows, len(attacks) * len(targets), context.compile)
    engine = Engine(victim, judge, targets, batch, keep=KEPT, white_box=weights is None)
    return Attacker(engine, rates, weights or "")


def _rows(attacks: Sequence[Attack | GradientAttack], targets: int) -> int:
    """Gradients that the attacks can take at most."""
    return sum(a.steps * a.restarts * targets for a in attacks if isinstance(a, GradientAttack))


def _tuned(
    victim: Victim, judge: Judge, targets: Targets, batch: int, rows: int, verdicts: int, compiled: str
) -> tuple[int, Rates | None]:
    """Prepare for ``rows`` gradients in batches, halved while memory runs out; time the floor of long work."""
    while True:
        exhausted = False
        try:
            accelerate(victim, targets, batch, rows, compiled)
            if rows < LONG * batch or not victim.differentiable:
                return batch, None
            lay_out(judge, targets, batch, verdicts)
            return batch, measure_rates(victim, judge, targets, batch)
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            exhausted = True
        if exhausted:
            release()
            batch //= 2
