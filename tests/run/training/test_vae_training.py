"""Training a VAE: what it learns, what resumes it, which form its step takes."""

from __future__ import annotations

import math
import time

import pytest
import torch
from small import flat
from torch import nn

from epsbench.harness.errors import InputError
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.losses import TrainingDiverged
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Settings
from epsbench.harness.run.training.vae import evaluate_vae, train_vae
from epsbench.models.generative import VAE, Autoencoder, ResidualVAE

RECIPE = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-3}


def vae(data, seed=0, beta=1.0, z_dim=4, **recipe):
    network = seeded(lambda: VAE(filters=8).build(data.description, z_dim), seed)
    outcome = train_vae(network, data, RECIPE | recipe, beta, Settings(seed=seed, precision="float32"))
    return network, outcome.curves


def test_a_vae_starts_at_four_bits_and_learns(data):
    network, curves = vae(data, epochs=8)
    untrained = seeded(lambda: VAE(filters=8).build(data.description, 4), 0)
    assert evaluate_vae(untrained, data.test, 0, "float32").sum(1).mean() == pytest.approx(4, abs=0.1)
    assert curves["train_bpd"][-1] < curves["train_bpd"][0] < 4.2
    assert curves["validation_bpd"][-1] < 3
    assert not network.training


def test_the_same_seed_gives_the_same_vae(few):
    first = flat(vae(few)[0])
    assert torch.equal(first, flat(vae(few)[0]))
    assert not torch.equal(first, flat(vae(few, seed=1)[0]))


def test_beta_trades_rate_for_distortion(data):
    distortion, rate = zip(
        *(
            evaluate_vae(vae(data, beta=beta, epochs=8)[0], data.test, 0, "float32").mean(0).tolist()
            for beta in (0.0, 10.0)
        ),
        strict=True,
    )
    assert rate[0] > rate[1]
    assert distortion[0] < distortion[1]


def test_curves_are_the_bound_whatever_beta(few):
    # At a learning rate of almost nothing the weights stay: the curves of two betas must agree.
    curves = [vae(few, beta=beta, learning_rate=1e-12)[1] for beta in (0.0, 50.0)]
    assert curves[0]["train_bpd"] == pytest.approx(curves[1]["train_bpd"], rel=1e-5)


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_impossible_betas(few, beta):
    with pytest.raises(ValueError, match="beta weights the rate"):
        vae(few, beta=beta)


def test_evaluation_does_not_depend_on_the_batch_size(few, monkeypatch):
    network = seeded(lambda: VAE(filters=4).build(few.description, 3), 0)
    whole = evaluate_vae(network, few.test, 3, "float32")
    monkeypatch.setattr("epsbench.harness.run.training.vae.EVALUATION_BATCH", 7)
    torch.testing.assert_close(evaluate_vae(network, few.test, 3, "float32"), whole)
    assert not torch.equal(evaluate_vae(network, few.test, 4, "float32"), whole)


def test_running_out_of_memory_halves_the_evaluation(few, monkeypatch):
    network = seeded(lambda: VAE(filters=4).build(few.description, 3), 0)
    whole, elbo = evaluate_vae(network, few.test, 3, "float32"), network.elbo

    def small_device(x, noise):
        if len(x) > 20:
            raise torch.OutOfMemoryError("out of memory")
        return elbo(x, noise)

    monkeypatch.setattr(network, "elbo", small_device)
    torch.testing.assert_close(evaluate_vae(network, few.test, 3, "float32"), whole)


def test_pictures_are_asked_for_before_at_ten_and_at_the_end(few):
    for epochs, expected in ((0, [0]), (1, [0, 1]), (10, [0, 10]), (12, [0, 10, 12])):
        asked = []
        network = seeded(lambda: VAE(filters=1).build(few.description, 2), 0)
        train_vae(
            network,
            few,
            RECIPE | {"epochs": epochs},
            1.0,
            Settings(seed=0, precision="float32"),
            Hooks(on_pictures=lambda epoch, shown, asked=asked: asked.append(epoch)),
        )
        assert asked == expected


def test_a_vae_that_diverges_says_so(few):
    with pytest.raises(TrainingDiverged, match="at step"):
        vae(few, learning_rate=1e20, epochs=3)


