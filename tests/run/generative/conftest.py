"""A small VAE and its images; makes the known models importable: the tests are no package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from known_models import LEVELS, SHAPE

from epsbench.harness.run.data.examples import Examples
from epsbench.models.priors import MixtureOfNormals
from epsbench.models.vae import VAENetwork


@pytest.fixture(params=["standard", "mixture"])
def vae(request):
    torch.manual_seed(0)
    prior = MixtureOfNormals(2, 3) if request.param == "mixture" else None
    network = VAENetwork(SHAPE, z_dim=2, filters=2, levels=LEVELS, prior=prior)
    for weight in network.decoder.parameters():
        weight.data.mul_(3)  # likelihoods that depend on z
    return network


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(1)
    raw = torch.randint(256, (5, *SHAPE), dtype=torch.uint8, generator=generator)
    return Examples(raw, torch.zeros(5, dtype=torch.int64), 255)
