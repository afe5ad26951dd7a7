"""A variational autoencoder with a likelihood over grey levels (Kingma & Welling, 2014)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from epsbench.models.likelihoods import Categorical, Likelihood
from epsbench.models.likelihoods import log_likelihood as log_likelihood
from epsbench.models.priors import Draws, GeneratorNoise, Prior, StandardNormal, log_normal


class Encoder(nn.Module):
    """Three stride-2 convolutions with two plain ones between, and linear heads for mean and log-std."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, filters: int) -> None:
        super().__init__()
        channels, c = shape[0], filters
        height, width = halvings(shape)[-1]
        self.layers = nn.Sequential(
            nn.Conv2d(channels, c, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
        )
        self.mean = nn.Linear(2 * c * height * width, z_dim)
        self.log_std = nn.Linear(2 * c * height * width, z_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [−1, 1] to the mean and log-std of q(z|x), each (N, z_dim)."""
        features = self.layers(x)
        return self.mean(features), self.log_std(features)


class Decoder(nn.Module):
    """The encoder in reverse, with transposed convolutions; its last layer gives ``outputs`` numbers a pixel."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, filters: int, outputs: int) -> None:
        super().__init__()
        channels, c = shape[0], filters
        full, half, quarter, eighth = halvings(shape)
        self.layers = nn.Sequential(
            nn.Linear(z_dim, 2 * c * eighth[0] * eighth[1]),
            nn.GELU(),
            nn.Unflatten(1, (2 * c, *eighth)),
            _doubling(2 * c, 2 * c, eighth, quarter),
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, 3, padding=1),
            nn.GELU(),
            _doubling(2 * c, c, quarter, half),
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.GELU(),
            _doubling(c, outputs * channels, half, full),
            nn.Unflatten(1, (outputs, channels)),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Latents (N, z_dim) to what the likelihood takes (N, outputs, C, H, W), such as logits of grey levels."""
        return self.layers(z)


class VAENetwork(nn.Module):
    """An encoder, a decoder and a prior, and the evidence lower bound that they give.

    The posterior is a diagonal normal. The likelihood of every pixel (and colour) is categorical over ``levels`` grey
    levels, and the prior standard normal, unless others are given. All values are in nats, and every likelihood and KL
    is computed in float32.

    With ``deterministic`` it is a plain autoencoder: z is the posterior's mean and the rate is 0, so the distortion is
    no bound of the likelihood.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        z_dim: int = 20,
        filters: int = 32,
        levels: int = 16,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.z_dim, self.levels, self.deterministic = shape, z_dim, levels, deterministic
        self.encoder = encoder or Encoder(shape, z_dim, filters)
        self.likelihood = likelihood or Categorical(levels)
        self.decoder = decoder or Decoder(shape, z_dim, filters, self.likelihood.outputs)
        self.prior = prior or StandardNormal(z_dim)

    def encode(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std of q(z|x), float32 (N, z_dim), for grey levels ``target`` (N, C, H, W).

        Raises `TypeError` for floats: images in [0, 1] would be taken for levels, and be almost black.
        """
        if target.is_floating_point():
            raise TypeError("encode takes grey levels, not floats; give epsbench.models.vae.quantise(x, vae.levels)")
        mean, log_std = self.encoder(rescale(target, self.levels) * 2 - 1)
        return mean.float(), log_std.float()

    def elbo(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Distortion −log p(x|z) and rate KL(q(z|x) ‖ p(z)), each (N,) in nats; their sum is the negative ELBO.

        ``x`` is (N, C, H, W) in [0, 1]; ``noise`` (N, z_dim) is standard normal: z = μ + σ·noise. Under a prior
        without a closed form the rate is its estimate from this one z.
        """
        target = quantise(x, self.levels)
        mean, log_std = self.encode(target)
        if self.deterministic:
            return -self.log_likelihood(mean, target), torch.zeros_like(mean[:, 0])
        z = mean + log_std.exp() * noise
        return -self.log_likelihood(z, target), self.rate(mean, log_std, z)

    def log_likelihood(self, z: Tensor, target: Tensor) -> Tensor:
        """log p(x|z) in nats (N,) of grey levels ``target`` (N, C, H, W)."""
        return self.likelihood.log_prob(self.decoder(z), target)

    def logits(self, z: Tensor) -> Tensor:
        """Logits of the grey levels of every pixel under p(x|z): (N, levels, C, H, W)."""
        return self.likelihood.logits(self.decoder(z))

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        """KL(N(μ, σ²) ‖ prior) in nats (N,), estimated from ``z`` where there is no closed form."""
        if not hasattr(self.prior, "rate"):  # one of the user's own
            return log_normal(z, mean, log_std) - self.prior.log_prob(z)
        return self.prior.rate(mean, log_std, z)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean image of p(x|z) at the posterior's mean: (N, C, H, W) in [0, 1].

        Raises `TypeError` and `ValueError` for ``x`` that is not such a tensor.
        """
        mean, _ = self.encode(self._levels_of(x))
        return self.mean_image(mean)

    @torch.no_grad()
    def mean_image(self, z: Tensor) -> Tensor:
        """The expected pixel under p(x|z), for latents (N, z_dim): (N, C, H, W) in [0, 1]."""
        grey = torch.linspace(0, 1, self.levels, device=z.device).view(1, -1, 1, 1, 1)
        return (self.logits(z).float().softmax(1) * grey).sum(1)

    @torch.no_grad()
    def draw(self, noise: Draws) -> Tensor:
        """Latents from the prior: (N, z_dim)."""
        return self.prior.draw(noise)

    @torch.no_grad()
    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images drawn pixel by pixel from p(x|z), for latents (N, z_dim): (N, C, H, W) in [0, 1]."""
        probabilities = self.logits(z).float().softmax(1)
        levels = torch.multinomial(probabilities.movedim(1, -1).reshape(-1, self.levels), 1, generator=generator)
        return rescale(levels.view(len(z), *self.shape), self.levels)

    @torch.no_grad()
    def generate(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` images from the model, z from its prior and pixels from p(x|z): (n, C, H, W) in [0, 1]."""
        device = next(self.parameters()).device
        return self.sample(self.draw(GeneratorNoise(n, generator, device)), generator)

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, steps: int = 8) -> Tensor:
        """Mean images on straight lines through the latent space from ``a`` to ``b``, both (N, C, H, W).

        They lead from one posterior mean to the other, both included: (N, steps, C, H, W) in [0, 1]. Raises
        `TypeError` and `ValueError` for anything but as many images in both.
        """
        if len(a) != len(b):
            raise ValueError(f"each line has two ends: give as many images in b as in a, not {len(a)} and {len(b)}")
        start, end = (self.encode(self._levels_of(x))[0].unsqueeze(1) for x in (a, b))
        z = torch.lerp(start, end, torch.linspace(0, 1, steps, device=start.device)[:, None])
        return self.mean_image(z.flatten(0, 1)).unflatten(0, (len(a), steps))

    def _levels_of(self, x: Tensor) -> Tensor:
        """The grey levels of images that a caller hands over, which may be anything."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"images are a tensor of floating-point numbers in [0, 1], not {kind}")
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(f"images have the shape (N, {', '.join(map(str, self.shape))}), not {tuple(x.shape)}")
        if len(x) and not (float(x.min()) >= 0 and float(x.max()) <= 1):
            raise ValueError(f"images lie in [0, 1], and these from {float(x.min()):.3g} to {float(x.max()):.3g}")
        return quantise(x, self.levels)


def quantise(x: Tensor, levels: int) -> Tensor:
    """Grey levels floor(levels·x), int64, at most levels − 1, so that x = 1 is the last level."""
    return (x * levels).long().clamp_(0, levels - 1)


def rescale(target: Tensor, levels: int) -> Tensor:
    """Grey levels 0 to levels − 1 as pixels in [0, 1]."""
    return target.float() / (levels - 1)


def bits_per_dimension(nats: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Nats an image as bits a pixel (and colour)."""
    return nats / (math.prod(shape) * math.log(2))


def halvings(shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Height and width before and after each of the three stride-2 convolutions."""
    sizes = [(shape[1], shape[2])]
    for _ in range(3):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def _doubling(inputs: int, outputs: int, before: tuple[int, int], after: tuple[int, int]) -> nn.ConvTranspose2d:
    """A 3×3 transposed convolution of stride 2, from the size ``before`` to the size ``after``, even or odd."""
    padding = (after[0] - 2 * before[0] + 1, after[1] - 2 * before[1] + 1)
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=padding)