def network_of(few, model=VAE(filters=2)):  # noqa: B008
    return seeded(lambda: model.build(few.description, 3), 0)


class KilledError(Exception):
    """Stands for what a process cannot survive."""


def test_a_checkpoint_of_another_model_is_named(few, tmp_path):
    path = tmp_path / "key.checkpoint"
    long, short = RECIPE | {"epochs": 3}, {"seed": 0, "precision": "float32"}
    train_vae(network_of(few), few, RECIPE, 1.0, Settings(checkpoint=Checkpoint(path, 0), **short))
    with pytest.raises(InputError, match=r"key\.checkpoint: .*delete the file"):
        train_vae(network_of(few, VAE(filters=3)), few, long, 1.0, Settings(checkpoint=Checkpoint(path, 0), **short))


def test_a_checkpoint_of_an_older_version_is_refused(few, tmp_path):
    checkpoint = Checkpoint(tmp_path / "key.checkpoint", 0)
    settings = Settings(seed=0, precision="float32", checkpoint=checkpoint)
    train_vae(network_of(few), few, RECIPE, 1.0, settings)
    state = checkpoint.restore()
    state["vae"], state["epoch"] = state.pop("network"), state.pop("epochs")  # as older versions called them
    checkpoint.save(state)
    with pytest.raises(InputError, match=r"key\.checkpoint: not the checkpoint of this training .*; delete the file"):
        train_vae(network_of(few), few, RECIPE, 1.0, settings)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_killed_training_ends_at_the_same_weights(few, tmp_path, average):
    recipe = RECIPE | {"epochs": 4, "schedule": "one-cycle", "average": average}
    whole = network_of(few)
    undisturbed = train_vae(whole, few, recipe, 0.7, Settings(seed=5, precision="float32"))

    def kill(epoch, values):
        if epoch == 3:
            raise KilledError

    path = tmp_path / "key.checkpoint"
    torn = network_of(few)
    with pytest.raises(KilledError):
        train_vae(
            torn,
            few,
            recipe,
            0.7,
            Settings(seed=5, precision="float32", checkpoint=Checkpoint(path, 0)),
            Hooks(on_epoch=kill),
        )
    asked, resumed = [], network_of(few)
    outcome = train_vae(
        resumed,
        few,
        recipe,
        0.7,
        Settings(seed=5, precision="float32", checkpoint=Checkpoint(path, 0)),
        Hooks(on_pictures=lambda epoch, shown: asked.append(epoch)),
    )
    assert torch.equal(flat(resumed), flat(whole))
    assert not torch.equal(flat(torn), flat(whole))
    assert outcome.curves == undisturbed.curves
    assert (outcome.resumed, undisturbed.resumed, asked) == (1, 0, [4])
    assert outcome.seconds > 0


def test_averaged_weights_are_what_is_judged(few):
    plain, averaged = network_of(few), network_of(few)
    train_vae(plain, few, RECIPE, 1.0, Settings(seed=0, precision="float32"))
    seen = []
    outcome = train_vae(
        averaged,
        few,
        RECIPE | {"average": 0.5},
        1.0,
        Settings(seed=0, precision="float32"),
        Hooks(on_pictures=lambda epoch, shown: seen.append(flat(shown))),
    )
    assert torch.equal(flat(averaged), seen[-1])
    assert not torch.equal(flat(averaged), flat(plain))
    judged = evaluate_vae(averaged, few.validation, 0, "float32").sum(1).mean()
    assert outcome.curves["validation_bpd"][-1] == pytest.approx(judged.item(), rel=1e-5)


def test_the_average_is_the_exponential_one(few):
    # One step an epoch: the weights after each are those of trainings stopped there, for the rate is constant.
    one = {"batch_size": len(few.train), "average": 0.0}
    after = []
    for epochs in (1, 2, 3):
        network = network_of(few)
        train_vae(network, few, RECIPE | one | {"epochs": epochs}, 1.0, Settings(seed=0, precision="float32"))
        after.append(flat(network))
    network = network_of(few)
    train_vae(network, few, RECIPE | one | {"epochs": 3, "average": 0.8}, 1.0, Settings(seed=0, precision="float32"))
    # The decay grows from 2/11 to its value, so that the first weights are let go.
    expected = flat(network_of(few))
    for step, weights in enumerate(after, 1):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(flat(network), expected, rtol=1e-5, atol=1e-6)


