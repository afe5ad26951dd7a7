"""Networks whose logits tie, because they are rounded or cut off: a tie that the true class loses is a success."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import engine_of
from test_plain import plain_verdicts
from torch import Tensor, nn

from epsbench.attacks import FAB, FABT, PGD, Attack, Square
from epsbench.attacks.apgd_search import APGDSearch
from epsbench.attacks.cw import CW
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.fmn import FMN
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pdpgd import PDPGD
from epsbench.attacks.sigma_zero import SigmaZero

N = 60


class Rounded(nn.Module):
    """Logits of a linear network, rounded to even numbers; the gradient is that of the network without rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 48, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        z = (x - 0.5).flatten(1) @ self.w.T
        return z + ((z / 2).round() * 2 - z).detach() if z.requires_grad else (z / 2).round() * 2


def rounded() -> tuple[nn.Module, Tensor, Tensor]:
    network = Rounded()
    x = torch.rand(N, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return network, x, network(x).argmax(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("early", [True, False])
def test_a_lost_tie_on_the_way_ends_an_image_as_in_the_plain_loop(norm, early):
    network, x, y = rounded()
    ball, eps = NORMS[norm], Fraction(1, 25) if norm == "linf" else Fraction(1, 4)
    attacks: list[Attack] = [Square(steps=200, norm=ball), FAB(steps=10, norm=ball), PGD(steps=10, norm=ball)]
    ties = 0
    for attack in attacks:
        engine = engine_of(network, x, y)
        (outcome,) = engine.run(attack, [eps], seed=0, early_stop=early)
        np.testing.assert_array_equal(outcome.fooled, plain_verdicts(network, attack, float(eps), engine.targets))
        top = network(outcome.images[torch.from_numpy(outcome.fooled)]).topk(2, 1).values
        ties += int((top[:, 0] == top[:, 1]).sum())
    assert ties > 10


class CutOff(nn.Module):
    """Two classes by the mean m of an image: relu(0.3 - m) and relu(m - 0.5). From 0.3 to 0.5 they tie, for class 0."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([0.3 - mean, mean - 0.5], 1).relu()


@pytest.mark.parametrize(
    "attack", [DDN(), FMN(norm=NORMS["linf"]), FMN(norm=NORMS["l1"]), FABT(goal="smallest", norm=NORMS["l2"]),
               APGDSearch(loss=Margin(), norm=NORMS["linf"]), DDN(polish=0)],
    ids=lambda attack: f"{type(attack).__name__.lower()}-{attack.norm.name}-{attack.polish}",
)  # fmt: skip
def test_the_distance_ends_where_the_tie_begins(attack):
    x = 0.55 + 0.05 * torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    gap = (x.flatten(1).mean(1) - 0.5).numpy()
    exact = gap * {"linf": 1, "l2": 4, "l1": 16}[attack.norm.name]
    (outcome,) = engine_of(CutOff(), x, torch.ones(6, dtype=torch.int64)).run(attack, [Fraction(1)], seed=0)
    assert (outcome.distances >= exact * (1 - 1e-5)).all(), outcome.distances / exact
    assert (outcome.distances <= exact * (1 + 1e-4)).all(), outcome.distances / exact


class Middle(nn.Module):
    """Two classes by whether the first pixel is above 1/2, of a steepness."""

    def __init__(self, steepness: float) -> None:
        super().__init__()
        self.steepness = nn.Parameter(torch.tensor(steepness))

    def forward(self, x: Tensor) -> Tensor:
        z = self.steepness * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([-z, z], 1)


AT_THE_BOUNDARY = [
    DDN(), CW(), CW(steps=50, learning_rate=0.01, first_weight=1e-3), PDPGD(), FMN(norm=NORMS["l0"]),
    *(SigmaZero(norm=NORMS[name]) for name in ("l0", "l0-pixels")),
    *(APGDSearch(norm=NORMS[name]) for name in ("linf", "l2")),
    *(DeepFool(norm=NORMS[name]) for name in ("linf", "l2")),
    *(kind(norm=NORMS[name]) for kind in (FMN, lambda norm: FAB(goal="smallest", norm=norm),
                                          lambda norm: FABT(goal="smallest", norm=norm))
      for name in ("linf", "l2", "l1")),
]  # fmt: skip


@pytest.mark.parametrize("steepness", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize(
    "attack",
    AT_THE_BOUNDARY,
    ids=lambda attack: f"{type(attack).__name__.lower()}-{attack.norm.name}-{attack.budget()}",
)
def test_an_image_whose_logits_tie_for_the_true_class_is_left_at_once(attack, steepness):
    """Its distance is 0. A margin of 0 is no reason to stay, and a way of length 0 is none."""
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    x[:, 0, 0, 0] = 0.5
    (outcome,) = engine_of(Middle(steepness), x, torch.zeros(2, dtype=torch.int64)).run(attack, [Fraction(1)], seed=0)
    assert (outcome.distances <= (1e-5 if attack.norm.shrinks else 1)).all(), outcome.distances
