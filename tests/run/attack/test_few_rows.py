"""What a network answers about a row does not depend, to the bit, on how many rows there are beside it."""

from __future__ import annotations

import pytest
import torch
from engines import CPU
from torch import nn

from epsbench.attacks.losses import CROSS_ENTROPY
from epsbench.harness.run.attack.few_rows import FEWEST_OF_PRODUCT, AlikeLinear, product_alike
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.speed.program.program import ForwardProgram, Program

COUNTS = range(1, 2 * FEWEST_OF_PRODUCT)


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(64, 3, 16, 16, generator=generator), torch.randint(10, (64,), generator=generator)


@pytest.fixture(scope="module")
def wide():
    """Linear layers with so many inputs that MKL adds the products of few rows up in another order."""
    torch.manual_seed(0)
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(256, 512), nn.ReLU())  # of each channel, (N, 3, 512)
    return nn.Sequential(tokens, nn.Flatten(), nn.Linear(1536, 256), nn.ReLU(), nn.Linear(256, 10))


def test_verdicts(wide, rows):
    x, _ = rows
    judge = Judge(wide, CPU)
    every = judge.logits(x, 64)
    torch.testing.assert_close(every, wide(x).detach())
    for n in COUNTS:
        assert torch.equal(judge.logits(x[:n], 64), every[:n]), n
        assert torch.equal(judge.logits(x, n), every), n


@pytest.mark.parametrize("traced", [False, True])
def test_scores_and_gradients(wide, rows, traced):
    x, y = rows
    victim = Victim(frozen_copy(wide, CPU), CPU, "float32", "plain")
    if traced:
        victim.programs[CROSS_ENTROPY] = Program(victim.bare_logits, x[:5], y[:5])
        victim.forward_program = ForwardProgram(victim.exact_logits, x[:5])
    scores, (gradients, logits) = victim.scores(x), victim.gradient(x, y)
    few_scores = [victim.scores(x[:n]) for n in COUNTS]
    few = [victim.gradient(x[:n], y[:n]) for n in COUNTS]
    for n, seen, (gradient, again) in zip(COUNTS, few_scores, few, strict=True):
        assert torch.equal(seen, scores[:n]), n
        assert torch.equal(gradient, gradients[:n]), n
        assert torch.equal(again, logits[:n]), n


def test_the_callers_network_keeps_its_layers(wide):
    judge = Judge(wide, CPU)
    assert sum(type(module) is AlikeLinear for module in judge.network.modules()) == 3
    assert sum(type(module) is nn.Linear for module in wide.modules()) == 3


def test_a_product_of_few_rows_is_computed_with_more_and_one_of_none_with_none():
    seen = []

    def product(x):
        seen.append(len(x))
        return 2 * x

    for n in (0, 1, 5, FEWEST_OF_PRODUCT - 1, FEWEST_OF_PRODUCT, 40):
        x = torch.rand(n, 3)
        assert torch.equal(product_alike(product, x), 2 * x)
    assert product_alike(product, torch.rand(5, 3).double()).dtype == torch.float64
    assert seen == [0, 16, 20, 30, 16, 40, 5]


def test_a_linear_layer_of_one_row_or_of_none(wide):
    layer = nn.Linear(4, 2)
    layer.__class__ = AlikeLinear
    one = torch.rand(4)
    torch.testing.assert_close(layer(one), layer(one[None])[0])
    assert layer(torch.rand(0, 4)).shape == (0, 2)
    assert layer(torch.rand(0, 3, 4)).shape == (0, 3, 2)
    assert layer(torch.rand(2, 3, 4)).shape == (2, 3, 2)
