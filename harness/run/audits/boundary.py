"""An attack of the audits that looks for the nearest image that fools, with gradients, where steps of one size fail."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from epsbench.attacks.fmn import FMN
from epsbench.attacks.norms import Norm
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.audits.attacked import Attacked

# A network that was trained under L∞ has thresholds, and steps of one size under L2 jump over what gradients lead to:
# on digits at an L2 ε of 4, PGD left 25 % of the images of such a network and FMN 11 %. Under L∞ steps of one size do.
# Under L0 this attack would not tell: its polish tries changes by their scores, and finds what masked gradients hide.
JUMPED = ("l2",)


def along_boundary(attacked: Attacked, judge: Judge, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
    """Which images (N,) FMN fools within ``eps``, in a ball of one of the norms `JUMPED`."""
    targets = Targets.of(x, y)
    with attacked.uncounted():
        engine = Engine(attacked.victim, judge, targets, attacked.batch)
        (outcome,) = engine.run(FMN(norm=norm), [Fraction(eps)], seed=0)
    return torch.from_numpy(outcome.fooled).to(y.device)
