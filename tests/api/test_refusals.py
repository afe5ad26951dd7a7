"""What `epsbench.evaluate` cannot use: one message that says what to do."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import epsbench
from epsbench.attacks import PGD
from epsbench.attacks.norms import NORMS
from epsbench.harness.errors import InputError


@pytest.mark.parametrize("name", ["/tmp/best.pt", "file:best", "a\nb", " "])
def test_a_name_that_cannot_be_one_is_refused(network, x, y, name):
    with pytest.raises(InputError, match=r"^name: .* cannot be a model's name"):
        epsbench.evaluate(network, x, y, attack="fgsm", name=name)


def test_a_named_model_keeps_its_name(x, y):
    with pytest.raises(InputError, match=r"^name: a model that is named keeps its name"):
        epsbench.evaluate("victim.py:load", x, y, attack="fgsm", name="mine")


@pytest.mark.parametrize(
    "several",
    [{"eps": [0.1, 0.2]}, {"eps": np.array([0.1, 0.2])}, {"attack": ["fgsm", "pgd"]}, {"norm": ["linf", "l2"]}],
)
def test_several_attacks_are_refused_before_one_is_made(x, y, several):
    def never(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it was asked")

    with pytest.raises(InputError, match=r"^attack: one attack at one ε is needed, not 2; evaluate"):
        epsbench.attack(never, x, y, **several)


def test_attacks_of_different_norms_are_refused_unless_one_is_given(network, x, y):
    several = [PGD(steps=2), PGD(steps=3, norm=NORMS["l2"])]
    with pytest.raises(InputError, match=r"^attack: the objects have different norms, linf and l2; evaluate"):
        epsbench.evaluate(network, x, y, attack=several, eps=0.1)
    result = epsbench.evaluate(network, x[:8], y[:8], attack=several, norm="l2", eps=0.1)
    assert {point.norm for point in result} == {"l2"}


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("no such layer")


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 2:
            raise OSError("file 2 is gone")
        return torch.zeros(1, 8, 8), 0


class ElsewhereToo(nn.Module):
    """Keeps a tensor where no `to` reaches it."""

    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(1, device="meta")

    def forward(self, x):
        return (x.flatten(1) - self.mean)[:, :10]


class Doubles(nn.Linear):
    pass


def _linear(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (lambda x, y: (_linear(), x * 16, y), "in [0, 1]; divide them by the largest value that a pixel can have"),
        (lambda x, y: (_linear(), x > 0.5, y), "x: is bool; images are floats in [0, 1]: give x.astype('float32')"),
        (lambda x, y: (_linear(), {"images": x, "labels": y}, None), "x: is a table without a name; give images"),
        (lambda x, y: (_linear(), x * 255, y), "x: pixels go from 0 to 255, and must lie in [0, 1]"),
        (lambda x, y: (_linear(), (x * 255).byte(), y), "x: is uint8; images are floats in [0, 1] here: give x / 255"),
        (lambda x, y: (_linear(), x.permute(0, 2, 3, 1), y), "x: has the shape (80, 8, 8, 1), with channels last"),
        (lambda x, y: (lambda images: np.zeros((len(images), 10)), x, y), "compute the logits with torch"),
        (lambda x, y: (_linear(), x, y[:5]), "y: 80 images and 5 labels"),
        (lambda x, y: (_linear(), x, y.float()), "y: labels are float32; give integers"),
        (lambda x, y: (_linear(), x, nn.functional.one_hot(y)), "y: labels have the shape (80, 10), as if one-hot"),
        (lambda x, y: (_linear(5), x, y), "y: has a label 9, and the model gives 5 logits"),
        (lambda x, y: (_linear(), x, None), "y: is missing"),
        (lambda x, y: (_linear(), Broken()), "x, example 2: raises OSError: file 2 is gone"),
        (lambda x, y: (_linear(), DataLoader(Broken(), 2)), "x, batch 1: the loader raises OSError: file 2 is gone"),
        (lambda x, y: (_linear(), DataLoader(Broken(), 2, num_workers=1)), "batch 1: the loader raises OSError: file"),
        (lambda x, y: (_linear(), x[0].expand(3, 8, 8), y[:1]), "x: has the shape (3, 8, 8), as one image; add"),
        (lambda x, y: (_linear(), x[:1], y[0]), "y: is a single number; give one for each image"),
        (lambda x, y: (ElsewhereToo(), x, y), "keep every tensor of the model in a parameter or a buffer"),
        (lambda x, y: (_linear(), DataLoader(TensorDataset(x, y), batch_size=None)), "x, batch 0: is one example, and"),
        (lambda x, y: (_linear(), x * 1.0000005, y), "pixels go from 0 to 1.0000005, and must lie in [0, 1]; set what"),
        (lambda x, y: (_linear().double(), x, y), "its weights are float64, and images are float32; call"),
        (lambda x, y: (Raises(), x, y), "no such layer"),
        (lambda x, y: (7, x, y), "model: is a int; give a torch.nn.Module"),
        (lambda x, y: (_linear().state_dict(), x, y), "model: is a dict of weights; build the network, load them"),
        (lambda x, y: (_linear(), Broken(), y), "y: labels come with x, which is a Broken; leave y out"),
        (lambda x, y: (_linear(), DataLoader(Broken(), 2), y), "y: labels come with x, which is a DataLoader"),
        (lambda x, y: (_linear(), x[0], y), "x: images have the shape|labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated(x, y, arguments, wanted):
    with pytest.raises(InputError) as caught:
        epsbench.evaluate(*arguments(x, y), attack="fgsm")
    text = "\n".join(caught.value.messages)
    assert any(part in text for part in wanted.split("|")), text


class Exhausted(nn.Module):
    """Raises for good once it is asked for a gradient, as what has run out of something would."""

    out = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Exhausted.out |= x.requires_grad
        if Exhausted.out:
            raise ValueError("the licence ran out")
        return x.flatten(1)[:, :10]


def test_a_model_that_raises_is_not_advised_on_its_gradient(x, y):
    with pytest.raises(InputError, match="ValueError: the licence ran out") as raised:
        epsbench.evaluate(Exhausted(), x, y, attack="pgd:steps=3")
    assert "differentiated" not in str(raised.value)


class RaisesWithGradients(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            raise self.error
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        (RaisesWithGradients(RuntimeError("the licence ran out")), "the model raises where its images ask for one"),
        (lambda x: torch.from_numpy(x.numpy()).flatten(1)[:, :10], "remove torch.no_grad()"),
        (lambda x: x.flatten(1)[:, :10].argsort(1).float(), "remove torch.no_grad()"),
    ],
    ids=["raises", "through NumPy", "no gradient"],
)
def test_the_advice_on_a_gradient_fits_what_was_raised(x, y, model, advice):
    with pytest.raises(InputError, match=re.escape(advice)):
        epsbench.evaluate(model, x, y, attack="pgd:steps=3")


class EightImages(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(8, 64)[:, :10]


def test_a_model_for_one_batch_size_hears_of_the_batch_and_not_of_its_signature(x, y):
    with pytest.raises(InputError, match=r"asked about 2 images: forward\(\) must take any number of them") as raised:
        epsbench.evaluate(EightImages(), x[:8], y[:8], attack="fgsm")
    assert "signature" not in str(raised.value)
    with pytest.raises(InputError, match="has 12 classes, with labels from 0 to 11: correct the labels") as raised:
        epsbench.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), x, y, attack="fgsm", classes=12)
    assert "signature" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"attack": "pdg"}, "unknown attack 'pdg'; did you mean 'pgd'"),
        ({"attack": "pgd:stps=4"}, "pgd: unknown parameter 'stps'; did you mean 'steps'"),
        ({"attack": PGD}, "attack: PGD is a class; give an object: PGD()"),
        ({"attack": []}, "attack: is empty"),
        ({"eps": "8/0"}, "eps[0]: ε '8/0' divides by zero"),
        ({"eps": 8}, "ε must not be above 1"),
        ({"norm": "linfty"}, "norm[0]: unknown norm 'linfty'; did you mean 'linf'"),
        ({"batch_size": 0}, "batch_size: must be a whole number from 1 on, not 0"),
        ({"batch_size": 2.5}, "batch_size: must be a whole number from 1 on, not 2.5"),
        ({"attack": "pgd:relative_step_size=inf"}, "attack[0].relative_step_size: must be a finite number, not inf"),
        ({"attack": {"name": "pgd", "relative_step_size": np.inf}}, "relative_step_size: must be a finite number"),
        ({"eps": [0.1, float("nan")]}, "eps[1]: must be a finite number, not nan"),
        ({"randomness": 5}, "randomness: is 5; give a table, such as {'samples': 20"),
        ({"out": 5}, "out: is 5; give the path of a results folder"),
        ({"out": ""}, "out: is ''; give the path of a results folder"),
        ({"out": "/proc/results"}, "or out= in Python"),
        ({"device": "gpu"}, "device: 'gpu' is no device; give cpu, cuda or cuda:0"),
        ({"class_names": "cat"}, "class_names: is a str; give a list of names"),
        ({"compile": "yes"}, "compile: must be 'auto', 'on' or 'off', not 'yes'"),
    ],
)
def test_options_that_cannot_be(network, x, y, options, wanted):
    with pytest.raises(InputError) as caught:
        epsbench.evaluate(network, x, y, **{"attack": "fgsm"} | options)
    assert wanted in "\n".join(caught.value.messages)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": True}, {"compile": "yes"}])
def test_options_of_a_run_are_checked_as_those_of_evaluate_are(wrong):
    with pytest.raises(InputError, match=f"^{next(iter(wrong))}: must be"):
        epsbench.Options(**wrong)


def test_one_logit_and_a_class_in_place_of_a_model_say_what_to_do():
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6) % 2
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    with pytest.raises(InputError, match=r"gives one logit an image, .*two lines: `class Logits.*functional.pad"):
        epsbench.evaluate(single, x, y, attack="fgsm")
    with pytest.raises(InputError, match=r"model: Flatten is a class; give an object: Flatten\(\)"):
        epsbench.evaluate(nn.Flatten, x, y, attack="fgsm")


@pytest.mark.parametrize(
    "form", [lambda z: z[:, :1] - z[:, 1:], lambda z: z[:, 0] - z[:, 1], lambda z: (z, z), lambda z: {"logits": z}]
)
def test_the_line_that_mends_a_plain_function_works(form):
    x, y = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 4)
    weight = torch.linspace(-1, 1, 32).reshape(16, 2)
    scope = {"torch": torch, "model": lambda x: form(x.flatten(1) @ weight)}
    with pytest.raises(epsbench.InputError, match="mend it in a line") as raised:
        epsbench.evaluate(scope["model"], x, y, attack="fgsm", eps=0.01)
    exec(str(raised.value).split("`")[1], scope)
    assert epsbench.evaluate(scope["model"], x, y, attack="fgsm", eps=0.01).clean_accuracy.n == 8
