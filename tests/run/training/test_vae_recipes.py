"""Options of a VAE's recipe: free bits, schedules of β, batches for the encoder alone, noise, clipping."""

from __future__ import annotations

import math

import pytest
import torch
from small import flat
from torch import Tensor, nn

from epsbench.harness.run.training.encoder_batches import EncoderBatches, with_noisy_input
from epsbench.harness.run.training.recipe import BETA_SCHEDULES, SCHEDULES
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Settings
from epsbench.harness.run.training.vae import bound_step, train_vae
from epsbench.models.generative import VAE, ResidualVAE
from epsbench.models.vae import VAENetwork, bits_per_dimension

RECIPE = {"epochs": 2, "batch_size": 64, "learning_rate": 5e-3, "schedule": "constant"}
ONE = torch.ones(())


def small(data, model=VAE(filters=4, levels=2), z_dim=2, seed=0) -> VAENetwork:  # noqa: B008
    return seeded(lambda: model.build(data.description, z_dim), seed)


def train(data, hooks=Hooks(), beta=1.0, **recipe):  # noqa: B008
    vae = small(data)
    training = train_vae(vae, data, RECIPE | recipe, beta, Settings(seed=0, precision="float32"), hooks)
    return vae, training


@pytest.mark.parametrize(
    ("name", "recipe", "shares"),
    [
        ("constant", {}, {0: 1, 3.5: 1, 10: 1}),
        ("warm-up", {"warm_up_epochs": 4}, {0: 0, 1: 0.25, 3: 0.75, 4: 1, 9: 1}),
        ("cyclical", {"epochs": 8, "beta_cycles": 2}, {0: 0, 1: 0.5, 2: 1, 3.9: 1, 4: 0, 5: 0.5, 7: 1}),
    ],
)
def test_the_share_of_beta(name, recipe, shares):
    share = BETA_SCHEDULES[name]
    assert {epoch: share(epoch, recipe) for epoch in shares} == pytest.approx(shares)


def test_a_cosine_starts_at_one_and_ends_near_zero():
    cosine = SCHEDULES["cosine"]
    assert [cosine(epoch, {"epochs": 4}) for epoch in (0, 2, 4)] == pytest.approx([1, 0.5, 0], abs=2e-5)


class Bound(nn.Module):
    """Has a distortion of 3 nats and a rate of ``rates`` nats for each of its images."""

    shape = (1, 1, 1)

    def __init__(self, rates: Tensor) -> None:
        super().__init__()
        self.rates = rates

    def elbo(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(self.rates, 3.0), self.rates


@pytest.mark.parametrize(("free_bits", "beta"), [(0.0, 1.0), (0.0, 0.5), (4.0, 0.5), (100.0, 2.0)])
def test_free_bits_in_closed_form(free_bits, beta):
    """A mean rate below the free bits costs as much as they do, and has no gradient."""
    rates = torch.tensor([1.0, 5.0], requires_grad=True)  # nats; their mean is 4.33 bits
    step = bound_step(Bound(rates), "float32", free_bits)
    loss, tracked = step(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1), torch.tensor(beta))
    rate = max(3.0, free_bits * math.log(2)) if free_bits else 3.0
    assert loss.item() == pytest.approx((3 + beta * rate) / math.log(2), rel=1e-6)
    assert tracked.tolist() == pytest.approx([6 / math.log(2), 3 / math.log(2), 3 / math.log(2)], rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, rates)
    expected = 0.0 if free_bits * math.log(2) > 3 else beta / 2 / math.log(2)
    assert gradient.tolist() == pytest.approx([expected] * 2)


def test_free_bits_keep_the_rate_from_collapsing(data):
    rates = {bits: train(data, beta=20.0, epochs=6, free_bits=bits)[1].curves["validation_rate_bpd"][-1] * 64
             for bits in (0.0, 6.0)}  # fmt: skip
    assert rates[0.0] < 1 < rates[6.0], "in bits an image"


def test_the_parts_of_the_bound_are_curves_and_add_up(data):
    _, training = train(data, epochs=3)
    curves = training.curves
    parts = zip(curves["validation_distortion_bpd"], curves["validation_rate_bpd"], strict=True)
    assert [sum(pair) for pair in parts] == pytest.approx(curves["validation_bpd"])


def test_beta_of_the_first_steps_is_that_of_the_schedule(data, monkeypatch):
    seen = []
    make = bound_step

    def spy(vae, precision, free_bits=0.0):
        step = make(vae, precision, free_bits)

        def watched(x, noise, beta):
            seen.append(beta.item())
            return step(x, noise, beta)

        return watched

    monkeypatch.setattr("epsbench.harness.run.training.vae.bound_step", spy)
    train(data, beta=2.0, beta_schedule="warm-up", warm_up_epochs=1.0)
    steps = len(data.train) // 64
    assert seen == pytest.approx([2 * min(1, step / steps) for step in range(2 * steps)])


