"""The batch size with the most gradients a second."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import is_out_of_memory, release
from epsbench.harness.run.machine.timing import seconds
from epsbench.harness.run.speed.fitting import as_many_as_fit, rows_that_fit

SMALLEST = 32
LARGEST = {"cpu": 512, "cuda": 4096}
UNTRIED = {"cpu": 128, "cuda": 1024}
"""The size used where trying would take too long."""
TRIAL_SHARE = 0.01  # of the predicted work may go into finding the batch size

FORWARD_ROWS = 4  # fit into the memory of one row's gradient, at least: nothing is kept for it

_TRIALS = 3  # of each size, the median of which counts: a single one is easily disturbed

# What a turn of the engine takes besides its query, whatever the number of rows: about 100 small operations of an
# attack's step (AutoAttack's parts on smallcnn, one AMD EPYC core, torch 2.14).
TURN_SECONDS = {"cpu": 5e-4, "cuda": 0.0}
# The same of an attack without gradients: Square at 64 to 512 rows (smallcnn on MNIST, the same core).
FORWARD_TURN_SECONDS = {"cpu": 1e-3, "cuda": 0.0}


def find_batch(victim: Victim, targets: Targets, rows: int) -> int:
    """The batch size with the most gradients a second: doubled until that gains nothing, or memory runs out.

    ``rows`` is the work ahead in gradients. Where trying the usual sizes would cost more than 1 % of it, `UNTRIED` is
    used.
    """
    kind = victim.device.type
    most = as_many_as_fit(min(LARGEST[kind], max(rows, 1)), victim.bare_logits, _one(targets))
    if TRIAL_SHARE * rows < 4 * UNTRIED[kind] or not victim.differentiable:
        return min(UNTRIED[kind], most)
    turn = TURN_SECONDS[kind]
    return _fastest(victim, lambda size: partial(victim.gradient, *targets.batch(size)), most, rows, turn)


def untried(victim: Victim, targets: Targets) -> int:
    """`UNTRIED`, or as many rows as fit into a CPU's memory."""
    return as_many_as_fit(UNTRIED[victim.device.type], victim.bare_logits, _one(targets))


def _one(targets: Targets) -> Tensor:
    """One image (1, C, H, W) of the targets; none where there are none."""
    return targets.pixels(torch.arange(min(1, len(targets)), device=targets.labels.device))


def find_forward_batch(victim: Victim, targets: Targets, batch: int, rows: int) -> int:
    """The batch size with the most forward passes a second, for attacks that take no gradient.

    ``batch`` is that of gradients, and is used where ``rows`` forward passes are too few for a trial.
    """
    if TRIAL_SHARE * rows < 4 * UNTRIED[victim.device.type]:
        return batch
    largest, fit = LARGEST[victim.device.type], rows_that_fit(victim.bare_logits, _one(targets))
    most = min(largest, FORWARD_ROWS * fit) if fit else largest
    turn = FORWARD_TURN_SECONDS[victim.device.type]
    return _fastest(victim, lambda size: partial(victim.scores, targets.batch(size)[0]), most, rows, turn)


def _fastest(victim: Victim, query: Callable[[int], Callable[[], object]], most: int, rows: int, turn: float) -> int:
    """The size up to ``most`` with the most rows of a query a second, the ``turn`` seconds of the rest included."""
    kind, budget = victim.device.type, TRIAL_SHARE * rows
    best, best_rate, batch, spent = min(UNTRIED[kind], most), 0.0, SMALLEST, 0
    while batch <= most and spent + (1 + _TRIALS) * batch <= budget:
        call = query(batch)
        try:
            call()  # the first call at a new shape chooses kernels
            rate = batch / (seconds(call, victim.device, _TRIALS) + turn)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            rate = 0.0
        if rate == 0.0:
            release()
            return min(best, batch // 2)
        spent += (1 + _TRIALS) * batch
        if rate > 1.03 * best_rate:
            best, best_rate = batch, rate
        elif batch >= 4 * best:
            break
        batch *= 2
    return best
