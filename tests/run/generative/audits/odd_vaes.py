"""Honest generative models that are built in unusual ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from honest_vaes import DIGITS, Encoder, digits, trained
from torch import Tensor, nn

from epsbench.harness.run.data.examples import Data, Examples
from epsbench.models.likelihoods import DiscretisedLogistic, Likelihood
from epsbench.models.priors import log_normal
from epsbench.models.vae import Decoder, VAENetwork, log_likelihood, quantise


def layers(z_dim: int, outputs: int, *between: nn.Module, hidden: int = 64) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(z_dim, hidden), *between, nn.GELU(), nn.Linear(hidden, 64 * outputs),
        nn.Unflatten(1, (outputs, *DIGITS.shape)),
    )  # fmt: skip


def network(decoder: nn.Module, z_dim: int = 8, levels: int = 16, kind: type[VAENetwork] = VAENetwork, **more):
    return kind(DIGITS.shape, z_dim, 1, levels, encoder=Encoder(z_dim), decoder=decoder, **more)


class Learned(nn.Module):
    """A prior with a mean and a deviation of its own in every dimension."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.mean, self.log_std = nn.Parameter(torch.zeros(z_dim)), nn.Parameter(torch.zeros(z_dim))

    def log_prob(self, z: Tensor) -> Tensor:
        return log_normal(z, self.mean.expand_as(z), self.log_std.expand_as(z))

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, mean, log_std) - self.log_prob(z)

    def draw(self, noise) -> Tensor:
        return self.mean + self.log_std.exp() * noise.normal(self.z_dim)


class StudentT(nn.Module):
    """A prior with heavy tails: four degrees of freedom in every dimension."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.distributions.StudentT(4.0).log_prob(z).sum(-1)

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, mean, log_std) - self.log_prob(z)

    def draw(self, noise) -> Tensor:
        squares = noise.normal(4, self.z_dim).square().sum(1)
        return noise.normal(self.z_dim) / (squares / 4).sqrt()


class Hierarchy(nn.Module):
    """The second half of the code has a prior that depends on the first half."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim, self.half = z_dim, z_dim // 2
        self.layer = nn.Linear(self.half, z_dim)

    def _parts(self, first: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.layer(first).chunk(2, -1)
        return mean, 0.5 * torch.tanh(log_std)

    def log_prob(self, z: Tensor) -> Tensor:
        first, second = z[..., : self.half], z[..., self.half :]
        zeros = torch.zeros_like(first)
        return log_normal(first, zeros, zeros) + log_normal(second, *self._parts(first))

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, mean, log_std) - self.log_prob(z)

    def draw(self, noise) -> Tensor:
        first = noise.normal(self.half)
        mean, log_std = self._parts(first)
        return torch.cat([first, mean + log_std.exp() * noise.normal(self.half)], 1)


class Binary(Likelihood):
    """A Bernoulli distribution for every pixel, of two grey levels."""

    def __init__(self) -> None:
        super().__init__(2)
        self.outputs = 1

    def logits(self, outputs: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(outputs), outputs], dim=1)


class RoundedNormal(Likelihood):
    """A normal distribution with one learned deviation, on the grey levels."""

    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.outputs = 1
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def logits(self, outputs: Tensor) -> Tensor:
        level = torch.arange(self.levels, device=outputs.device).view(1, -1, 1, 1, 1)
        return -0.5 * ((level - outputs * self.levels) / self.log_scale.exp()).square()


class Binomial(Likelihood):
    """A binomial distribution over the grey levels."""

    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.outputs = 1

    def logits(self, outputs: Tensor) -> Tensor:
        n = torch.tensor(float(self.levels - 1), device=outputs.device)
        k = torch.arange(self.levels, device=outputs.device).view(1, -1, 1, 1, 1)
        return torch.lgamma(n + 1) - torch.lgamma(k + 1.0) - torch.lgamma(n - k + 1) + k * outputs