def test_the_schedule_is_followed(few):
    # At the peak of one-cycle a step is as long as under the constant rate; at the start it is 25 times shorter.
    one = {"batch_size": len(few.train), "epochs": 1}
    start = flat(network_of(few))
    moved = []
    for schedule in ("constant", "one-cycle"):
        network = network_of(few)
        train_vae(network, few, RECIPE | one | {"schedule": schedule}, 1.0, Settings(seed=0, precision="float32"))
        moved.append((flat(network) - start).norm().item())
    assert moved[0] / moved[1] == pytest.approx(25, rel=0.01)


@pytest.mark.parametrize("components", [0, 7])
def test_a_residual_vae_learns(data, components):
    model = ResidualVAE(filters=4, hidden=32, components=components)
    network = seeded(lambda: model.build(data.description, 4), 0)
    before = evaluate_vae(network, data.test, 0, "float32").sum(1).mean()
    train_vae(network, data, RECIPE | {"epochs": 4, "learning_rate": 0.003}, 1.0, Settings(seed=0, precision="float32"))
    assert before == pytest.approx(4, abs=0.3)
    assert evaluate_vae(network, data.test, 0, "float32").sum(1).mean() < 3


def test_an_autoencoder_has_no_rate_and_no_noise(few):
    network = network_of(few, Autoencoder(filters=2))
    train_vae(network, few, RECIPE, 1.0, Settings(seed=0, precision="float32"))
    parts = evaluate_vae(network, few.test, 0, "float32")
    assert (parts[:, 1] == 0).all()
    assert torch.equal(evaluate_vae(network, few.test, 1, "float32"), parts)


def test_the_last_step_may_break_a_training_too(few):
    # One step of the whole set: its loss is that of the first weights, and only validation sees what it did.
    recipe = RECIPE | {"epochs": 1, "batch_size": len(few.train), "learning_rate": 1e30}
    pictured = []
    with pytest.raises(TrainingDiverged, match="at step 1;"):
        train_vae(
            network_of(few),
            few,
            recipe,
            1.0,
            Settings(seed=0, precision="float32"),
            Hooks(on_pictures=lambda epoch, shown: pictured.append(epoch)),
        )
    assert pictured == [0]


def test_seconds_are_of_the_steps_alone(few):
    slow = time.perf_counter()
    outcome = train_vae(
        network_of(few),
        few,
        RECIPE | {"epochs": 1},
        1.0,
        Settings(seed=0, precision="float32"),
        Hooks(on_pictures=lambda epoch, shown: time.sleep(0.6), on_epoch=lambda epoch, values: time.sleep(0.6)),
    )
    assert outcome.seconds < time.perf_counter() - slow - 1.7


class Overflows(nn.Module):
    """A part of a model that is not finite from some step on."""

    def __init__(self, part, step):
        super().__init__()
        self.part, self.step, self.calls = part, step, 0

    def forward(self, x):
        self.calls += 1
        value = self.part(x)
        if self.calls <= self.step:
            return value
        return (value[0] * 1e25, value[1]) if isinstance(value, tuple) else value * math.inf


@pytest.mark.parametrize(
    ("part", "step", "message"),
    [
        ("encoder", 2, r"the loss, made of distortion .* and rate inf, is .* at step 2; bound the encoder's log-std"),
        (
            "decoder",
            2,
            r"the loss, made of distortion nan and rate [\d.e-]+, is nan at step 2; bound the decoder's logits",
        ),
        ("decoder", 0, r"at step 0; no step has changed a weight yet, so no learning_rate helps"),
    ],
)
def test_divergence_names_the_part_that_diverged_and_its_step(few, part, step, message):
    network = network_of(few)
    setattr(network, part, Overflows(getattr(network, part), step))
    recipe = RECIPE | {"epochs": 1, "batch_size": 16}
    with pytest.raises(TrainingDiverged, match=message):
        train_vae(network, few, recipe, 1.0, Settings(seed=0, precision="float32", compile="off"))
