"""A user's own prior, tried before anything is trained: does it draw one code for every row of the noise?"""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.harness.errors import FAILURES
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.names.loading import is_users
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.run.attack.global_draws import GlobalDraws
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.vae import VAENetwork

ROWS = 3


def prior_problem(vae: VAENetwork, seed: int) -> str | None:
    """What is wrong with the codes that a model's own prior draws; None where nothing is, or the prior is built in."""
    if not is_users(vae.prior):
        return None
    rows, draws = torch.arange(ROWS, device=next(vae.parameters()).device), GlobalDraws()
    try:
        with isolated(seed), torch.no_grad(), draws:
            z = vae.prior.draw(KeyedNoise(seed, rows, rows))
            problem = _misfit(z, vae.z_dim) or _density(vae.prior.log_prob(z))
    # The prior is the user's code: it may raise anything, or even try to exit.
    except FAILURES as error:
        return f"it raises {what_was_raised(error)}"
    if not problem and draws.count:
        return "draw(noise) uses a global random generator; draw from noise.uniform(…) and noise.normal(…)"
    return problem


def _misfit(z: object, z_dim: int) -> str | None:
    if not isinstance(z, Tensor):
        return f"draw(noise) returns {type(z).__name__}; a tensor (N, {z_dim}) is needed, as noise.normal({z_dim}) is"
    if tuple(z.shape) != (ROWS, z_dim):
        return (
            f"draw(noise) returns a tensor of shape {tuple(z.shape)} for {ROWS} rows; it must be ({ROWS}, {z_dim}), as "
            f"noise.normal({z_dim}) is"
        )
    if not bool(z.isfinite().all()):
        return "draw(noise) returns NaN or infinity"
    return None


def _density(log_prob: Tensor) -> str | None:
    return None if bool(log_prob.isfinite().all()) else "log_prob(z) is NaN or infinite at codes that draw(noise) made"
