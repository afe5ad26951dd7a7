"""Both training loops: they learn, they repeat themselves exactly, and they say when they diverge."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from small import RECIPE, flat
from torch import nn

from epsbench.harness.run.training.classifier import accuracy, train_classifier
from epsbench.harness.run.training.losses import Losses, TrainingDiverged
from epsbench.harness.run.training.recipe import SCHEDULES
from epsbench.harness.run.training.seeding import seeded, shuffled, steps_per_epoch
from epsbench.harness.run.training.settings import Hooks, Method, Settings
from epsbench.models.catalogue import ResNet18, SmallCNN
from epsbench.models.defenses import FGSMLoss, NoDefense, PGDBatch


def classifier(data, seed=0, model=SmallCNN(), defense=NoDefense(), augmentation="none", precision="float32", **recipe):  # noqa: B008
    network = seeded(lambda: model.build(data.description), seed)
    training = train_classifier(
        network, data, Method(defense, augmentation, RECIPE | recipe), Settings(seed=seed, precision=precision)
    )
    return network, training.curves


def test_a_classifier_learns_the_digits(data):
    network, curves = classifier(data, epochs=8)
    assert accuracy(network, data.test, "float32") > 0.93
    assert curves["validation_accuracy"][-1] > 0.9
    assert curves["train_loss"][-1] < curves["train_loss"][0]
    assert {len(values) for values in curves.values()} == {8}
    assert not network.training
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
@pytest.mark.parametrize("defense", [NoDefense(), FGSMLoss(), PGDBatch(Fraction(1, 10), steps=2)], ids=repr)
def test_the_same_seed_gives_the_same_weights(few, defense, augmentation):
    def weights(seed):
        torch.manual_seed(torch.seed() % 2**31)  # whatever the global state is
        return flat(classifier(few, seed, ResNet18(width=4), defense, augmentation)[0])

    first = weights(0)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_training_leaves_the_global_random_state_alone(few):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    classifier(few)
    assert torch.equal(torch.rand(3), expected)


def test_adversarial_training_resists_more(data):
    from epsbench.attacks.fgsm import FGSM
    from epsbench.harness.run.training.classifier import ClassifierInTraining

    def robust(defense):
        network, _ = classifier(data, defense=defense, epochs=6)
        trainee = ClassifierInTraining(network, torch.Generator(), "float32")
        x = trainee.attack(FGSM(), data.test.pixels(), data.test.labels, 0.2)
        return (network(x).argmax(1) == data.test.labels).float().mean().item()

    assert robust(PGDBatch(Fraction(2, 10), steps=3)) > robust(NoDefense()) + 0.15


@pytest.mark.parametrize(("optimizer", "schedule"), [("sgd", "step"), ("sgd", "constant"), ("adam", "one-cycle")])
def test_every_recipe_trains(few, optimizer, schedule):
    _, curves = classifier(few, optimizer=optimizer, schedule=schedule, learning_rate=1e-2)
    assert curves["train_loss"][1] < curves["train_loss"][0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains(few, precision):
    network, curves = classifier(few, precision=precision, epochs=3)
    assert curves["train_loss"][-1] < curves["train_loss"][0]
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


def test_no_epochs_keep_the_weights(few):
    network = seeded(lambda: SmallCNN().build(few.description), 0)
    before = flat(network)
    nothing = train_classifier(
        network, few, Method(NoDefense(), "none", RECIPE | {"epochs": 0}), Settings(seed=0, precision="float32")
    )
    assert nothing.curves == {"train_loss": [], "train_accuracy": [], "validation_accuracy": []}
    assert nothing.seconds == nothing.watch_seconds == nothing.resumed == 0
    assert torch.equal(flat(network), before)


def test_callbacks_see_every_epoch_and_step(few):
    epochs, steps = [], []
    network = seeded(lambda: SmallCNN().build(few.description), 0)
    train_classifier(
        network,
        few,
        Method(NoDefense(), "none", RECIPE),
        Settings(seed=0, precision="float32"),
        Hooks(on_epoch=lambda epoch, values: epochs.append((epoch, sorted(values))), on_step=lambda: steps.append(1)),
    )
    assert epochs == [(n, ["train_accuracy", "train_loss", "validation_accuracy"]) for n in (1, 2)]
    assert len(steps) == 2 * (130 // 64)


def test_divergence_names_its_step(few):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Linear(64, 10), 0

        def forward(self, x):
            self.calls += self.training
            return self.layer(x.flatten(1)) * (math.nan if self.calls == 4 and self.training else 1)

    with pytest.raises(TrainingDiverged, match="nan at step 3; lower learning_rate") as caught:
        train_classifier(Broken(), few, Method(NoDefense(), "none", RECIPE), Settings(seed=0, precision="float32"))
    assert caught.value.step == 3


def test_losses_are_checked_every_hundred_steps():
    losses = Losses(1000, torch.device("cpu"), first_step=50)
    for step in range(99):
        losses.keep(torch.tensor(math.inf if step == 3 else 1.0))
    with pytest.raises(TrainingDiverged, match="inf at step 53"):
        losses.keep(torch.tensor(1.0))


def test_schedules():
    assert SCHEDULES["one-cycle"](0, {"epochs": 10}) == pytest.approx(0.04)
    assert SCHEDULES["one-cycle"](3, {"epochs": 10}) == pytest.approx(1)
    assert SCHEDULES["one-cycle"](10, {"epochs": 10}) == pytest.approx(1e-5)
    assert [SCHEDULES["step"](e, {"step_epochs": 7, "gamma": 0.1}) for e in (6.99, 7, 14)] == pytest.approx(
        [1, 0.1, 0.01]
    )
    assert SCHEDULES["constant"](5, {}) == 1


@pytest.mark.parametrize(("n", "batch", "steps"), [(130, 64, 2), (64, 64, 1), (10, 64, 1), (1, 1, 1)])
def test_batches_are_full_and_never_repeat(n, batch, steps):
    batches = list(shuffled(n, batch, torch.Generator().manual_seed(0)))
    assert len(batches) == steps == steps_per_epoch(n, batch)
    assert {len(index) for index in batches} == {min(n, batch)}
    together = torch.cat(batches)
    assert len(together.unique()) == len(together)
