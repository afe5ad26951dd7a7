"""The binarisation test: examples exist by construction, honest models show them, masked gradients hide them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from bed import chosen
from honest_models import MORE_HONEST
from torch import nn
from tricks import TRICKS
from zoo import HONEST, codes, digits, measure

from epsbench.attacks import APGD, APGDT, FAB, FABT, FGSM, PGD, AutoAttack, Noise, Square
from epsbench.attacks.ddn import DDN
from epsbench.attacks.fmn import FMN
from epsbench.attacks.losses import DLR, LogitDifference, Margin
from epsbench.attacks.norms import NORMS
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.audits.binarisation import (
    INNER,
    WITHIN,
    Constructed,
    adapted,
    binarisation,
    construct,
    readout,
)

CODE = "attack-misses-constructed-example"
SOME_HONEST = {"linear", "mlp, tanh", "smallcnn", "robust, linear"}
MASKED = ("flipped gradient", "zeroed gradient", "scrambled gradient", "grey levels")


def targets(n: int = 48) -> Targets:
    test = digits().test
    x, y = test.pixels(slice(0, n)), test.labels[:n]
    return Targets(lambda at: x[at], y, torch.arange(n))


def frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.7), ("l1", 3.0)])
def test_an_example_exists_in_every_ball(norm, eps):
    among, at, ball = targets(), torch.arange(32), NORMS[norm]
    network = frozen(HONEST["mlp, tanh"]())
    made, keep = construct(network, readout(network, among.pixels(at)), among, at, ball, eps)
    noise, radius = among.noise(0, at, at * 0), torch.full((32, 1, 1, 1), eps)
    x = among.pixels(at)
    example = ball.into_ball(x, x + radius * ball.direction(noise.normal(*x.shape[1:])), radius)
    assert bool(made.finds(example[keep], ball, eps).all())
    assert not bool(made.finds(made.x, ball, eps).any())  # the image itself is none
    torch.testing.assert_close(made.logits(made.x).diff(dim=1).flatten(), torch.full((len(keep),), -2.0), atol=1e-3,
                               rtol=1e-3)  # fmt: skip
    for _ in range(INNER):
        near = ball.into_ball(x, x + ball.start(noise, x, WITHIN * radius), WITHIN * radius)
        assert not bool(made.finds(near[keep], ball, eps).any())


@pytest.mark.parametrize(("beyond", "counted"), [(5e-7, True), (1e-5, False)])
def test_an_image_is_in_a_large_ball_where_it_is_outside_by_rounding_alone(beyond, counted):
    """As for the attack itself: sums of many changes are rounded, and the more the larger they are."""
    network, x = frozen(nn.Sequential(nn.Flatten(), nn.Linear(128, 2))), torch.zeros(1, 2, 8, 8)
    made = Constructed(network, network[1], x, torch.ones(1, 128), torch.zeros(1))
    at_the_surface = x + 100 * (1 + beyond) / 128
    assert made.finds(at_the_surface, NORMS["l1"], 100.0).tolist() == [counted]


@pytest.mark.parametrize("name", chosen(HONEST | MORE_HONEST, SOME_HONEST))
@pytest.mark.parametrize(
    ("attack", "eps"),
    [(PGD(), 0.1), (APGD(steps=20), 0.05), (FABT(), 0.1), (AutoAttack(), 0.1), (FAB(steps=20), 0.05),
     (APGDT(steps=30), 0.3), (DDN(norm=NORMS["l2"], steps=40), 0.7)],
)  # fmt: skip
def test_an_honest_model_is_not_named(name, attack, eps):
    evidence: dict[str, object] = {}
    network = frozen((HONEST | MORE_HONEST)[name]())
    assert list(binarisation(network, attack, targets(), eps, evidence)) == []
    if "skipped" not in evidence:
        assert evidence["found"] > 0.6 * evidence["images"]


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("attack", [PGD(steps=20), APGD(steps=20)])
def test_masked_gradients_are_named(honest, name, attack):
    evidence: dict[str, object] = {}
    network = frozen(TRICKS[name][0](honest))
    (missed,) = binarisation(network, attack, targets(), 0.1, evidence) or [None]
    assert missed.code == CODE
    assert missed.evidence["found"] < 0.2 * missed.evidence["images"]


@dataclass(frozen=True, kw_only=True)
class Descends(PGD):
    """Follows the gradient downhill: a mistake of the attack, not of the model."""

    def update(self, x_adv, gradient, eps, step):
        return super().update(x_adv, -gradient, eps, step)


@pytest.mark.parametrize("attack", [Descends(steps=10), PGD(steps=12, relative_step_size=0.03)])
def test_a_broken_attack_on_an_honest_model_is_named(attack):
    evidence: dict[str, object] = {}
    missed = list(binarisation(frozen(HONEST["smallcnn"]()), attack, targets(), 0.1, evidence))
    assert [each.code for each in missed] == [CODE]
    assert evidence["found_by_apgd"] > 0.6 * evidence["images"]


def test_a_cell_has_the_finding_and_the_counts(honest, tmp_path):
    attacks = ['"pgd"', '"noise"', '{ name = "square", steps = 30 }', '"fgsm"']
    records = measure(TRICKS["flipped gradient"][0](honest).eval(), tmp_path, attacks, [0.1])
    by_attack = {record.cell["attack"]["name"]: record for record in records}
    assert CODE in codes([by_attack["pgd"]])
    assert by_attack["pgd"].evaluation["constructed_examples"]["found"] == 0
    assert "no gradient" in by_attack["square"].evaluation["constructed_examples"]["skipped"]
    assert "fewer than 10" in by_attack["fgsm"].evaluation["constructed_examples"]["skipped"]
    assert CODE not in codes([by_attack[name] for name in ("noise", "square", "fgsm")])


class TwoHeads(nn.Module):
    """Its logits are a sum of two layers' outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x.flatten(1)) + self.second(x.flatten(1))


def test_what_cannot_be_tested_says_why():
    reasons = {}
    for name, network, attack, count in (
        ("layer", TwoHeads(), PGD(), 48), ("few", HONEST["linear"](), PGD(), 9),
        ("steps", HONEST["linear"](), FGSM(), 48),
        ("scores", HONEST["linear"](), Square(), 48), ("nothing", HONEST["linear"](), Noise(), 48),
    ):  # fmt: skip
        evidence: dict[str, str] = {}
        assert list(binarisation(frozen(network), attack, targets(count), 0.1, evidence)) == []
        reasons[name] = evidence["skipped"]
    evidence = {}
    sparse = FMN(norm=NORMS["l0"], steps=20)
    assert list(binarisation(frozen(HONEST["linear"]()), sparse, targets(), 3.0, evidence)) == []
    assert "l0 counts" in evidence["skipped"]
    assert "one linear layer" in reasons["layer"]
    assert "fewer than 16 images" in reasons["few"]
    assert "fewer than 10 answers" in reasons["steps"]
    assert reasons["scores"] == reasons["nothing"]


def test_an_attack_is_adapted_to_two_classes():
    assert adapted(APGD(loss=DLR()))[0].loss == Margin()
    assert adapted(APGDT())[0].loss == LogitDifference()
    assert adapted(PGD(target=7))[0].target == 1
    assert [type(part) for part in adapted(AutoAttack())] == [APGD, APGD, FABT]
