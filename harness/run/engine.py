"""The engine: one attack at several ε against one victim, whatever kind of attack it is.

Gradient attacks run as a packed stream (`harness.run.stream`); an attack that brings its own loop
(`attacks.base.Attack`) is called batch by batch. Both are projected and judged here, so neither can
leave its ball, its box, or decide for itself what counts as fooled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from attacks.base import Attack, GradientAttack
from harness.run.ledger import Ledger, Outcome, Targets
from harness.run.memory import is_out_of_memory, release
from harness.run.step import into_ball
from harness.run.stream import CleanGradients, Stream
from harness.run.victim import Judge, Victim


@dataclass
class Engine:
    """Attacks on one victim. ``batch`` is the number of slots, halved when memory runs out.

    ``keep`` is how many of the first targets keep their image; ``poll`` how many steps run between two
    looks at the device (1 on a CPU, where looking costs nothing).
    """

    victim: Victim
    judge: Judge
    targets: Targets
    batch: int
    keep: int = 0
    poll: int = 0
    clean: CleanGradients = field(init=False)

    def __post_init__(self) -> None:
        self.clean = CleanGradients(self.victim, self.targets, self.batch)
        self.poll = self.poll or (1 if self.victim.device.type == "cpu" else 8)

    def run(
        self, attack: Attack | GradientAttack, eps: Sequence[Fraction], *, seed: int, early_stop: bool = True
    ) -> Iterator[Outcome]:
        """An `Outcome` for each ε (pixel units), in order, each as soon as it is complete."""
        eps = list(eps)
        ledger = Ledger(self.judge, self.targets, attack.norm, eps, self.keep)
        if not len(self.targets):
            yield from ledger.outcomes
        elif isinstance(attack, GradientAttack):
            yield from self._stream(attack, eps, ledger, seed, early_stop)
        else:
            for e, outcome in enumerate(ledger.outcomes):
                self._perturb(attack, e, outcome, ledger, seed)
                yield outcome

    def _stream(
        self, attack: GradientAttack, eps: list[Fraction], ledger: Ledger, seed: int, early_stop: bool
    ) -> Iterator[Outcome]:
        stream = Stream(
            attack,
            eps,
            self.victim,
            self.targets,
            ledger,
            self.clean,
            batch=min(self.batch, len(self.targets) * len(eps)),
            seed=seed,
            early_stop=early_stop,
            poll=self.poll,
        )
        for outcome in stream.run():
            self.batch = min(self.batch, stream.size) if stream.size < len(self.targets) * len(eps) else self.batch
            if stream.from_clean:
                # Priced as if this stream had paid for the shared gradient: one an image, split over its ε.
                outcome.shared_backwards = len(self.targets)
                outcome.seconds += self.clean.seconds / len(eps)
            yield outcome

    def _perturb(self, attack: Attack, e: int, outcome: Outcome, ledger: Ledger, seed: int) -> None:
        n, start, batch = len(self.targets), 0, self.batch
        started, before = time.perf_counter(), (self.victim.forwards, self.victim.backwards)
        while start < n:
            exhausted = False
            try:
                stop = min(start + batch, n)
                positions = torch.arange(start, stop, device=self.targets.labels.device)
                self._judge_batch(attack, e, positions, ledger, seed)
                start = stop
            except (RuntimeError, MemoryError) as error:
                if batch == 1 or not is_out_of_memory(error):
                    raise
                exhausted = True
            if exhausted:
                batch //= 2
                release()
        self.batch = min(self.batch, batch)
        outcome.forwards = self.victim.forwards - before[0]
        outcome.backwards = self.victim.backwards - before[1]
        outcome.judge_forwards = n
        outcome.seconds = time.perf_counter() - started

    def _judge_batch(self, attack: Attack, e: int, positions: Tensor, ledger: Ledger, seed: int) -> None:
        x, y = self.targets.pixels(positions), self.targets.labels[positions]
        eps = torch.full((len(x), 1, 1, 1), float(ledger.outcomes[e].eps), device=x.device)
        noise = self.targets.noise(seed, positions, torch.zeros_like(positions))
        x_adv = into_ball(attack.norm, x, attack.perturb(self.victim, x, y, eps, noise).detach().float(), eps)
        verdicts = ledger.verdicts(x, x_adv, y, self.batch)
        example = positions.cpu().numpy()
        ledger.note(example * 0 + e, example, verdicts, x_adv)
