"""What an attack costs, by steps, batch size, precision and number of ε.

Collected by ``make bench`` with a timer that synchronises the device; in an ordinary test run each case runs once.
The network is as it is after initialisation and its labels are its own: nothing retires, so every gradient is counted.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from epsbench.attacks.base import GradientAttack
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.pgd import PGD
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.speed.prepare import prepare
from epsbench.models.catalogue import SmallCNN
from tests.benchmarks.networks import precisions

IMAGES = 128
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def targets() -> tuple[torch.nn.Module, Targets]:
    torch.manual_seed(0)
    model = SmallCNN().build(DATASETS["mnist"]).to(DEVICE).eval()
    x = torch.rand(IMAGES, 1, 28, 28, device=DEVICE)
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, Targets(lambda at: x[at], y, torch.arange(IMAGES, device=DEVICE))


def bench(
    benchmark, targets, attack: GradientAttack, *, batch: int = 64, precision: str = "float32", eps: int = 1
) -> None:
    model, rows = targets
    victim = prepare(model, DEVICE, precision, rows.pixels(rows.index[:16]), rows.labels[:16])
    judge = Judge(model, DEVICE)
    radii = [Fraction(k, 800) for k in range(1, eps + 1)]

    def run() -> int:
        victim.backwards = 0
        list(Engine(victim, judge, rows, batch).run(attack, radii, seed=0, early_stop=False))
        return victim.backwards

    gradients = benchmark(run)
    assert gradients == IMAGES + (attack.steps - 1) * IMAGES * eps
    benchmark.extra_info["gradients"] = gradients


@pytest.mark.parametrize(
    "attack", [FGSM(), PGD(steps=10), PGD(steps=40), PGD(steps=100)], ids=["fgsm", "pgd10", "pgd40", "pgd100"]
)
def test_by_steps(benchmark, targets, attack):
    bench(benchmark, targets, attack)


@pytest.mark.parametrize("batch", [16, 64, 128])
def test_by_batch_size(benchmark, targets, batch):
    bench(benchmark, targets, PGD(steps=10), batch=batch)


@pytest.mark.parametrize("precision", precisions(DEVICE))
def test_by_precision(benchmark, targets, precision):
    bench(benchmark, targets, PGD(steps=10), precision=precision)


@pytest.mark.parametrize("eps", [1, 4, 8])
@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=10)], ids=["fgsm", "pgd10"])
def test_by_number_of_eps(benchmark, targets, attack, eps):
    bench(benchmark, targets, attack, eps=eps)
