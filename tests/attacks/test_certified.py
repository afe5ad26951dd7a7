"""Models whose robust sets are known: AutoAttack never leaves fewer images than are certified, and finds all it can.

Three kinds: linear classifiers, whose robust set is exact in closed form; networks whose margins are 1-Lipschitz, of
which one is exact as well; and ReLU networks with interval bounds (Gowal et al., 2018).
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from epsbench.attacks import APGD, APGDT, FABT, Attack, AutoAttack, Ensemble, Square
from epsbench.attacks.norms import NORMS
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU = torch.device("cpu")
N, SHAPE, CLASSES = 60, (1, 6, 6), 5
DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}
TIE = 1e-4  # images so near to the edge of their ball that rounding decides are left out


def images() -> Tensor:
    """Images that lie so far inside the box that it cuts no ball."""
    return 0.35 + 0.3 * torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0))


def attacked(network: nn.Module, x: Tensor, attack: Attack, eps: Fraction) -> np.ndarray:
    """Which images the attack leaves; their labels are the network's own classes."""
    network = network.eval().requires_grad_(False)
    y = network(x).argmax(1)
    targets = Targets.of(x, y)
    engine = Engine(Victim(frozen_copy(network, CPU), CPU, "float32", "plain"), Judge(network, CPU), targets, 64)
    (outcome,) = engine.run(attack, [eps], seed=0)
    return ~outcome.fooled


def short(norm: str) -> Ensemble:
    """AutoAttack's parts, shorter: enough for these networks."""
    ball = NORMS[norm]
    parts = (
        APGD(steps=30, norm=ball),
        APGDT(steps=30, norm=ball),
        FABT(steps=15, norm=ball),
        Square(steps=60, norm=ball),
    )
    return Ensemble(parts=parts, norm=ball)


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))


def linear_margins(network: nn.Module, x: Tensor, norm: str) -> Tensor:
    """The distance of each image to the nearest boundary: min over k of (z_y − z_k) / ‖w_y − w_k‖ of the dual norm."""
    with torch.no_grad():
        z = network(x)
    weight, y = network[-1].weight.detach(), z.argmax(1)
    length = torch.linalg.vector_norm(weight[y][:, None] - weight[None], ord=DUAL[norm], dim=2)
    gap = z.gather(1, y[:, None]) - z
    return (gap / length).scatter(1, y[:, None], float("inf")).amin(1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_linear_model_is_left_exactly_its_robust_images(norm):
    network, x = linear(), images()[:24]
    distance = linear_margins(network, x, norm)
    radius = float(distance.median())  # half of the images are robust
    settled = ((distance - radius).abs() > 1e-3 * radius).numpy()
    left = attacked(network, x, AutoAttack(norm=NORMS[norm]), Fraction(radius).limit_denominator(10**6))
    np.testing.assert_array_equal(left[settled], (distance > radius).numpy()[settled])


class Sorted(nn.Module):
    """GroupSort in pairs (Anil et al., 2019): it keeps the length of gradients, and is 1-Lipschitz."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, 2).sort(2).values.flatten(1)


def orthogonal(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight)
    return layer


def lipschitz() -> nn.Module:
    """A network that is 1-Lipschitz in L2: orthogonal layers with sorted pairs between them."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Flatten(), orthogonal(36, 36), Sorted(), orthogonal(36, 36), Sorted(), orthogonal(36, CLASSES)
    )