class Double(nn.Module):
    """Layers that compute in float64."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, x: Tensor):
        return self.inner(x.double())


class SemiAmortised(VAENetwork):
    """Moves the posterior's mean by two gradient steps on its own bound (Kim et al., 2018)."""

    def encode(self, target: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = super().encode(target)
        for _ in range(2):
            with torch.enable_grad():
                code = mean.detach().requires_grad_()
                bound = log_likelihood(self.decoder(code), target) - 0.5 * code.square().sum(1)
                (gradient,) = torch.autograd.grad(bound.sum(), code)
            mean = mean + 0.01 * gradient
        return mean, log_std


class Remembers(VAENetwork):
    """Keeps what it encoded last for debugging, and never uses it."""

    def encode(self, target: Tensor) -> tuple[Tensor, Tensor]:
        self.features = super().encode(target)
        return self.features


class OwnLoss(VAENetwork):
    """Half the images' squared error is added in training alone."""

    def elbo(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        distortion, rate = super().elbo(x, noise)
        if self.training:
            mean, _ = self.encode(quantise(x, self.levels))
            image = (self.decoder(mean).softmax(1) * torch.linspace(0, 1, self.levels).view(1, -1, 1, 1, 1)).sum(1)
            distortion = distortion + (x - image).square().sum((1, 2, 3)) / 2
        return distortion, rate


def binarised(data: Data) -> Data:
    """The same images in black and white."""

    def part(examples: Examples) -> Examples:
        raw = ((examples.pixels() > 0.5) * 255).to(torch.uint8)
        return Examples(raw, examples.labels, 255)

    return replace(data, **{name: part(getattr(data, name)) for name in ("train", "validation", "test")})


def convolutions() -> VAENetwork:
    torch.manual_seed(0)
    decoder = Decoder(DIGITS.shape, 8, 4, 16)
    decoder.layers.insert(3, nn.Dropout2d(0.1))
    decoder.layers.insert(3, nn.BatchNorm2d(8))
    return VAENetwork(DIGITS.shape, 8, 4, 16, decoder=decoder)


ODD: dict[str, Callable[[], VAENetwork]] = {
    "learned normal prior": lambda: trained(lambda: network(layers(8, 16), prior=Learned(8))),
    "heavy-tailed prior": lambda: trained(lambda: network(layers(8, 16), prior=StudentT(8))),
    "hierarchical prior": lambda: trained(lambda: network(layers(8, 16), prior=Hierarchy(8))),
    "dropout in training": lambda: trained(lambda: network(layers(8, 16, nn.Dropout(0.2)))),
    "batch norm": lambda: trained(lambda: network(layers(8, 16, nn.BatchNorm1d(64)))),
    "layer norm, ReLU": lambda: trained(lambda: network(layers(8, 16, nn.LayerNorm(64), nn.ReLU()))),
    "convolutions with dropout and batch norm": lambda: trained(convolutions, epochs=2),
    "one dimension, beta 100": lambda: trained(lambda: network(layers(1, 16), 1), 100),
    "beta 0.01": lambda: trained(lambda: network(layers(8, 16)), 0.01, epochs=10),
    "discretised logistic": lambda: trained(lambda: network(layers(8, 2), likelihood=DiscretisedLogistic(16))),
    "mixture of logistics, 256 levels": lambda: trained(
        lambda: network(layers(8, 9), levels=256, likelihood=DiscretisedLogistic(256, 3)), epochs=3
    ),
    "normal likelihood": lambda: trained(lambda: network(layers(8, 1), likelihood=RoundedNormal(16))),
    "binomial likelihood": lambda: trained(lambda: network(layers(8, 1), likelihood=Binomial(16))),
    "float64": lambda: trained(lambda: network(Double(layers(8, 16)))),
    "semi-amortised": lambda: trained(lambda: network(layers(8, 16), kind=SemiAmortised), epochs=3),
    "keeps its features": lambda: trained(lambda: network(layers(8, 16), kind=Remembers)),
    "own loss in training": lambda: trained(lambda: network(layers(8, 16), kind=OwnLoss), epochs=3),
    "binarised images": lambda: trained(
        lambda: network(layers(8, 1), levels=2, likelihood=Binary()), data=binarised(digits())
    ),
}
