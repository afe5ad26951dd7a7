"""Networks whose smallest adversarial distances are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU = torch.device("cpu")


class Plane(nn.Module):
    """Two classes divided by the plane ⟨w, x⟩ = b; the logits may be of any scale."""

    def __init__(self, w: Tensor, b: float, scale: float = 1.0) -> None:
        super().__init__()
        self.w, self.b, self.scale = nn.Parameter(w), b, scale

    def forward(self, x: Tensor) -> Tensor:
        z = self.scale * ((x * self.w).flatten(1).sum(1) - self.b)
        return torch.stack([-z, z], 1)


class Ball(nn.Module):
    """Class 0 within a ball around a center, class 1 outside."""

    def __init__(self, center: Tensor, radius: float) -> None:
        super().__init__()
        self.center, self.radius = nn.Parameter(center), radius

    def forward(self, x: Tensor) -> Tensor:
        z = (x - self.center).flatten(1).norm(dim=1) - self.radius
        return torch.stack([-z, z], 1)


class Linear(nn.Module):
    """Several classes divided by planes."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.w.T


class Masked(nn.Module):
    """Two further classes that never win, by the constants that code uses to leave classes out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return torch.cat([logits, torch.tensor([[-1e4, -1e9]]).to(logits).expand(len(x), 2)], 1)


@dataclass(frozen=True)
class Case:
    """Images with their labels, and their exact distances (N,) by norm."""

    name: str
    network: nn.Module
    x: Tensor
    y: Tensor
    distances: dict[str, Tensor]


def _sparse(w: Tensor, gap: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest L1 and L0 change within the box that raises ⟨w, x⟩ by ``gap`` (N,)."""
    weight = w.flatten().abs()
    room = torch.where(w.flatten() > 0, 1 - x.flatten(1), x.flatten(1))
    l1, l0 = [], []
    for left, free in zip(gap.tolist(), room, strict=True):
        need, spent = left, 0.0
        for i in weight.argsort(descending=True).tolist():
            move = min(float(free[i]), need / float(weight[i]))
            spent, need = spent + move, need - move * float(weight[i])
            if need <= 1e-9:
                break
        gains = (weight * free).sort(descending=True).values.cumsum(0)
        l1.append(spent)
        l0.append(float((gains < left).sum() + 1))
    return torch.tensor(l1), torch.tensor(l0)


def _plane(scale: float = 1.0) -> Case:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(1, 4, 4, generator=generator)
    x = 0.4 + 0.2 * torch.rand(12, 1, 4, 4, generator=generator)
    b = float((x * w).flatten(1).sum(1).max()) + 0.5 * float(w.norm()) * 0.5
    gap = b - (x * w).flatten(1).sum(1)
    l1, l0 = _sparse(w, gap, x)
    distances = {"l2": gap / w.norm(), "linf": gap / w.abs().sum(), "l1": l1, "l0": l0, "l0-pixels": l0}
    return Case(f"plane of scale {scale:g}", Plane(w, b, scale), x, torch.zeros(12, dtype=torch.int64), distances)


def _ball() -> Case:
    """The images lie off the center of a sphere of radius R by o, and the box does not cut it.

    Under L2 the sphere is nearest straight outwards. Under L∞ all |o_i| grow by one t, until Σ (|o_i| + t)² = R²; under
    L1 the largest of them alone. One pixel at its face lies beyond the sphere, so under L0 the distance is 1.
    """
    generator = torch.Generator().manual_seed(1)
    center, radius = torch.full((1, 4, 4), 0.5), 0.4
    offset = torch.randn(8, 1, 4, 4, generator=generator)
    lengths = 0.1 + 0.1 * torch.rand(8, generator=generator)
    offset = offset / offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * lengths.view(-1, 1, 1, 1)
    size = offset.flatten(1).abs().double()
    d, total, square = size.shape[1], size.sum(1), (size**2).sum(1)
    linf = (-total + (total**2 + d * (radius**2 - square)).sqrt()) / d
    l1 = (radius**2 - square + size.amax(1) ** 2).sqrt() - size.amax(1)
    ones = torch.ones(8)
    distances = {"l2": radius - lengths, "linf": linf.float(), "l1": l1.float(), "l0": ones, "l0-pixels": ones}
    return Case("ball", Ball(center, radius), center + offset, torch.zeros(8, dtype=torch.int64), distances)


def _two_pixels() -> Case:
    """One of two pixels is at its face of the box, so only the other can move: 3a + b rises from 3.2 by 0.1."""
    x = torch.tensor([[1.0, 0.2]]).view(1, 1, 1, 2)
    network = Plane(torch.tensor([3.0, 1.0]).view(1, 1, 2), 3.3)
    exact = torch.tensor([0.1])
    distances = {"l2": exact, "linf": exact, "l1": exact, "l0": torch.ones(1), "l0-pixels": torch.ones(1)}
    return Case("two pixels", network, x, torch.zeros(1, dtype=torch.int64), distances)


def _linear() -> Case:
    """Five classes and images near the middle, far from the box: the nearest of the four planes counts."""
    generator = torch.Generator().manual_seed(2)
    w = torch.randn(5, 16, generator=generator)
    x = 0.5 + 0.05 * torch.randn(10, 1, 4, 4, generator=generator)
    network = Linear(w)
    logits = network(x).detach()
    y = logits.argmax(1)
    gap = logits.gather(1, y[:, None]) - logits
    normal = w[None] - w[y][:, None]
    known = {}
    for name, dual in (("l2", normal.norm(dim=2)), ("linf", normal.abs().sum(2))):
        known[name] = (gap / dual).scatter(1, y[:, None], torch.inf).amin(1)
    return Case("five classes", network, x, y, known)


def _masked() -> Case:
    """Classes that are left out change no distance."""
    case = _linear()
    return replace(case, name="two masked classes", network=Masked(case.network))


CASES = [_plane(), _plane(1e4), _ball(), _two_pixels(), _linear(), _masked()]


def targets_of(network: nn.Module, digits: tuple[Tensor, Tensor], n: int) -> Targets:
    """The first n digits that the network has right."""
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:n]
    return Targets(lambda at: x[right][at], y[right], right)


def engine_of(network: nn.Module, x: Tensor, y: Tensor, batch: int = 64) -> Engine:
    """An engine on these images in float32."""
    targets = Targets.of(x, y)
    return Engine(Victim(frozen_copy(network, CPU), CPU, "float32", "plain"), Judge(network, CPU), targets, batch, 999)