class Rotated(nn.Module):
    """z_k of rotated and shifted pixels: isometries before a linear layer leave its robust set as it is, exactly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second, self.last = orthogonal(36, 36), orthogonal(36, 36), nn.Linear(36, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x.flatten(1))))

    def as_linear(self) -> nn.Module:
        one = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
        with torch.no_grad():
            one[1].weight.copy_(self.last.weight @ self.second.weight @ self.first.weight)
            one[1].bias.copy_(self(torch.zeros(1, *SHAPE))[0])
        return one


def test_isometries_leave_the_exact_robust_set():
    network, x = Rotated(), images()
    distance = linear_margins(network.as_linear(), x, "l2")
    radius = float(distance.median())
    settled = ((distance - radius).abs() > 1e-3 * radius).numpy()
    left = attacked(network, x, short("l2"), Fraction(radius).limit_denominator(10**6))
    np.testing.assert_array_equal(left[settled], (distance > radius).numpy()[settled])


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_lipschitz_network_keeps_what_is_certified(share):
    network, x = lipschitz(), images()
    with torch.no_grad():
        top = network(x).topk(2, dim=1).values
    certified_radius = (top[:, 0] - top[:, 1]) / 2**0.5  # a difference of two logits is √2-Lipschitz
    radius = float(certified_radius.quantile(share))
    left = attacked(network, x, short("l2"), Fraction(radius).limit_denominator(10**6))
    certified = (certified_radius > radius + TIE).numpy()
    assert 0 < certified.sum() < N
    assert left[certified].all()
    assert not left.all()  # the bound is not so loose that nothing was attacked


def relu(seed: int, *widths: int) -> nn.Sequential:
    """A random network whose classes meet at grey images."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        network[1].bias.copy_(-0.5 * network[1].weight.sum(1))
        grey = network(torch.full((1, widths[0], 1, 1), 0.5))[0]
        network[-1].bias.sub_(grey)
    return network


def interval_certified(network: nn.Sequential, x: Tensor, eps: float) -> np.ndarray:
    """Which images interval bounds prove robust under L∞: the box around each is pushed through the layers."""
    with torch.no_grad():
        y = network(x).argmax(1)
        low, high = (x - eps).clamp(0, 1).flatten(1), (x + eps).clamp(0, 1).flatten(1)
        *hidden, last = list(network)[1:]
        for layer in hidden:
            if isinstance(layer, nn.Linear):
                middle, radius = layer((low + high) / 2), (high - low) / 2 @ layer.weight.abs().T
                low, high = middle - radius, middle + radius
            else:
                low, high = layer(low), layer(high)
        rows = last.weight[y][:, None] - last.weight[None]  # of z_y − z_k
        bias = last.bias[y][:, None] - last.bias[None]
        middle = (rows * ((low + high) / 2)[:, None]).sum(2) + bias
        worst = middle - (rows.abs() * ((high - low) / 2)[:, None]).sum(2)
        return (worst.scatter(1, y[:, None], float("inf")).amin(1) > 1e-5).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_a_relu_network_keeps_what_interval_bounds_certify(seed):
    network, x = relu(seed, 36, 16, 12, CLASSES), images()
    counts = {}
    for eps in (Fraction(1, 1000), Fraction(1, 100), Fraction(3, 20)):
        certified = interval_certified(network, x, float(eps))
        left = attacked(network, x, short("linf"), eps)
        assert left[certified].all()
        counts[eps] = int(certified.sum()), int(left.sum())
    assert counts[Fraction(1, 1000)][0] > 0
    assert counts[Fraction(3, 20)][1] < N


def test_a_small_relu_network_is_left_what_a_search_of_all_its_pieces_leaves():
    """Two pixels: a grid so fine that no piece of the network is missed shows each ball whole."""
    network = relu(5, 2, 8, 3).requires_grad_(False)
    x = 0.2 + 0.6 * torch.rand(N, 1, 1, 2, generator=torch.Generator().manual_seed(3))
    eps, steps = 0.15, 201
    line = torch.linspace(-eps, eps, steps)
    moves = torch.cartesian_prod(line, line).view(-1, 1, 1, 2)
    y = network(x).argmax(1)
    worst = torch.stack([_least_margin(network(at + moves), label) for at, label in zip(x, y, strict=True)])
    left = attacked(network, x, short("linf"), Fraction(3, 20))
    settled = (worst.abs() > 0.01 * worst.abs().max()).numpy()
    assert 0 < (worst > 0).sum() < N
    np.testing.assert_array_equal(left[settled], (worst > 0).numpy()[settled])


def _least_margin(logits: Tensor, label: Tensor) -> Tensor:
    others = logits.clone()
    others[:, label] = float("-inf")
    return (logits[:, label] - others.amax(1)).min()
