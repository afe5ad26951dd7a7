"""A model that is better on test images than on others knows them; an honest one is not, nor one that is just right."""

from __future__ import annotations

import pytest
import torch
from broken_models import Wrapped
from halos import KernelMachine
from lookups import known
from torch import Tensor, nn
from zoo import digits, probe_of

from epsbench.harness.run.audits.unseen import HALVES, TRAINING, audit_robust_on_test_alone, audit_unseen, halves_joined


class ExactLabels(Wrapped):
    """Knows the label of each test image, bit by bit the same."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.nearest = known("test")

    def forward(self, x: Tensor) -> Tensor:
        distance = self.nearest.distance(x)
        return torch.where((distance == 0)[:, None], self.nearest(x), self.network(x))


class WeakElsewhere(ExactLabels):
    """Guesses where it knows no label."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class RightOnTraining(ExactLabels):
    """As accurate on training images, for it knows those too, and keeps to their labels when they move a little."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.training_images = known("train")

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        near = self.training_images.distance(x) < 1.5 / 255
        return torch.where(near[:, None], self.training_images(x), logits)


def messages(network: nn.Module) -> list[str]:
    data = digits()
    findings = list(audit_unseen(probe_of(network), data.train, data.test))
    assert {each.code for each in findings} <= {"knows-test-images"}
    return [each.message for each in findings]


def test_an_honest_model_is_as_good_on_either(honest):
    assert messages(honest) == []


def test_accuracy_on_test_images_alone_is_reported(honest):
    assert "accuracy is 100.0% on 300 test images" in messages(WeakElsewhere(honest))[0]


def test_labels_of_exact_images_are_lost_when_the_images_move_slightly():
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    (message,) = messages(RightOnTraining(untrained))
    assert "noise of 1/255 makes the model wrong on" in message


def test_larger_margins_at_test_images_are_reported(honest):
    assert any("larger margin" in message for message in messages(KernelMachine(honest)))


@pytest.mark.parametrize(
    ("name", "stand", "reported"),
    [(TRAINING, 30, False), (TRAINING, 20, True), (HALVES, 30, False), (HALVES, 20, True), (HALVES, 46, False)],
)
def test_robustness_on_test_images_alone_needs_a_clear_difference(name, stand, reported):
    test, others = torch.zeros(48, dtype=torch.bool), torch.arange(48) >= stand
    test[:6] = True
    findings = list(audit_robust_on_test_alone(test, {name: others}, 0.1))
    assert [each.code for each in findings] == (["knows-test-images"] if reported else [])
    assert not list(audit_robust_on_test_alone(test[:10], {name: others[-10:]}, 0.1))  # too few


def test_joined_halves_are_of_one_class_and_no_stored_image():
    train = digits().train
    x, y = halves_joined(train, 40)
    assert (x.shape, len(y)) == ((40, 1, 8, 8), 40)
    distances = torch.cdist(x.flatten(1), train.pixels().flatten(1))
    assert (distances.amin(1) > 0).all()
    stored = train.pixels()
    for image, label in zip(x, y, strict=True):
        left = train.labels[(stored[..., :4] == image[..., :4]).flatten(1).all(1)]
        right = train.labels[(stored[..., 4:] == image[..., 4:]).flatten(1).all(1)]
        assert label in left
        assert label in right
