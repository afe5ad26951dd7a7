"""Models that answer at random: the victim averages several passes, and the judge takes a majority.

Every pass has draws of its own, which repeat: torch's, NumPy's and Python's global generators are seeded before it and
put back after the call. A judged image is alone in its batch, so its votes depend on the image, its place in the test
split and the run's seed, and on no other image. The victim computes whole batches, whose images share one sequence of
draws: its gradients repeat where the batches do. What a model draws from a generator of its own is out of reach.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from epsbench.attacks.losses import Loss
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.victim import Response, Victim
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.noise import stream_key

_T = TypeVar("_T")
# They keep the sequences apart: the attack must not know the draws that decide.
_VICTIM, _JUDGE, _GRADIENT = 1, 2, 3


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Put the global generators of torch, NumPy and Python back as they were on entry."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


def seed_generators(key: int, device: torch.device) -> None:
    """Seed the global generators of torch, on a CPU and on ``device``, of NumPy and of Python with a 64-bit key."""
    # `torch.manual_seed` formats the stack for each kind of device that is not in use: 2 ms a call.
    torch.default_generator.manual_seed(key & (2**63 - 1))
    if device.type == "cuda":
        torch.cuda.manual_seed(key & (2**63 - 1))
    np.random.seed(key & (2**32 - 1))
    random.seed(key)


class VotingJudge(Judge):
    """A judge of a model that is random: of ``votes`` passes, the class that most of them give. ``seed`` keys them.

    An image is alone in its batch and has the same draws whenever it is judged, clean or moved. So its votes do not
    depend on other images, and asking again does not give it another chance.
    """

    def __init__(self, model: nn.Module, device: torch.device, votes: int, seed: int) -> None:
        super().__init__(model, device)
        self.votes, self._seed = votes, seed

    random = True

    def logits(self, x: Tensor, batch: int, examples: Tensor | None = None) -> Tensor:
        return self.passes(x, examples).mean(1)

    def verdict(self, x: Tensor, y: Tensor, batch: int, examples: Tensor | None = None) -> tuple[Tensor, Tensor]:
        passes = self.passes(x, examples)
        return passes.mean(1), majority(passes, y)

    def another_verdict(self, x: Tensor, y: Tensor) -> Tensor:
        """The classes (N,) of a further vote, with draws of its own."""
        return majority(self.passes(x, further=1), y)

    def function(self, x: Tensor) -> Tensor:
        """The mean logits of as many passes over a whole batch, with the same draws at each call."""
        keys = stream_key(self._seed, torch.arange(self.votes), torch.full((self.votes,), _GRADIENT)).tolist()
        with generators_kept(self.device):
            return torch.stack([self._seeded(key, x) for key in keys]).mean(0)

    def _seeded(self, key: int, x: Tensor) -> Tensor:
        seed_generators(key, self.device)
        logits: Tensor = self.network(x)
        return logits.float()

    @torch.no_grad()
    def passes(self, x: Tensor, examples: Tensor | None = None, further: int = 0) -> Tensor:
        """Logits (N, votes, classes) of pixels (N, C, H, W), pass by pass; ``further`` chooses other draws."""
        self.forwards += len(x) * self.votes
        place = torch.arange(len(x)) if examples is None else examples.cpu()
        votes = torch.arange(self.votes).repeat(len(x))
        keys = stream_key(self._seed + further, place.repeat_interleave(self.votes), votes * 4 + _JUDGE).tolist()

        def one(row: slice) -> Tensor:
            at = row.start // self.votes
            return self._seeded(keys[row.start], x[at : at + 1])

        with generators_kept(self.device), torch.autocast(self.device.type, enabled=False):
            return in_chunks(one, len(keys), 1).view(len(x), self.votes, -1) if len(x) else self._none(x)

    def _none(self, x: Tensor) -> Tensor:
        """What no image at all gives."""
        return self.network(x).float()[:, None].expand(-1, self.votes, -1)


def majority(passes: Tensor, y: Tensor) -> Tensor:
    """The class (N,) that most passes give, of logits (N, votes, classes). A tie with the label ``y`` (N,) is lost."""
    n, _, classes = passes.shape
    counts = passes.new_zeros(n, classes).scatter_add_(1, passes.argmax(2), passes.new_ones(passes.shape[:2]))
    return counts.scatter_add_(1, y[:, None], counts.new_full((n, 1), -0.5)).argmax(1)


@dataclass
class RandomVictim(Victim):
    """A victim that is random. Each answer is the mean over ``samples`` passes of whole batches."""

    samples: int = 1
    """The passes of an answer."""

    seed: int = 0
    """Keys the draws, together with the number of answers since `begin` and of the pass."""

    answers: int = 0
    """How many answers there were since `begin`."""

    random = True

    @property
    def passes(self) -> int:
        return self.samples

    def begin(self, seed: int) -> None:
        self.seed, self.answers = seed, 0

    def respond(self, x: Tensor, loss: Loss, inputs: tuple[Tensor, ...], gradient: bool) -> Response:
        self.forwards += len(x) * self.samples
        if gradient:
            self.backwards += len(x) * self.samples
            return self._respond(x, loss, inputs)
        bare = super().bare_logits
        with torch.no_grad():
            logits = self._each(lambda: bare(x))
        losses = torch.stack([loss(each, *inputs) for each in logits])
        return Response(None, torch.stack(logits).mean(0), losses.mean(0))

    def look(self, x: Tensor, loss: Loss, inputs: tuple[Tensor, ...]) -> Response:
        return self.respond(x, loss, inputs, gradient=False)

    def bare_query(self, x: Tensor, loss: Loss, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        answer = self._respond(x, loss, inputs)
        assert answer.gradient is not None
        return answer.gradient, answer.logits

    def bare_logits(self, x: Tensor) -> Tensor:
        """The mean of the passes' logits; differentiable, as a loop of another library needs it."""
        bare = super().bare_logits
        return torch.stack(self._each(lambda: bare(x))).mean(0)

    def _respond(self, x: Tensor, loss: Loss, inputs: tuple[Tensor, ...]) -> Response:
        """Pass by pass, so that no more than one graph is in memory: the mean of gradients, logits and losses."""
        bare = super().bare_logits
        passes = self._each(lambda: loss_gradient(bare, x, loss, inputs))
        gradient, logits = (torch.stack(each).mean(0) for each in zip(*passes, strict=True))
        losses = torch.stack([loss(each, *inputs) for _, each in passes])
        return Response(gradient, logits, losses.mean(0))

    def _each(self, ask: Callable[[], _T]) -> list[_T]:
        """What each pass gives, with draws of its own."""
        counts = torch.arange(self.samples) * 4 + _VICTIM
        keys = stream_key(self.seed, torch.full_like(counts, self.answers), counts).tolist()
        self.answers += 1
        answers = []
        with generators_kept(self.device):
            for key in keys:
                seed_generators(key, self.device)
                answers.append(ask())
        return answers
