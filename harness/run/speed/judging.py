"""How the judge's images lie in memory, and how many it sees at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.machine.timing import seconds
from epsbench.harness.run.speed.accelerate import LONG, _apart, _batch

# Images that the judge may see at a time though the victim does best with fewer: a ResNet-18's verdicts took a tenth
# less time on two cores, with 96 at a time and not 32.
JUDGED = {"cpu": 96, "cuda": 0}


def lay_out(judge: Judge, targets: Targets, batch: int, verdicts: int) -> None:
    """Give the judge its images channels-last and, on a CPU, in larger batches, where that is faster.

    Its word has to stay the same. Tried where ``verdicts`` are enough to win back the trial. ``batch`` suits a victim
    that keeps what its backward pass needs; a forward pass alone has the room for more images at a time.
    """
    if verdicts < LONG * batch:
        return
    larger = max(batch, min(4 * batch, JUDGED[judge.device.type]))
    x, _ = _batch(targets, larger)

    def judged(layout: torch.memory_format, size: int) -> tuple[Tensor, float]:
        judge.lay(layout, size)
        logits = judge.logits(x, batch)
        return logits, seconds(lambda: judge.logits(x, batch), judge.device, 2)

    try:
        expected, took = judged(torch.contiguous_format, 0)
        found, takes = judged(torch.channels_last, larger)
        kept = takes < 0.97 * took and torch.equal(found.argmax(1), expected.argmax(1))
        kept = kept and _apart(found, expected) <= 1e-4
    except RuntimeError:  # as `view` raises in some forwards, and as larger batches find no room
        kept = False
    if not kept:
        judge.lay(torch.contiguous_format, 0)
