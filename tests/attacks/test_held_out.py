"""A network of four classes on colour images at the faces of the box, whose distances solvers find: never below."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import Linear, engine_of
from solvers import fewest_changes, least_change
from torch import Tensor

from epsbench.attacks import FABT
from epsbench.attacks.apgd_search import APGDSearch, APGDTSearch
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.fmn import FMN
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pdpgd import PDPGD
from epsbench.attacks.sigma_zero import SigmaZero


def templates() -> tuple[Linear, Tensor, Tensor]:
    """A network that compares images with four templates, noisy templates, a third of whose pixels are at faces."""
    generator = torch.Generator().manual_seed(21)
    template = (torch.rand(4, 48, generator=generator) > 0.5).float()
    network = Linear(template - 0.5 + 0.1 * torch.randn(4, 48, generator=generator))
    x = template.repeat(2, 1) * 0.8 + 0.1 + 0.3 * torch.randn(8, 48, generator=generator)
    x = x.clamp(0, 1).view(8, 3, 4, 4)
    return network, x, network(x).argmax(1)


def exact_distances(network: Linear, x: Tensor, y: Tensor, norm: str) -> np.ndarray:
    """The least of the distances to the three other classes, (n,)."""
    w = network.w.detach().double().numpy()
    exact = []
    for image, label in zip(x.double().numpy(), y.tolist(), strict=True):
        flat = image.ravel()
        normals = np.delete(w, label, 0) - w[label]
        gaps = -normals @ (flat - 0.5)
        if norm.startswith("l0"):
            known = [fewest_changes(image, n.reshape(image.shape), g, norm == "l0-pixels")
                     for n, g in zip(normals, gaps, strict=True)]  # fmt: skip
        else:
            known = [least_change(norm, flat, n[None], g[None]) for n, g in zip(normals, gaps, strict=True)]
        exact.append(float(min(known)))
    return np.array(exact)


LOOKS_AT_ALL_CLASSES = [
    *(DeepFool(norm=NORMS[norm]) for norm in ("linf", "l2")),
    *(FABT(goal="smallest", steps=20, norm=NORMS[norm]) for norm in ("linf", "l2", "l1")),
    *(APGDTSearch(searches=10, norm=NORMS[norm]) for norm in ("linf", "l2")),
]
FOLLOWS_ONE = [
    DDN(), PDPGD(steps=100), APGDSearch(searches=10),
    *(FMN(norm=NORMS[norm]) for norm in ("linf", "l2", "l1")),
]  # fmt: skip


@pytest.mark.parametrize(
    "attack", [*LOOKS_AT_ALL_CLASSES, *FOLLOWS_ONE],
    ids=lambda attack: f"{type(attack).__name__.lower()}-{attack.norm.name}",
)  # fmt: skip
def test_the_distance_is_never_below_and_is_exact_where_all_classes_are_looked_at(attack):
    network, x, y = templates()
    exact = exact_distances(network, x, y, attack.norm.name)
    ratio = next(engine_of(network, x, y).run(attack, [Fraction(1)], seed=0)).distances / exact
    assert (ratio >= 1 - 1e-6).all(), ratio
    assert (ratio <= (1.2 if attack in FOLLOWS_ONE else 1.0002)).all(), ratio
    assert np.median(ratio) <= 1.01, ratio


@pytest.mark.parametrize("norm", ["l0", "l0-pixels"])
def test_sigma_zero_changes_as_few_numbers_or_pixels_as_it_must(norm):
    network, x, y = templates()
    exact = exact_distances(network, x, y, norm)
    distances = next(
        engine_of(network, x, y).run(SigmaZero(steps=300, norm=NORMS[norm]), [Fraction(9)], seed=0)
    ).distances
    assert (distances >= exact).all(), (distances, exact)
    assert (distances <= exact + 1).all(), (distances, exact)
    assert (distances == exact).sum() >= 6, (distances, exact)
