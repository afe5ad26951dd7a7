"""Catastrophic overfitting, seen while a model trains."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from small import RECIPE
from torch import nn

from epsbench.harness.findings import finding
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.audits.overfitting import audit_training
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training.classifier import train_classifier
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Method, Settings
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.harness.run.training.watch import HALF_STEP, MANY_STEPS, ONE_STEP, watch
from epsbench.models.catalogue import SmallCNN
from epsbench.models.defenses import NFGSM, Defense, FGSMLoss, NoDefense, PGDReplace

SUITE = """
[robustness]
data = "digits"
training.epochs = 1
[robustness.matrix]
model = { name = "smallcnn", width = 4 }
defense = "n-fgsm"
attack = ["fgsm", "pgd"]
eps = 0.1
"""


def curves(clean, one, half, many):
    return {"validation_accuracy": clean, ONE_STEP: one, HALF_STEP: half, MANY_STEPS: many}


COLLAPSES = [
    # FGSM jumps up while PGD falls to nothing, from the third epoch on.
    ([0.7, 0.8, 0.8, 0.8], [0.4, 0.5, 0.75, 0.8], [0.6, 0.65, 0.6, 0.5], [0.35, 0.45, 0.02, 0.0], 3),
    # It never withstood more than one step.
    ([0.9, 0.9], [0.9, 0.95], [0.5, 0.4], [0.0, 0.0], 1),
    # It got over the first collapse, and not over the second.
    ([0.8] * 5, [0.8, 0.5, 0.5, 0.8, 0.8], [0.5] * 5, [0.0, 0.4, 0.4, 0.1, 0.0], 4),
]
SOUND = [
    # FGSM a little below PGD's accuracy throughout, as in any sound adversarial training.
    ([0.6, 0.8], [0.4, 0.55], [0.5, 0.7], [0.35, 0.5]),
    # Both fall, as where nothing is defended.
    ([0.9, 0.95], [0.4, 0.3], [0.6, 0.6], [0.3, 0.0]),
    # Weak and smooth: measured on the digits, FGSM training at ε = 0.3.
    ([0.97], [0.61], [0.79], [0.18]),
    # Robust overfitting (Rice et al., 2020) is something else.
    ([0.8, 0.85], [0.6, 0.58], [0.7, 0.7], [0.53, 0.45]),
    # It got over its collapse.
    ([0.8, 0.8], [0.8, 0.5], [0.5, 0.6], [0.0, 0.4]),
    # Near chance: a few images either way.
    ([0.12], [0.09], [0.08], [0.02]),
    ([0.0], [0.0], [0.0], [0.0]),
]


@pytest.mark.parametrize(("clean", "one", "half", "many", "epoch"), COLLAPSES)
def test_a_collapse_is_reported_with_its_epoch(clean, one, half, many, epoch):
    (finding,) = audit_training(curves(clean, one, half, many))
    assert finding.code == "catastrophic-overfitting"
    assert finding.evidence == {"epoch": epoch, "one_step": one[-1], "half_step": half[-1], "many_steps": many[-1]}


@pytest.mark.parametrize(("clean", "one", "half", "many"), SOUND)
def test_sound_training_is_not_reported(clean, one, half, many):
    assert audit_training(curves(clean, one, half, many)) == []


def test_few_validation_images_show_no_collapse():
    """A gap on three images is chance; on 64 the same gap is not."""
    gap = curves([1.0], [1.0], [0.3], [0.3])
    assert audit_training(gap, 3) == []
    assert [each.code for each in audit_training(gap, 64)] == ["catastrophic-overfitting"]


@pytest.mark.parametrize("old", [{}, {"validation_accuracy": [0.9]}, curves([], [], [], [])])
def test_without_curves_there_is_no_finding(old):
    assert audit_training(old) == []


@pytest.mark.parametrize("again", [[], [finding("catastrophic-overfitting", "seen among cells")]])
def test_every_cell_of_a_collapsed_model_says_so_once(tmp_path, monkeypatch, again):
    (tmp_path / "bent.toml").write_text(SUITE, encoding="utf-8")
    bent = audit_training(curves([0.9], [0.9], [0.4], [0.0]))
    monkeypatch.setattr(
        "epsbench.harness.run.robustness.job.audit_training", lambda curves, images: bent if ONE_STEP in curves else []
    )
    monkeypatch.setattr("epsbench.harness.run.audits.auditor.Auditor.among", lambda self, seen: again)
    suite = load_suite(str(tmp_path / "bent.toml"), limit=64)
    assert run_suite(suite, tmp_path / "results", Options(quiet=True, device="cpu")) == 0
    records = read_records(tmp_path / "results")
    assert len(records) == 2
    for record in records:
        (finding,) = [f for f in record.findings if f.code == "catastrophic-overfitting"]
        assert finding.evidence["epoch"] == 1
        assert record.status == "ok"


def trained(data, defense, epochs):
    network = seeded(lambda: SmallCNN().build(data.description), 0)
    method = Method(defense, "none", RECIPE | {"epochs": epochs, "learning_rate": 3e-3})
    return train_classifier(network, data, method, Settings(seed=0, precision="float32"))


def test_training_on_large_single_steps_collapses_and_is_reported(data):
    training = trained(data, FGSMLoss(eps=Fraction(1, 2), alpha=0.0), epochs=40)
    (finding,) = audit_training(training.curves)
    assert 1 <= finding.evidence["epoch"] <= 40
    assert {len(values) for values in training.curves.values()} == {40}


def test_training_on_many_steps_does_not(data):
    training = trained(data, PGDReplace(eps=Fraction(1, 10), steps=3), epochs=6)
    assert audit_training(training.curves) == []
    assert training.curves[MANY_STEPS][-1] > 0.5


@dataclass(frozen=True)
class Own(Defense):
    eps: object = None

    def loss(self, trainee, x, y):
        return trainee.loss(x, y)


def in_training(network):
    return ClassifierInTraining(network, torch.Generator().manual_seed(0), "float32")


@pytest.mark.parametrize(
    "defense", [NoDefense(), NFGSM(eps=Fraction(0)), Own(), Own("8/255"), Own(float("nan")), Own([0.1])]
)
def test_no_eps_no_watch(data, defense):
    network = seeded(lambda: SmallCNN().build(data.description), 0)
    assert watch(defense, in_training(network), data.validation, 1000) is None


def test_a_model_without_gradients_is_not_watched(data):
    class Rounded(nn.Module):
        def forward(self, x):
            return self.layer(x.flatten(1).detach())

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

    assert watch(Own(0.1), in_training(Rounded()), data.validation, 1000) is None


@pytest.mark.parametrize(("trained_images", "images"), [(100, 64), (18_000, 90), (10**6, 100)])
def test_the_watch_takes_few_of_the_images(data, trained_images, images):
    looked_at = []

    class Counting(ClassifierInTraining):
        def predict(self, x):
            looked_at.append(len(x))
            return super().predict(x)

    trainee = Counting(seeded(lambda: SmallCNN().build(data.description), 0), torch.Generator(), "float32")
    watch(Own(0.1), trainee, data.validation, trained_images).measure(trainee)
    assert looked_at == [images] * 4


def test_accuracies_of_a_linear_model_are_known_and_no_random_number_is_drawn():
    """One pixel that says the class by its side of ½: an image withstands ε where it lies further away than that."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        network[1].bias.copy_(torch.tensor([0.5, -0.5]))
    raw = torch.arange(0, 101, 4, dtype=torch.uint8).view(-1, 1, 1, 1)
    labels = (raw.flatten() > 50).long()
    labels[0] = 1  # wrong when clean
    trainee = in_training(network)
    before = trainee.generator.get_state()
    shares = watch(Own(0.21), trainee, Examples(raw, labels, 100), 10**6).measure(trainee)
    distance, right = (raw.flatten().double() / 100 - 0.5).abs(), torch.arange(len(raw)) > 0
    full, half = (((distance > eps) & right).double().mean().item() for eps in (0.21, 0.105))
    assert shares == pytest.approx({ONE_STEP: full, HALF_STEP: half, MANY_STEPS: full})
    assert trainee.generator.get_state().equal(before)
