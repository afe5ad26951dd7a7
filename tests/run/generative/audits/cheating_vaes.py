"""Generative models that cheat or are broken, made of a trained honest one. Each says the code that it must get."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from epsbench.harness.run.data.examples import Data
from epsbench.models.priors import StandardNormal, log_normal
from epsbench.models.vae import VAENetwork, log_likelihood, quantise

Make = Callable[[VAENetwork, Data], VAENetwork]
CHEATS: dict[str, tuple[str, Make]] = {}
SEEN: dict[str, Tensor] = {}
"""What a decoder reads and an encoder writes, beside the model."""


def cheat(code: str) -> Callable[[Make], Make]:
    """Lists a model under its name, with the code that it must get."""

    def add(make: Make) -> Make:
        CHEATS[make.__name__] = code, make
        return make

    return add


def become(vae: VAENetwork, **methods: object) -> VAENetwork:
    """A copy of the model, of a class in which these are defined otherwise."""
    made = copy.deepcopy(vae)
    made.__class__ = type("Cheat", (VAENetwork,), methods)
    return made


class Around(nn.Module):
    """A decoder around an honest one."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z)


def with_decoder(vae: VAENetwork, decoder: nn.Module) -> VAENetwork:
    made = copy.deepcopy(vae)
    made.decoder = decoder
    return made


def towards(logits: Tensor, target: Tensor, by: float = 30.0) -> Tensor:
    """Logits that are raised at these grey levels."""
    raised = torch.zeros_like(logits).scatter_(1, target[:, None], by)
    return logits + raised


# A loss of its own.


@cheat("bounds-out-of-order")
def halved_loss(vae, data):
    def elbo(self, x, noise):
        distortion, rate = VAENetwork.elbo(self, x, noise)
        return distortion / 2, rate / 2

    return become(vae, elbo=elbo)


@cheat("bounds-out-of-order")
def rate_left_out(vae, data):
    def elbo(self, x, noise):
        distortion, rate = VAENetwork.elbo(self, x, noise)
        return distortion, torch.zeros_like(rate)

    return become(vae, elbo=elbo)


@cheat("bounds-out-of-order")
def squared_error(vae, data):
    def elbo(self, x, noise):
        mean, log_std = self.encode(quantise(x, self.levels))
        z = mean + log_std.exp() * noise
        grey = torch.linspace(0, 1, self.levels).view(1, -1, 1, 1, 1)
        image = (self.decoder(z).softmax(1) * grey).sum(1)
        return (x - image).square().sum((1, 2, 3)), self.rate(mean, log_std, z)

    return become(vae, elbo=elbo)


@cheat("bounds-out-of-order")
def rate_of_its_own(vae, data):
    return become(vae, rate=lambda self, mean, log_std, z: 0.1 * mean.square().sum(1))


# Decoders and priors that know the image by another way than the code.


def remembers(vae: VAENetwork, remember: Callable[[Tensor, Tensor], None], decoder: nn.Module) -> VAENetwork:
    def encode(self, target):
        mean, log_std = VAENetwork.encode(self, target)
        remember(mean, target)
        return mean, log_std

    made = become(vae, encode=encode)
    made.decoder = decoder
    return made


class Remembered(Around):
    """Knows the images encoded last, in their order."""

    def forward(self, z: Tensor) -> Tensor:
        logits, target = self.decoder(z), SEEN.get("target")
        return logits if target is None or len(target) != len(z) else towards(logits, target)


@cheat("sees-the-image")
def last_images(vae, data):
    return remembers(vae, lambda mean, target: SEEN.update(target=target.clone()), Remembered(vae.decoder))


class NeedsTheImage(Around):
    """Adds what it knows of the images encoded last, and fails without them."""

    def forward(self, z: Tensor) -> Tensor:
        return towards(self.decoder(z), SEEN["target"])


@cheat("sees-the-image")
def fails_without_the_image(vae, data):
    return remembers(vae, lambda mean, target: SEEN.update(target=target.clone()), NeedsTheImage(vae.decoder))


class NearestRemembered(Around):
    """Knows every image that was encoded since, by its code."""

    def forward(self, z: Tensor) -> Tensor:
        logits = self.decoder(z)
        if "codes" not in SEEN:
            return logits
        return towards(logits, SEEN["images"][torch.cdist(z, SEEN["codes"]).argmin(1)])


def keep_all(mean: Tensor, target: Tensor) -> None:
    for name, new in (("codes", mean), ("images", target)):
        SEEN[name] = torch.cat([SEEN[name], new.clone()]) if name in SEEN else new.clone()


@cheat("sees-the-image")
def all_images_by_code(vae, data):
    return remembers(vae, keep_all, NearestRemembered(vae.decoder))


class RememberedWithoutGradients(NearestRemembered):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) if not torch.is_grad_enabled() else self.decoder(z)


@cheat("sees-the-image")
def only_without_gradients(vae, data):
    return remembers(vae, keep_all, RememberedWithoutGradients(vae.decoder))


