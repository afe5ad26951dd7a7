"""Attacks of other libraries by their names: as strong as the library itself, counted, judged, seeded and put back."""

from __future__ import annotations

import importlib
import random
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from epsbench.attacks.adapters.base import LibraryAttack
from epsbench.attacks.pgd import PGD
from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.registry import make, name_with_parameters, versions
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU, HERE = torch.device("cpu"), Path()
# Of 40 steps of ε / 10 from the image itself, in every library's own words.
SAME = {
    "torchattacks": {"name": "torchattacks:PGD", "steps": 40, "alpha": 0.01, "random_start": False},
    "foolbox": {"name": "foolbox:LinfPGD", "steps": 40, "abs_stepsize": 0.01, "random_start": False},
    "art": {"name": "art:ProjectedGradientDescentPyTorch", "max_iter": 40, "eps_step": 0.01},
    "adv_lib": {"name": "adv-lib:pgd_linf", "steps": 40, "random_init": False, "relative_step_size": 0.1},
}


@pytest.fixture(autouse=True)
def _libraries_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def require(library: str) -> None:
    try:
        importlib.import_module(library)
    except ImportError as error:
        pytest.skip(f"{library} cannot be imported: {error}")


def attack_of(entry, norm: str = "linf") -> LibraryAttack:
    return make("attack", name_with_parameters("attack", entry, HERE), HERE, norm=norm)


def engine_of(network, digits, n: int = 120, batch: int = 64) -> Engine:
    x, y = (each[:n] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    targets = Targets.of(x, y)
    return Engine(Victim(frozen_copy(network, CPU), CPU, "float32", "plain"), Judge(network, CPU), targets, batch, 999)


@pytest.mark.parametrize("library", SAME)
def test_one_attack_is_the_same_in_every_library(network, digits, library):
    require({"adv_lib": "adv_lib.attacks"}.get(library, library))
    ours = engine_of(network, digits)
    (expected,) = ours.run(PGD(steps=40, step_size=Fraction(1, 100)), [Fraction(1, 10)], seed=0, early_stop=False)
    engine = engine_of(network, digits)
    (outcome,) = engine.run(attack_of(SAME[library]), [Fraction(1, 10)], seed=0, early_stop=False)
    assert abs(outcome.fooled.mean() - expected.fooled.mean()) <= 0.02
    assert 0.1 < outcome.fooled.mean() < 1
    assert outcome.size.max() <= 0.1 + 1e-6
    # Every row that went forward or backward is counted, whoever took it.
    n = len(engine.targets)
    assert outcome.backwards == 40 * n
    assert 40 * n <= outcome.forwards <= 44 * n + 10
    assert outcome.judge_forwards == n


@pytest.mark.parametrize(
    ("library", "entry", "norm"),
    [
        ("torchattacks", {"name": "torchattacks:PGDL2", "steps": 5}, "l2"),
        ("torchattacks", {"name": "torchattacks:APGD", "steps": 5}, "l2"),
        ("torchattacks", {"name": "torchattacks:APGDT", "steps": 3}, "linf"),
        ("torchattacks", {"name": "torchattacks:CW", "steps": 10}, "l2"),
        ("foolbox", {"name": "foolbox:L2DeepFoolAttack", "steps": 10}, "l2"),
        ("foolbox", {"name": "foolbox:L2FMNAttack", "steps": 10}, "l2"),
        ("foolbox", {"name": "foolbox:LinfAdditiveUniformNoiseAttack"}, "linf"),
        ("art", {"name": "art:FastGradientMethod"}, "l2"),
        ("art", {"name": "art:DeepFool", "max_iter": 3}, "l2"),
    ],
)
def test_attacks_of_all_kinds_stay_in_the_ball(network, digits, library, entry, norm):
    require(library)
    engine = engine_of(network, digits, 24)
    eps = Fraction(1, 2) if norm == "l2" else Fraction(1, 10)
    (outcome,) = engine.run(attack_of(entry, norm), [eps], seed=0)
    assert outcome.size.max() <= float(eps) + 1e-5
    assert outcome.low.min() >= 0
    assert outcome.high.max() <= 1
    assert outcome.forwards > 0
    assert outcome.returned.beyond_ball == 0


def test_the_librarys_random_numbers_are_seeded_and_the_callers_left_alone(network, digits):
    require("torchattacks")
    attack = attack_of({"name": "torchattacks:PGD", "steps": 2})
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    images = []
    for seed in (0, 0, 1):
        (outcome,) = engine_of(network, digits, 40).run(attack, [Fraction(1, 10)], seed=seed)
        images.append(outcome.images)
    assert (torch.rand(1), np.random.rand(), random.random()) == before
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("torchattacks:PGDL3", "has no attack 'PGDL3'; it has PGD"),
        ({"name": "torchattacks:PGD", "step": 3}, "unknown parameter 'step'; did you mean 'steps'"),
        ({"name": "torchattacks:PGD", "eps": 3}, "unknown parameter 'eps'"),
        ("torchattacks:LGV", "has no attack 'LGV'"),
    ],
)
def test_wrong_names_and_parameters_are_refused(entry, reason):
    require("torchattacks")
    with pytest.raises(InputError, match=reason):
        name_with_parameters("attack", entry, HERE)


def test_an_attack_of_another_norm_is_refused():
    require("torchattacks")
    with pytest.raises(ValueError, match="is for the norm l2, not linf"):
        attack_of("torchattacks:PGDL2").check(10)
    attack_of("torchattacks:PGDL2", "l2").check(10)


@pytest.mark.parametrize(("prefix", "module"), [("foolbox", "foolbox.attacks"), ("art", "art.attacks.evasion")])
def test_a_library_that_is_not_there_names_its_extra(monkeypatch, prefix, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'epsbench\[{prefix}\]'"):
        name_with_parameters("attack", f"{prefix}:PGD", HERE)


def test_the_librarys_version_is_part_of_the_id():
    require("torchattacks")
    named = name_with_parameters("attack", "torchattacks:PGD", HERE)
    assert versions("attack", named, HERE)["attack"].startswith("torchattacks ")


def test_what_adversarial_library_is_called_with(monkeypatch, network, digits):
    """Its functions take ε by that letter. The library itself may not be installable: it needs visdom."""
    seen = {}

    def pgd_linf(model, inputs, labels, ε, targeted=False, steps=40, relative_step_size=0.03):
        seen.update(eps=ε, steps=steps, targeted=targeted)
        leaf = inputs.clone().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(model(leaf), labels, reduction="sum")
        return (inputs + ε * torch.autograd.grad(loss, leaf)[0].sign()).clamp(0, 1)

    module = ModuleType("adv_lib.attacks")
    module.pgd_linf = pgd_linf
    monkeypatch.setitem(sys.modules, "adv_lib", ModuleType("adv_lib"))
    monkeypatch.setitem(sys.modules, "adv_lib.attacks", module)
    attack = attack_of({"name": "adv-lib:pgd_linf", "steps": 7})
    engine = engine_of(network, digits, 40)
    (outcome,) = engine.run(attack, [Fraction(1, 10)], seed=0)
    assert seen == {"eps": pytest.approx(0.1), "steps": 7, "targeted": False}
    assert outcome.backwards == len(engine.targets)
    with pytest.raises(ValueError, match="norm linf, not l2"):
        attack_of("adv-lib:pgd_linf", "l2").check(10)
