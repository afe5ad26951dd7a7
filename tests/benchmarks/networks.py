"""What the benchmarks attack: networks with images they get right, and the ε that suit them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.precision import has_units
from epsbench.harness.run.training.trained import trained
from epsbench.models.catalogue import ResNet18


def precisions(device: str | torch.device) -> tuple[str, ...]:
    """Those that are compared: bf16 only where the device has units for it."""
    return tuple(each for each in ("float32", "bf16") if has_units(torch.device(device), each))


@dataclass
class Bench:
    """A model with images it gets right, shape (N, C, H, W) in [0, 1], and the ε that suit it, in pixel units."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    eps: list[Fraction]


@dataclass(frozen=True)
class Chosen:
    """Which networks: those of a suite under these defenses, or an untrained ResNet-18 of a width. How many ε, up to
    ``largest``, else the suite's largest.
    """

    suite: str
    defenses: tuple[str, ...]
    weights: Path
    images: int
    eps: int
    largest: Fraction | None = None
    resnet: int | None = None

    def build(self, device: torch.device) -> list[Bench]:
        """The networks, trained here where ``weights`` lacks them."""
        if self.resnet:
            return [_untrained(device, self.images, self.resnet, self.eps)]
        return _trained(self, device)


def _trained(chosen: Chosen, device: torch.device) -> list[Bench]:
    """A suite's first network of each defense, at ε up to its largest."""
    suite = load_suite(chosen.suite)
    context = Context(Path("results") / suite.name, chosen.weights, device, suite.name, suite.base, boards=False)
    cells: dict[str, RobustnessCell] = {}
    largest = Fraction(0)
    for job in plan(suite, context.results).jobs:
        for cell in job.cells:
            if isinstance(cell, RobustnessCell) and cell.norm == "linf" and cell.subset == "all":
                cells.setdefault(cell.defense.name, cell)
                largest = max(largest, cell.eps)
    benches = []
    for defense in chosen.defenses:
        if defense not in cells:
            raise SystemExit(f"--defenses: {suite.name} trains no {defense!r} on whole data; it has {', '.join(cells)}")
        cell = cells[defense]
        data = context.data(cell.data, cell.limit)
        model, _ = trained(cell, data, context)
        x, y = data.test.pixels(slice(0, 4 * chosen.images)), data.test.labels[: 4 * chosen.images]
        with torch.no_grad():
            right = (_logits(model, x).argmax(1) == y).nonzero().flatten()[: chosen.images]
        eps = [(chosen.largest or largest) * k / chosen.eps for k in range(1, chosen.eps + 1)]
        benches.append(Bench(f"{suite.name} {defense}", model.eval(), x[right], y[right], eps))
    return benches


def _untrained(device: torch.device, images: int, width: int, count: int) -> Bench:
    """An untrained ResNet-18 on 32×32 images, labelled as it sees them: at a tiny ε few fall, as on a robust model."""
    torch.manual_seed(0)
    model = ResNet18(width=width).build(DATASETS["cifar10"]).to(device).eval()
    x = torch.rand(images, 3, 32, 32, device=device)
    with torch.no_grad():
        y = _logits(model, x).argmax(1)
    return Bench(f"resnet18, width {width}", model, x, y, [Fraction(k, 8160) for k in range(1, count + 1)])


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part) for part in x.split(256)])
