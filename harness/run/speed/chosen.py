"""What one process chose as fastest for a model, so that others use the same without timing anything again.

In float32, results are the same bit for bit only in the same form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from epsbench.attacks.losses import Loss
from epsbench.harness.run.attack.graphs import Ladder, Size
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.speed.accelerate import bare, graph_inputs, trial_inputs
from epsbench.harness.run.speed.compiling import compiled


@dataclass(frozen=True)
class Chosen:
    """The choices about a victim and its judge."""

    batch: int
    """Rows at a time."""

    losses: tuple[Loss, ...]
    """The losses whose gradient is a program."""

    forward: bool
    """Whether logits alone are a program."""

    compiled: bool
    """Whether the network is compiled for ``batch`` rows."""

    graphs: tuple[tuple[Loss | None, tuple[Size, ...]], ...]
    """The losses whose gradient has CUDA graphs, and their numbers of rows; None: the logits alone."""

    channels_last: bool
    """Whether the judge's images lie channels-last."""

    judged: int
    """How many images the judge sees at a time; 0: as many as the victim."""

    threads: int
    """How many threads a CPU computes with."""

    forward_batch: int = 0
    """Rows at a time of attacks that take no gradient; 0: as many as of others."""

    own_layouts: bool = False
    """Whether the program of logits alone computes in oneDNN's own layouts."""

    look: bool = False
    """Whether logits in low precision beside gradients are a program."""

    @classmethod
    def of(cls, victim: Victim, judge: Judge, batch: int, forward_batch: int = 0) -> Chosen:
        """The choices that were made about these."""
        return cls(
            batch=batch,
            losses=tuple(victim.programs),
            forward=victim.forward_program is not None,
            compiled=victim.fixed is not None,
            graphs=tuple((loss, graphs.sizes) for loss, graphs in victim.graphs.items()),
            channels_last=judge.layout == torch.channels_last,
            judged=judge.batch,
            threads=torch.get_num_threads(),
            forward_batch=forward_batch,
            own_layouts=getattr(victim.forward_program, "own_layouts", False),
            look=victim.look_program is not None,
        )

    def apply(self, victim: Victim, judge: Judge, targets: Targets) -> None:
        """Give the same forms to another copy of the model."""
        if victim.device.type == "cpu":
            torch.set_num_threads(self.threads)
        judge.lay(torch.channels_last if self.channels_last else torch.contiguous_format, self.judged)
        if self.losses or self.forward or self.look:
            self._trace(victim, targets)
        x, y = targets.batch(self.batch)
        if self.compiled:
            victim.fixed = (self.batch, compiled(victim.network))
        x = victim.laid_out(x)
        for loss, sizes in self.graphs:
            victim.graphs[loss] = Ladder(bare(victim, loss), graph_inputs(victim, loss, x, y), sizes)

    def _trace(self, victim: Victim, targets: Targets) -> None:
        # Imported here: it brings torch's compiler, which takes a second to import.
        from epsbench.harness.run.speed.program.program import ForwardProgram, Program

        x, y = targets.batch(5)
        x = victim.laid_out(x)
        for loss in self.losses:
            inputs = trial_inputs(victim, loss, x, y)
            victim.programs[loss] = Program(victim.bare_logits, x, *inputs, loss=loss)
        if self.forward:
            victim.forward_program = ForwardProgram(victim.exact_logits, x, own_layouts=self.own_layouts)
        if self.look:
            victim.look_program = ForwardProgram(victim.bare_logits, x)
