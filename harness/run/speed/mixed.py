"""Low precision, where it is no faster than float32."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial

from epsbench.harness.findings import slower
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.timing import seconds
from epsbench.harness.run.speed.accelerate import LONG

# A machine that `has_units` may still be slower in it with some models: on an Intel CPU with AVX-512 alone, attacks in
# bf16 took 3.5 times as long as in float32 (torch 2.14).
_SLOWER, _TRIALS = 1.05, 3


def float32_where_faster(victim: Victim, targets: Targets, batch: int, rows: int) -> None:
    """Let the victim compute in float32 where its own precision takes longer; a finding says so.

    Both are timed in turns, for gradients of ``batch`` images. Where the ``rows`` of the work ahead are few, and
    for a random model, nothing is tried. No verdict comes from low precision, so none depends on this.
    """
    if victim.precision == "float32" or not victim.differentiable or victim.random:
        return
    if not len(targets) or rows < LONG * batch:
        return
    x, y = targets.batch(batch)
    exact = replace(victim, precision="float32", findings=[])
    calls = [partial(each.gradient, x, y) for each in (victim, exact)]
    for call in calls:
        call()  # the first call chooses kernels
    times = [[seconds(call, victim.device, 1) for call in calls] for _ in range(_TRIALS)]
    ratios = [low / full for low, full in times]
    if (ratio := statistics.median(ratios)) > _SLOWER:
        message = f"{victim.precision} takes {ratio:.1f} times as long as float32 here; float32 is used"
        victim.findings.append(slower("not-mixed", message, None))
        victim.precision = "float32"
