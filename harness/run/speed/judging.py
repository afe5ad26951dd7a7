"""How the judge's images lie in memory, and how many it sees at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.machine.timing import seconds
from epsbench.harness.run.speed.accelerate import LONG, apart
from epsbench.harness.run.speed.reshaping import reshape_views, restore_views

# Images that the judge may see at a time where the victim is fastest with fewer. A ResNet-18's verdicts took a tenth
# less time with 96 at a time than with 32 (two AMD EPYC cores, torch 2.14, one network).
JUDGED = {"cpu": 96, "cuda": 0}

# On a CPU, networks with so many convolutions of so many channels are taken to be faster channels-last, without timing:
# a pass took 0.65 × as long with six convolutions of 16 to 64 channels, 0.86 × with a ResNet-18 of width 16, and 1.05 ×
# with two convolutions (the same cores, one thread, batches of 32 and 128).
CONVOLUTIONS, CHANNELS = 3, 16


def lay_out_untimed(judge: Judge, x: Tensor) -> None:
    """Give the judge its images channels-last where that should be faster and its logits at ``x`` (N, C, H, W) stay.

    So that short work, which `lay_out` does not try, is judged faster. The choice depends on the network alone.
    """
    convolutions = (module for module in judge.network.modules() if isinstance(module, nn.Conv2d))
    wide = sum(each.in_channels // each.groups >= CHANNELS for each in convolutions)
    if judge.device.type != "cpu" or judge.random or wide < CONVOLUTIONS:
        return
    expected = judge.logits(x, len(x))
    judge.lay(torch.channels_last, 0)
    try:
        kept = apart(judge.logits(x, len(x)), expected) <= 1e-4
    # The user's forward() may raise anything, such as `view` on channels-last features.
    except Exception:  # noqa: BLE001
        kept = False
    if not kept:
        judge.lay(torch.contiguous_format, 0)


def lay_out(judge: Judge, targets: Targets, batch: int, verdicts: int) -> None:
    """Give the judge its images channels-last and, on a CPU, in larger batches, where that is faster.

    Its verdicts on the trial images must stay the same. The trial is made only where ``verdicts`` are enough to pay for
    it. ``batch`` suits a victim, which keeps what its backward pass needs; a forward pass alone has room for more.
    """
    if verdicts < LONG * batch:
        return
    larger = max(batch, min(4 * batch, JUDGED[judge.device.type]))
    x, _ = targets.batch(larger)

    def judged(layout: torch.memory_format, size: int) -> tuple[Tensor, float]:
        judge.lay(layout, size)
        logits = judge.logits(x, batch)
        return logits, seconds(lambda: judge.logits(x, batch), judge.device, 2)

    def channels_last() -> tuple[Tensor, float]:
        try:
            return judged(torch.channels_last, larger)
        except RuntimeError:  # `view` raises on channels-last features, and a larger batch may find no memory
            if not reshape_views(judge.network):
                raise
            return judged(torch.channels_last, larger)

    try:
        expected, took = judged(torch.contiguous_format, 0)
        logits, takes = channels_last()
        kept = takes < 0.97 * took and torch.equal(logits.argmax(1), expected.argmax(1))
        kept = kept and apart(logits, expected) <= 1e-4
    # The user's forward() may raise anything: `view` on channels-last features, and a larger batch may find no memory.
    except Exception:  # noqa: BLE001
        kept = False
    if not kept:
        restore_views(judge.network)
        judge.lay(torch.contiguous_format, 0)
