"""Attacks that cannot be measured as a suite has them: one clear message each, before anything is trained."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite

SUITE = """
[robustness]
data = {data}
training = {{ epochs = 0 }}
[robustness.matrix]
model = "smallcnn"
attack = {attack}
norm = "{norm}"
eps = "{eps}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two and of three classes."""
    folder = tmp_path_factory.mktemp("few")
    for name, classes in (("two", 2), ("three", 3)):
        x = np.random.default_rng(0).random((12, 1, 4, 4), dtype=np.float32)
        np.savez(folder / f"{name}.npz", x=x, y=np.arange(12) % classes)
    return folder


def planned(folder: Path, attack: str, norm: str = "linf", eps: str = "0.1", data: str = "digits") -> None:
    path = folder / "bad.toml"
    path.write_text(SUITE.format(data=f'"{data}"', attack=attack, norm=norm, eps=eps))
    plan(load_suite(str(path)), folder / "results")


ENSEMBLE = '{{ name = "ensemble", parts = [{}] }}'


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ('{ name = "apgd-t", targets = 10 }', "targets = 10 is beyond the 9 wrong classes of the data"),
        ('{ name = "fab-t", targets = 0 }', "targets must be at least 1, not 0"),
        ('{ name = "pgd", target = 10 }', "target = 10 is no class: the data has classes 0 to 9"),
        ('{ name = "pgd", target = -1 }', "target must be the number of a class"),
        (ENSEMBLE.format(""), "parts is empty; name at least one attack"),
        (ENSEMBLE.format(ENSEMBLE.format('"pgd"')), "parts names an ensemble; name its attacks instead"),
        (ENSEMBLE.format('"autoattack"'), "parts names an ensemble; name its attacks instead"),
        ('{ name = "ensemble" }', 'parts is missing; give it, as in parts = ["fgsm", "square"]'),
        (ENSEMBLE.format('{ name = "fab-t", targets = 12 }'), "targets = 12 is beyond the 9 wrong classes"),
        ('{ name = "pgd", loss = "hinge" }', "unknown loss 'hinge'; known: cross-entropy"),
        ('{ name = "pgd", loss = "dlr-targeted" }', "needs a target class; set target, use apgd-t"),
        ('{ name = "apgd-t", loss = "margin" }', "has no target; use apgd"),
        ('{ name = "pgd", loss = "kl" }', "has no gradient at the clean image; set random_start = true"),
        ('{ name = "autoattack", version = "strong" }', "version must be one of standard, plus, rand"),
        ('{ name = "apgd", steps = 0 }', "steps must be at least 1, not 0"),
    ],
)
def test_parameters(folder, attack, message):
    with pytest.raises(InputError, match=re.escape(message)):
        planned(folder, attack)


@pytest.mark.parametrize(
    ("attack", "data", "message"),
    [
        ('{ name = "pgd", loss = "dlr" }', "two.npz",
         'needs 3 classes, and the data has 2; choose another loss, such as loss = "margin"'),
        ('"apgd-t"', "two.npz",
         'needs 3 classes, and the data has 2; choose another loss, such as loss = "logit-difference"'),
        (ENSEMBLE.format('{ name = "apgd", loss = "dlr" }'), "two.npz", "part apgd(loss=DLR()): its loss DLR needs 3"),
        ('{ name = "fab-t", targets = 3 }', "three.npz", "targets = 3 is beyond the 2 wrong classes of the data"),
        ('{ name = "pgd", target = 2 }', "two.npz", "target = 2 is no class: the data has classes 0 to 1"),
    ],
)  # fmt: skip
def test_too_few_classes(folder, attack, data, message):
    with pytest.raises(InputError, match=re.escape(message)):
        planned(folder, attack, data=data)


@pytest.mark.parametrize(
    ("attack", "data"),
    [('{ name = "apgd-t", loss = "logit-difference" }', "two.npz"), ('"apgd-t"', "three.npz"),
     ('"autoattack"', "two.npz"), ('{ name = "pgd", loss = "margin" }', "two.npz")],
)  # fmt: skip
def test_what_the_messages_advise_is_accepted(folder, attack, data):
    planned(folder, attack, data=data)


@pytest.mark.parametrize(
    ("norm", "eps", "largest"),
    [("linf", "1.1", "1"), ("l2", "8.1", "8"), ("l1", "64.5", "64"), ("l0-pixels", "65", "64")],
)
def test_an_epsilon_beyond_its_norm(folder, norm, eps, largest):
    with pytest.raises(InputError, match=rf"robustness\.matrix\.eps\[0\]: ε must not be above {largest}, the whole"):
        planned(folder, '"pgd"', norm, eps)
    planned(folder, '"pgd"', norm, largest)


@pytest.mark.parametrize(
    ("attack", "norm"),
    [("square", "l0"), ("autoattack", "l0"), ("apgd", "l0"), ("apgd-t", "l0-pixels"), ("fab", "l0"), ("fab-t", "l0"),
     ("ddn", "linf"), ("cw", "l1"), ("pdpgd", "l2"), ("deepfool", "l1"), ("sigma-zero", "linf"), ("sparse-rs", "linf")],
)  # fmt: skip
def test_a_norm_that_an_attack_does_not_know(folder, attack, norm):
    with pytest.raises(InputError, match=rf"{attack}.*(knows the norm|follows lengths|whole pixels)"):
        planned(folder, f'"{attack}"', norm, "1")
    if attack == "autoattack":  # an ensemble itself
        return
    with pytest.raises(InputError, match=r"ensemble.*(knows the norm|follows lengths|whole pixels)"):
        planned(folder, ENSEMBLE.format(f'"{attack}"'), norm, "1")
