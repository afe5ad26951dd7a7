"""The variance of three estimates of the encoder's gradient, which shows why the reparameterisation trick is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from epsbench.harness.records import Metric
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.noise import KeyedNoise
from epsbench.harness.run.training.sliced import sliced_convolutions
from epsbench.models.vae import VAENetwork, quantise

IMAGES = 128


class Moments:
    """Mean and total variance of vectors that are added one at a time, in float64 (Welford, 1962)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, vector: Tensor) -> None:
        """Add a vector (d,)."""
        vector = vector.double()
        self.n += 1
        before = vector - self.mean
        self.mean = self.mean + before / self.n
        self._squares = self._squares + before.dot(vector - self.mean)

    def trace(self) -> float:
        """Trace of the covariance of the vectors: the sum of their entries' unbiased variances."""
        if self.n < 2:
            raise ValueError(f"a variance needs at least 2 vectors, not {self.n}")
        return float(self._squares) / (self.n - 1)


def gradient_moments(
    parameters: Sequence[Tensor],
    posterior: Posterior,
    log_joint: Callable[[Tensor], Tensor],
    noise: Callable[[int], Tensor],
    draws: int,
    advance: Advance = lambda n: None,
) -> dict[str, Moments]:
    """Mean and variance, over ``draws``, of three estimates of the gradient of the mean ELBO in nats.

    The mean is over N images. The gradient is with respect to ``parameters``; ``posterior`` was computed from them, and
    its graph is attached. Let f(z) = log p(x, z) − log q(z|x), where ``log_joint`` returns the first term in nats (N,)
    for z (N, z_dim), and z = μ + σ·noise with standard normal ``noise(draw)`` (N, z_dim). The estimates of a draw are

    - ``reparameterised``: ∇f(μ + σ·noise), through z and through q (Kingma and Welling, 2014);
    - ``score``: f(z) ∇log q(z|x) with z fixed (REINFORCE: Williams, 1992). The whole gradient has a second term,
      −∇log q(z|x) from inside f, whose expectation is 0; it is left out, as is usual;
    - ``score_baseline``: (f(z) − b) ∇log q(z|x), where b is the mean of f over the image's other draws. So b is
      independent of z, and the estimate stays unbiased. Draws are not independent of each other because of b: the
      variance is too small by the squared gradient over (draws − 1)², which is negligible.

    ``advance`` is called with numbers of draws, 2·``draws`` in all.

    Raises `ValueError` for fewer than 2 draws.
    """
    if draws < 2:
        raise ValueError(f"a variance needs at least 2 draws, not {draws}")

    def bound(z: Tensor) -> Tensor:
        return log_joint(z) - posterior.log_prob(z)

    with torch.no_grad():
        total = torch.zeros(len(posterior), dtype=torch.float64, device=posterior.mean.device)
        for draw in range(draws):
            total += bound(posterior.draw(noise(draw)))
            advance(1)

    moments = {name: Moments() for name in ("reparameterised", "score", "score_baseline")}
    for draw in range(draws):
        z = posterior.draw(noise(draw))
        value = bound(z)
        f, log_q = value.detach(), posterior.log_prob(z.detach())
        others = ((total - f) / (draws - 1)).to(f.dtype)
        surrogates = {"reparameterised": value, "score": f * log_q, "score_baseline": (f - others) * log_q}
        for name, surrogate in surrogates.items():
            gradient = torch.autograd.grad(surrogate.mean(), parameters, retain_graph=True)
            moments[name].add(torch.cat([part.flatten() for part in gradient]))
        advance(1)
    return moments


def estimators(
    vae: VAENetwork, examples: Examples, draws: int, seed: int, advance: Advance = lambda n: None
) -> Measured:
    """The trace of the covariance of each estimate of the encoder's gradient, over draws of the noise.

    The batch is the first 128 examples for every draw, so the choice of images adds no variance. ``advance`` is called
    with numbers of draws, 2·``draws`` in all. ``vae`` is left as it was.
    """
    network = copy_of(vae).eval().requires_grad_(False)
    network.encoder.requires_grad_(True)
    target = quantise(examples.pixels(slice(0, IMAGES)), network.levels)
    image = torch.arange(len(target), device=target.device)

    def log_joint(z: Tensor) -> Tensor:
        return network.log_likelihood(z, target) + network.prior.log_prob(z)

    with sliced_convolutions(network.encoder, target.device):
        posterior = Posterior(*network.encode(target))
    moments = gradient_moments(
        list(network.encoder.parameters()),
        posterior,
        log_joint,
        lambda draw: KeyedNoise(seed, image, torch.full_like(image, draw)).normal(network.z_dim),
        draws,
        advance,
    )
    return Measured({f"{name}_gradient_variance": Metric(value=m.trace(), n=m.n) for name, m in moments.items()})
