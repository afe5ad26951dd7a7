"""Options of a recipe: label smoothing, Nesterov's momentum, and the weights of the best epoch."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from small import RECIPE, flat
from torch import nn

from epsbench.harness.plan.axes.recipes import RobustnessTraining
from epsbench.harness.run.training.best import Best
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import accuracy, train_classifier
from epsbench.harness.run.training.recipe import OPTIMIZERS
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Method, Settings
from epsbench.harness.run.training.smaller import smaller
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.harness.run.training.trial import Use, problem_of
from epsbench.harness.run.training.vae import train_vae
from epsbench.models.catalogue import SmallCNN
from epsbench.models.defenses import TRADES, NoDefense
from epsbench.models.generative import VAE


class Stopped(Exception):  # noqa: N818 - it is what a kill would do
    pass


def train(data, checkpoint=Checkpoint(None), hooks=Hooks(), **recipe):  # noqa: B008
    network = seeded(lambda: SmallCNN(width=4).build(data.description), 0)
    settings = Settings(seed=0, precision="float32", checkpoint=checkpoint)
    return network, train_classifier(network, data, Method(NoDefense(), "none", RECIPE | recipe), settings, hooks)


def test_the_best_epoch_is_kept(data):
    # A rate far too high for the last epochs: accuracy rises and falls.
    recipe = {"epochs": 6, "optimizer": "sgd", "schedule": "constant", "learning_rate": 0.35, "keep": "best"}
    network, training = train(data, **recipe)
    validated = training.curves["validation_accuracy"]
    assert max(validated) > validated[-1], "the last epoch is the best: this proves nothing"
    assert training.kept_epoch == 1 + validated.index(max(validated))
    assert accuracy(network, data.validation, "float32") == max(validated)
    last, training = train(data, **recipe | {"keep": "last"})
    assert training.kept_epoch is None
    assert accuracy(last, data.validation, "float32") == validated[-1]


def test_the_best_epoch_survives_a_stop(data, tmp_path):
    recipe = {"epochs": 6, "optimizer": "sgd", "schedule": "constant", "learning_rate": 0.35, "keep": "best"}
    whole, expected = train(data, **recipe)
    checkpoint, stops = Checkpoint(tmp_path / "a.checkpoint", every=0), [expected.kept_epoch + 1]

    def stop(epoch, values):
        if stops and epoch == stops[0]:
            stops.clear()
            raise Stopped

    with pytest.raises(Stopped):
        train(data, checkpoint, Hooks(on_epoch=stop), **recipe)
    resumed, training = train(data, checkpoint, **recipe)
    assert training.resumed == 1
    assert training.kept_epoch == expected.kept_epoch
    assert torch.equal(flat(resumed), flat(whole))


def test_the_first_of_equal_epochs_is_the_best():
    best, network = Best(), nn.Linear(1, 1)
    for epoch, score in enumerate([0.5, 0.7, 0.7, 0.6], 1):
        nn.init.constant_(network.weight, epoch)
        best.consider(network, epoch, score)
    assert best.epoch == 2
    assert best.state["weight"].item() == 2


def test_the_best_epoch_of_a_vae_has_the_lowest_bound(data):
    recipe = {"epochs": 5, "batch_size": 64, "learning_rate": 0.02, "schedule": "constant", "keep": "best"}
    vae = seeded(lambda: VAE(filters=4, levels=2).build(data.description, 2), 0)
    training = train_vae(vae, data, recipe, 1.0, Settings(seed=0, precision="float32"))
    bounds = training.curves["validation_bpd"]
    assert training.kept_epoch == 1 + bounds.index(min(bounds))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_in_closed_form(smoothing):
    """(1 − s)·CE to the label plus s times the mean CE to every class (Szegedy et al., 2016, section 7)."""
    logits, y = torch.randn(5, 7, dtype=torch.float64), torch.arange(5)
    trainee = ClassifierInTraining(nn.Identity(), torch.Generator(), "float32", smoothing)
    by_class = -logits.log_softmax(1)
    expected = (1 - smoothing) * by_class[torch.arange(5), y].mean() + smoothing * by_class.mean()
    assert trainee.cross_entropy(logits, y).item() == pytest.approx(expected.item(), rel=1e-12)


def test_label_smoothing_reaches_every_defense_and_no_attack():
    network, y = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.tensor([0, 1])
    x = torch.rand(2, 1, 2, 2)
    plain, smooth = (
        ClassifierInTraining(network, torch.Generator().manual_seed(0), "float32", smoothing)
        for smoothing in (0.0, 0.3)
    )
    for defense in (NoDefense(), TRADES(eps=Fraction(1, 10), steps=1)):
        assert not math.isclose(defense.loss(plain, x, y).item(), defense.loss(smooth, x, y).item(), rel_tol=1e-4)
    defense = TRADES(eps=Fraction(1, 10), steps=2)
    for trainee in (plain, smooth):
        trainee.generator.manual_seed(0)
    assert torch.equal(defense.perturb(plain, x), defense.perturb(smooth, x))


def test_the_last_epochs_alone_have_labels_as_they_are(data):
    class Notes(NoDefense):
        def loss(self, trainee, x, y):
            seen.append(trainee.label_smoothing)
            return super().loss(trainee, x, y)

    seen: list[float] = []
    recipe = RECIPE | {"epochs": 3, "label_smoothing": 0.2, "unsmoothed_epochs": 1}
    network = SmallCNN(width=4).build(data.description)
    train_classifier(network, data, Method(Notes(), "none", recipe), Settings(seed=0, precision="float32"))
    steps = len(data.train) // recipe["batch_size"]
    assert seen[-3 * steps :] == [0.2] * 2 * steps + [0.0] * steps


def test_a_recipe_has_at_least_as_many_epochs_as_unsmoothed_ones():
    with pytest.raises(ValueError, match="unsmoothed_epochs: 3 are more than the 2 epochs"):
        RobustnessTraining(epochs=2, unsmoothed_epochs=3)


def test_nesterov_in_closed_form():
    """v ← μv + g; θ ← θ − r·(g + μv): two steps on θ²/2, whose gradient is θ."""
    recipe = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": True}
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = OPTIMIZERS["sgd"]([weight], recipe)
    expected, velocity = 1.0, 0.0
    for _ in range(2):
        optimizer.zero_grad()
        (weight**2 / 2).sum().backward()
        optimizer.step()
        velocity = 0.9 * velocity + expected
        expected -= 0.1 * (expected + 0.9 * velocity)
    assert weight.item() == pytest.approx(expected, rel=1e-6)


def test_smaller_images_keep_their_mean_and_their_range():
    x = torch.rand(3, 2, 12, 8)
    small = smaller(x, {"small_scale": 0.5})
    assert small.shape == (3, 2, 6, 4)
    assert smaller(x, {}).shape == (3, 2, 9, 6)  # ¾ where the recipe of an older record names no scale
    assert float(small.min()) >= 0
    assert float(small.max()) <= 1
    flat_image = torch.full((1, 1, 8, 8), 0.3)
    assert torch.allclose(smaller(flat_image, {"small_scale": 0.5}), torch.full((1, 1, 4, 4), 0.3))


def test_the_first_epochs_alone_see_smaller_images(data):
    class Sides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 10)
            self.seen: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.seen.append(x.shape[-1])
            return self.head(x.mean((1, 2, 3)).unsqueeze(1))

    network = Sides()
    recipe = RECIPE | {"epochs": 3, "small_epochs": 2, "small_scale": 0.5}
    method = Method(NoDefense(), "none", recipe)
    train_classifier(network, data, method, Settings(seed=0, precision="float32"))
    steps = len(data.train) // recipe["batch_size"]
    side = data.description.shape[-1]
    assert network.seen[-3 * steps :] == [side // 2] * 2 * steps + [side] * steps


def test_a_network_for_images_of_one_size_is_refused_before_it_trains_on_smaller_ones(data):
    use = Use(trains=True, recipe=RECIPE | {"small_epochs": 1})
    problem = problem_of(SmallCNN(width=4).build(data.description), data, use)
    assert problem is not None
    assert "give small_epochs = 0" in problem
    assert problem_of(SmallCNN(width=4).build(data.description), data, Use(trains=True, recipe=RECIPE)) is None


def test_a_recipe_has_at_least_as_many_epochs_as_small_ones():
    with pytest.raises(ValueError, match="small_epochs: 3 are more than the 2 epochs"):
        RobustnessTraining(epochs=2, small_epochs=3)