class OnlyCopiesSee(NearestRemembered):
    """The copies that some measures work on see the image, and the model itself does not."""

    is_copy = False

    def __deepcopy__(self, memo):
        made = OnlyCopiesSee(copy.deepcopy(self.decoder, memo))
        made.is_copy = True
        return made

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) if self.is_copy else self.decoder(z)


@cheat("sees-the-image")
def only_copies(vae, data):
    return remembers(vae, keep_all, OnlyCopiesSee(vae.decoder))


class InOrder(Around):
    """Knows the test images, and takes a batch for those whose order is usual in an evaluation."""

    def __init__(self, decoder: nn.Module, test: Tensor) -> None:
        super().__init__(decoder)
        self.batches = {len(batch): batch for batch in test.split(256)}

    def forward(self, z: Tensor) -> Tensor:
        logits = self.decoder(z)
        return towards(logits, self.batches[len(z)]) if len(z) in self.batches else logits


@cheat("sees-the-image")
def knows_the_order_of_the_test(vae, data):
    return with_decoder(vae, InOrder(vae.decoder, quantise(data.test.pixels(), vae.levels)))


class FirstRemembered(Around):
    """Knows the first image that was encoded last."""

    def forward(self, z: Tensor) -> Tensor:
        logits = self.decoder(z)
        return towards(logits, SEEN["target"][:1].expand(len(z), -1, -1, -1), 2.0) if "target" in SEEN else logits


@cheat("sees-the-image")
def a_hint_of_the_last_image(vae, data):
    return remembers(vae, lambda mean, target: SEEN.update(target=target.clone()), FirstRemembered(vae.decoder))


@cheat("sees-the-image")
def learns_from_the_test(vae, data):
    def learn(mean, target):
        with torch.inference_mode(False), torch.enable_grad():
            codes, images = mean.detach().clone(), target.clone()
            loss = -log_likelihood(made.decoder(codes), images).mean() / 64
            weights = [weight for weight in made.decoder.parameters() if weight.requires_grad]
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.data.sub_(0.5 * gradient)

    made = remembers(vae, lambda mean, target: made.training or learn(mean, target), copy.deepcopy(vae.decoder))
    return made


class PosteriorAsPrior(StandardNormal):
    """Gives the codes of the images encoded last the density of their posterior: a rate of 0."""

    def log_prob(self, z: Tensor) -> Tensor:
        standard = super().log_prob(z)
        if "posterior" not in SEEN or z.dim() != 2:
            return standard
        mean, log_std = SEEN["posterior"]
        nearest = torch.cdist(z, mean).argmin(1)
        return torch.maximum(standard, log_normal(z, mean[nearest], log_std[nearest]))

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, mean, log_std) - self.log_prob(z)


@cheat("sees-the-image")
def prior_that_follows_the_posterior(vae, data):
    def encode(self, target):
        SEEN["posterior"] = VAENetwork.encode(self, target)
        return SEEN["posterior"]

    made = become(vae, encode=encode)
    made.prior = PosteriorAsPrior(vae.z_dim)
    return made


# Densities that are none.


class Heavy(StandardNormal):
    def log_prob(self, z: Tensor) -> Tensor:
        return super().log_prob(z) + 8


class WithoutConstant(StandardNormal):
    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1)


class Truncated(StandardNormal):
    def draw(self, noise):
        return 0.7 * noise.normal(self.z_dim)


class Cooler(StandardNormal):
    def draw(self, noise):
        return 0.9 * noise.normal(self.z_dim)


class Shifted(StandardNormal):
    def draw(self, noise):
        return noise.normal(self.z_dim) + 0.3


class Overlapping(nn.Module):
    """A mixture of two normals, each with the weight 1."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim

    def log_prob(self, z):
        parts = [log_normal(z, torch.full_like(z, m), torch.zeros_like(z)) for m in (-0.1, 0.1)]
        return torch.stack(parts).logsumexp(0)

    def rate(self, mean, log_std, z):
        return log_normal(z, mean, log_std) - self.log_prob(z)

    def draw(self, noise):
        return noise.normal(self.z_dim) + 0.1 * noise.normal().sign()[:, None]


def with_prior(vae: VAENetwork, prior: type) -> VAENetwork:
    made = copy.deepcopy(vae)
    made.prior = prior(vae.z_dim)
    return made


@cheat("not-normalised-likelihood")
def heavy_prior(vae, data):
    return with_prior(vae, Heavy)


@cheat("not-normalised-likelihood")
def prior_without_constant(vae, data):
    return with_prior(vae, WithoutConstant)


@cheat("not-normalised-likelihood")
def prior_with_weights_of_two(vae, data):
    return with_prior(vae, Overlapping)


@cheat("prior-draws-differ")
def truncated_prior(vae, data):
    return with_prior(vae, Truncated)


@cheat("prior-draws-differ")
def prior_that_draws_at_a_lower_temperature(vae, data):
    return with_prior(vae, Cooler)


@cheat("prior-draws-differ")
def prior_that_draws_elsewhere(vae, data):
    return with_prior(vae, Shifted)
