"""A user's own attack, tried before anything is trained: does it return what the engine needs of it?"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from epsbench.attacks.base import Attack
from epsbench.harness.errors import FAILURES
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.names.loading import is_users
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.attack import MOST
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.machine.memory import is_out_of_memory
from epsbench.harness.run.training.trial_text import count_of

SECONDS = 3.0  # for the trial of one attack; what a longer attack returns is checked when it returns


@dataclass(frozen=True)
class AttackUse:
    """What an attack is going to be used on."""

    network: nn.Module
    """A classifier, not yet trained where it will be; left as it is."""

    data: Data
    """Its data."""

    eps: Fraction
    """The radius, in pixel units."""

    batch: int
    """How many images are attacked at a time."""

    seed: int = 0
    """The seed of the attack's noise."""


def users_attacks(attack: Attack, classes: int) -> list[Attack]:
    """The attack, or of an ensemble the members, that are not epsbench's own."""
    return [each for each in ([member for _, member in attack.members(classes)] or [attack]) if is_users(each)]


def attack_problem(attack: Attack, use: AttackUse) -> str | None:
    """What is wrong with what an attack returns, on two images, on one, and on a batch; None where nothing is.

    Every image counts as classified correctly, as it is when the attack is measured. An attack on a model without a
    gradient is not tried: its cells tell.
    """
    size = min(use.batch, len(use.data.test))
    x = use.data.test.pixels(torch.arange(size, device=use.data.test.device))
    judge = Judge(use.network, x.device)
    victim = _Hurried(frozen_copy(use.network, x.device), x.device, "float32", "plain")
    with isolated(use.seed):
        labels = judge.logits(x, size).argmax(1)
        if not _differentiable(victim, x[:1], labels[:1]):
            return None
    victim.deadline = time.monotonic() + SECONDS
    for images in dict.fromkeys((min(2, size), 1, size)):
        try:
            with isolated(use.seed):
                problem = _returned(attack, replace(use, batch=images), judge, victim, (x[:images], labels[:images]))
        except _TimeIsUp:
            return None
        # The attack is the user's code: it may raise anything, or even try to exit.
        except FAILURES as error:
            problem = None if is_out_of_memory(error) else _raised(error)
        if problem:
            return f"for {count_of(images)}, {problem}"
    return None


class _TimeIsUp(BaseException):
    """Ends a trial; no attack catches it by mistake."""


@dataclass
class _Hurried(Victim):
    """A victim that answers until its deadline."""

    deadline: float = math.inf

    def bare_logits(self, x: Tensor) -> Tensor:
        if time.monotonic() > self.deadline:
            raise _TimeIsUp
        return super().bare_logits(x)


def _differentiable(victim: Victim, x: Tensor, y: Tensor) -> bool:
    try:
        victim.slope(x, y)
    except RuntimeError:
        return False
    return True


def _returned(
    attack: Attack, use: AttackUse, judge: Judge, victim: Victim, images: tuple[Tensor, Tensor]
) -> str | None:
    """What is wrong with the images that come back; raises what the attack raises."""
    x, y = images
    targets = Targets.of(x, y)
    # Without early stopping every step is taken: an untrained network is fooled at once.
    for outcome in Engine(victim, judge, targets, len(x)).run(attack, [use.eps], seed=use.seed, early_stop=False):
        returned = outcome.returned
        if returned.no_pixels > MOST * returned.images:
            return (
                f"{returned.no_pixels} of {returned.images} images that it returns have values far outside [0, 1]; "
                "return pixels in [0, 1], not in [0, 255] and not normalised"
            )
    return None


def _raised(error: BaseException) -> str:
    """The message of an error: a refusal of epsbench's own, or what the attack's code raised and where."""
    if isinstance(error, ValueError) and str(error).startswith(("attack ", "the attack ")):
        return str(error)
    return f"it raises {what_was_raised(error)}"
