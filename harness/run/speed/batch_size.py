"""The batch size with the most gradients a second."""

from __future__ import annotations

from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import is_out_of_memory, release
from epsbench.harness.run.machine.timing import seconds

SMALLEST = 32
LARGEST = {"cpu": 512, "cuda": 4096}
UNTRIED = {"cpu": 128, "cuda": 1024}
"""The size used where trying would take too long."""
TRIAL_SHARE = 0.01  # of the predicted work may go into finding the batch size


def find_batch(victim: Victim, targets: Targets, rows: int) -> int:
    """The batch size with the most gradients a second: doubled until that gains nothing, or memory runs out.

    ``rows`` is the work ahead in gradients. Where trying the usual sizes would cost more than 1 % of it, `UNTRIED` is
    used.
    """
    kind = victim.device.type
    most, budget = min(LARGEST[kind], max(rows, 1)), TRIAL_SHARE * rows
    if budget < 4 * UNTRIED[kind] or not victim.differentiable:
        return min(UNTRIED[kind], most)
    best, best_rate, batch, spent = min(UNTRIED[kind], most), 0.0, SMALLEST, 0
    while batch <= most and spent + 2 * batch <= budget:
        x, y = targets.batch(batch)
        try:
            victim.gradient(x, y)  # the first call at a new shape chooses kernels
            rate = batch / seconds(lambda x=x, y=y: victim.gradient(x, y), victim.device, 1)  # type: ignore[misc]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            rate = 0.0
        if rate == 0.0:
            release()
            return min(best, batch // 2)
        spent += 2 * batch
        if rate > 1.03 * best_rate:
            best, best_rate = batch, rate
        elif batch >= 4 * best:
            break
        batch *= 2
    return best
