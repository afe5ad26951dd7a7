"""Whether the gradient of the decoder is its derivative: refined posteriors and gradient estimators follow it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.posterior import encode
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.vae import VAENetwork, quantise

IMAGES = 16
STREAM = -3  # of the keyed noise: another one than that of the measures
STEPS = (0.3, 0.1, 0.03)  # in units of the posterior's deviation
ROUNDING = 2e-5  # of the log-likelihood: what float32 may move
WRONG = 0.5  # of the rise that the gradient promises
SHARE = 0.5  # of the images that can be judged
FEWEST = 8


def audit_gradient(vae: VAENetwork, test: Examples, seed: int) -> Iterator[Finding]:
    """A finding if log p(x|z) does not rise along its gradient in z as the gradient promises.

    At codes drawn from posteriors of test images, differences along the gradient are compared with its length, at three
    step lengths; the one that agrees best counts. Where the gradient is zero, the direction is a random one.
    """
    images = test[slice(0, min(IMAGES, len(test)))]
    posterior = encode(vae, images)
    target = quantise(images.pixels(), vae.levels)
    row = torch.arange(len(images), device=images.device)
    noise = KeyedNoise(seed, row, torch.full_like(row, STREAM))
    z = (posterior.mean if vae.deterministic else posterior.draw(noise.normal(vae.z_dim))).detach()
    gradient = _gradient(vae, z, target)
    length = gradient.norm(dim=1, keepdim=True)
    random = torch.nn.functional.normalize(noise.normal(vae.z_dim), dim=1)
    direction = torch.where(length > 0, gradient / length.clamp_min(1e-30), random)
    scale = posterior.log_std.exp().mean(1, keepdim=True) if not vae.deterministic else z.std().expand(len(z), 1)
    best = torch.full((len(z),), torch.inf, dtype=torch.float64, device=z.device)
    judged = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    with torch.no_grad():
        for step in STEPS:
            move = step * scale * direction
            up, down = (vae.log_likelihood(code, target).double() for code in (z + move, z - move))
            promised = 2 * step * (scale * length)[:, 0].double()
            allowed = ROUNDING * (up.abs() + down.abs())
            larger = torch.maximum((up - down).abs(), promised)
            seen = larger > 10 * allowed
            judged |= seen
            off = ((up - down) - promised).abs() / larger.clamp_min(1e-30)
            best = torch.where(seen, torch.minimum(best, off), best)
    wrong = judged & (best > WRONG)
    n = int(judged.sum())
    if n >= FEWEST and int(wrong.sum()) > SHARE * n:
        zero = float((length[judged] == 0).float().mean())
        how = "is zero" if zero > SHARE else "is not its derivative"
        fact = f"the gradient of log p(x|z) in z {how} on {int(wrong.sum())} of {n} test images"
        yield finding("decoder-gradient", fact, images=n, wrong=int(wrong.sum()), zero=zero,
                      off=float(best[judged].median()))  # fmt: skip


def _gradient(vae: VAENetwork, z: Tensor, target: Tensor) -> Tensor:
    """The gradient of log p(x|z) in z, as autograd says; zeros where the decoder has none."""
    with torch.enable_grad():
        code = z.clone().requires_grad_()
        value = vae.log_likelihood(code, target).sum()
        if not value.requires_grad:
            return torch.zeros_like(z)
        (gradient,) = torch.autograd.grad(value, code, allow_unused=True)
    return torch.zeros_like(z) if gradient is None else gradient.nan_to_num()
