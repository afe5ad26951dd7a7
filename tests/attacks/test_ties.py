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
from epsbench.attacks.ddn import DDN
from epsbench.attacks.fmn import FMN
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import NORMS

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