@pytest.mark.parametrize("source", ["samples", "augmented", "both"])
@pytest.mark.parametrize("model", [VAE(filters=4, levels=2), ResidualVAE(filters=4, hidden=8, components=3, levels=2)])
def test_only_the_encoder_learns_from_its_own_batches(data, source, model):
    vae = small(data, model).train()
    batches = EncoderBatches(vae, source, torch.Generator().manual_seed(0), "float32")
    batches.loss(data.train.pixels(slice(0, 16)), ONE).backward()
    with_gradient = {name for name, weight in vae.named_parameters() if weight.grad is not None}
    assert with_gradient == {name for name, _ in vae.named_parameters() if name.startswith("encoder.")}


def test_the_encoders_batches_see_the_decoder_of_the_moment(data):
    """After an optimizer's step, and after weights were replaced, the loss is that of the new decoder."""
    vae = small(data).train()
    x = data.train.pixels(slice(0, 16))

    def loss(network):
        batches = made if network is vae else EncoderBatches(network, "augmented", torch.Generator(), "float32")
        batches._generator.manual_seed(3)
        return batches.loss(x, ONE).item()

    made = EncoderBatches(vae, "augmented", torch.Generator(), "float32")
    before = loss(vae)
    other = small(data, seed=1)
    vae.load_state_dict(other.state_dict())
    assert loss(vae) == loss(other) != before
    for module in vae.modules():  # as a change of the memory format does
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                module._parameters[name] = nn.Parameter(2 * weight.detach())
                weight.data = torch.zeros(0)
    third = small(data, seed=1)
    for weight in third.parameters():
        weight.data *= 2
    assert loss(vae) == pytest.approx(loss(third))


@pytest.mark.parametrize("source", ["samples", "augmented", "both"])
def test_an_encoder_gets_better_posteriors_for_new_images_from_batches_of_its_own(data, source):
    """With the decoder as it is: the bound of test images, after steps of the encoder on other images only."""
    vae, _ = train(data, epochs=15, beta=0.2, learning_rate=2e-2)
    generator = torch.Generator().manual_seed(0)
    decoder = flat(vae.decoder).clone()

    def bound() -> float:
        x = data.test.pixels()
        noise = torch.randn(len(x), 2, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            distortion, rate = vae.elbo(x, noise)
        return bits_per_dimension((distortion + rate).mean(), vae.shape).item()

    seeded(lambda: [layer.reset_parameters() for layer in (vae.encoder.mean, vae.encoder.log_std)], 5)
    before, batches = bound(), EncoderBatches(vae.train(), source, generator, "float32")
    optimizer = torch.optim.Adam(vae.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        batches.loss(data.train.pixels(slice(0, 64)), ONE).backward()
        optimizer.step()
    assert bound() < before - 0.1
    assert torch.equal(flat(vae.decoder), decoder)


@pytest.mark.parametrize("deviation", [0.0, 0.25])
def test_noise_reaches_the_encoder_and_not_the_target(data, deviation):
    vae = small(data)
    seen = []
    vae.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    noisy = with_noisy_input(vae, deviation, torch.Generator().manual_seed(0))
    x, noise = data.train.pixels(slice(0, 512)), torch.zeros(512, 2)
    vae.elbo(x, noise)
    noisy.elbo(x, noise)
    clean, given = seen
    assert (given - clean).std().item() == pytest.approx(2 * deviation, rel=0.02)
    assert [weight is other for weight, other in zip(vae.parameters(), noisy.parameters(), strict=True)]
    assert torch.equal(flat(vae.decoder), flat(noisy.decoder))


def test_clipping_bounds_the_step_of_plain_descent(data):
    """Without momentum a step is rate · gradient, so it is at most rate · clip long."""
    rate, clip = 0.5, 1e-3
    vae = small(data)
    first = flat(vae).clone()
    recipe = RECIPE | {"epochs": 1, "optimizer": "sgd", "momentum": 0.0, "learning_rate": rate, "clip": clip}
    train_vae(vae, data, recipe, 1.0, Settings(seed=0, precision="float32"))
    steps = len(data.train) // 64
    length = (flat(vae) - first).norm().item()
    assert 0.2 * steps * rate * clip < length <= steps * rate * clip * 1.001


def test_samples_are_drawn_after_the_epochs_that_the_recipe_names(data):
    drawn = []
    hooks = Hooks(on_pictures=lambda epoch, network: drawn.append(epoch))
    train(data, hooks, epochs=4, sample_epochs=(1, 3))
    assert drawn == [1, 3, 4]
