"""Few classes, of which one has most of the images: what a constant answer reaches is said, and misleads no audit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import epsbench
from epsbench.harness.run.audits.chance import audit_one_class

N, RARE = 60, 12


class Bright(nn.Module):
    """Two classes by the mean pixel; with a ``bias`` for the first, it answers that one always."""

    def __init__(self, bias: float = 0.0, sign: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor(10 * sign)), bias

    def forward(self, x: Tensor) -> Tensor:
        z = self.weight * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([self.bias - z, z], 1)


def data() -> tuple[Tensor, Tensor]:
    """Images (60, 1, 6, 6) of which twelve are bright, and their labels."""
    y = (torch.arange(N) < RARE).long()
    noise = 0.02 * torch.rand(N, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return 0.3 + 0.3 * y[:, None, None, None] + noise, y


def codes(result: epsbench.Evaluation) -> set[str]:
    return {each.code for each in result.findings}


def test_a_constant_answer_is_reported_beside_the_accuracy_of_each_class():
    x, y = data()
    result = epsbench.evaluate(Bright(bias=40.0), x, y, attack="fgsm", eps=0.01)
    assert result.clean_accuracy == 0.8
    (made,) = (each for each in result.findings if each.code == "no-better-than-one-class")
    assert "right on 48 of 60 clean images, and always answering class 0 on 48" in made.message
    table = result.by_class()
    assert table.loc[0, ["images", "clean", "robust"]].tolist() == [48, 1, 1]
    assert table.loc[1, ["images", "clean", "robust"]].tolist() == [12, 0, 0]
    assert table.loc[1, "clean_high"] == pytest.approx(0.2425, abs=1e-4)  # Wilson's interval of 0 of 12
    assert "class 1: 0.0% clean, 0.0% robust, of 12 images" in str(result)
    assert "always answering 0 would be right on 80.0%" in str(result)


def test_a_model_that_tells_the_classes_apart_is_not():
    x, y = data()
    result = epsbench.evaluate(Bright(), x, y, attack="fgsm", eps=0.01, class_names=["benign", "malignant"])
    assert result.clean_accuracy == 1
    assert "no-better-than-one-class" not in codes(result)
    assert "class malignant: 100.0% clean" in str(result)
    assert list(result.by_class().index) == ["benign", "malignant"]
    balanced = epsbench.evaluate(Bright(), x[: 2 * RARE], y[: 2 * RARE], attack="fgsm", eps=0.01)
    assert "class" not in str(balanced)


def test_void_numbers_are_void_by_class():
    x, y = data()

    class Probabilities(Bright):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).softmax(1)

    result = epsbench.evaluate(Probabilities(), x, y, attack="fgsm", eps=0.01)
    assert "probabilities" in codes(result)
    assert all(map(math.isnan, result.by_class()["robust"]))
    assert "class 0" not in str(result)


def test_another_normalisation_that_makes_all_answers_one_class_is_no_better():
    """All labels are swapped. Undoing a normalisation gives every image the frequent class: that is no gain."""
    x, y = data()
    result = epsbench.evaluate(Bright(sign=-1.0), x, y, attack="fgsm", eps=0.01)
    assert result.clean_accuracy == 0
    assert "at-chance" in codes(result)
    assert not codes(result) & {"normalised-twice", "not-normalised"}


@pytest.mark.parametrize(
    ("counts", "right", "reported"),
    [((80, 20), 80, True), ((80, 20), 81, False), ((52, 48), 52, False), ((100, 0), 100, False), ((4, 1), 4, False)],
)
def test_imbalance_must_be_sure(counts, right, reported):
    labels = np.repeat([0, 1], counts)
    assert len(list(audit_one_class(labels, right, 2))) == reported


def test_what_was_adapted_to_few_classes_is_said():
    x, y = data()
    result = epsbench.evaluate(Bright(), x[:4], y[:4], attack="autoattack", eps=0.4)
    (made,) = (each for each in result.findings if each.code == "adapted-to-few-classes")
    assert "2 classes, so the attack has apgd-margin in place of apgd-t; fab-t with targets = 1" in made.message
