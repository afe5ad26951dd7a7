"""The parts of a VAE that a suite names: code of the user's own, from the suite to the record and back to a model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import epsbench
from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DATASETS
from epsbench.models.generative import VAE, Autoencoder, ResidualVAE
from epsbench.models.likelihoods import Categorical, DiscretisedLogistic
from epsbench.models.parts import DiscretisedLogistic as Logistic
from epsbench.models.parts import Mixture, OwnPart
from epsbench.models.priors import MixtureOfNormals, StandardNormal

MINE = """
import torch
from math import prod
from torch import nn
from epsbench.models.generative import VAE
from epsbench.models.likelihoods import Likelihood
from epsbench.models.vae import VAENetwork


class Encoder(nn.Module):
    def __init__(self, shape, z_dim, hidden=32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(prod(shape), hidden), nn.GELU(), nn.Linear(hidden, 2 * z_dim)
        )

    def forward(self, x):
        return self.layers(x).chunk(2, 1)


def decoder(shape, z_dim, outputs):
    return nn.Sequential(nn.Linear(z_dim, outputs * prod(shape)), nn.Unflatten(1, (outputs, *shape)))


class Laplace(nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.z_dim, self.log_scale = z_dim, nn.Parameter(torch.zeros(z_dim))

    def log_prob(self, z):
        return torch.distributions.Laplace(0.0, self.log_scale.exp()).log_prob(z).sum(-1)

    def draw(self, noise):
        u = noise.uniform(self.z_dim) - 0.5
        return -self.log_scale.exp() * u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.4999999))


class Binomial(Likelihood):
    def __init__(self, levels):
        super().__init__(levels)
        self.outputs = 1

    def logits(self, outputs):
        n, k = torch.tensor(self.levels - 1.0), torch.arange(self.levels).view(1, -1, 1, 1, 1)
        return torch.lgamma(n + 1) - torch.lgamma(k + 1.0) - torch.lgamma(n - k + 1) + k * outputs


class Halved(VAE):
    def build(self, data, z_dim=20):
        class Network(VAENetwork):
            def elbo(self, x, noise):
                distortion, rate = super().elbo(x, noise)
                return distortion / 2, rate / 2

        return Network(data.shape, z_dim, self.filters, self.levels)


def number(z_dim):
    return 3


def decoder_of_4(shape):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4 * prod(shape)), nn.Unflatten(1, (4, *shape)))


class NoDraw(nn.Module):
    def log_prob(self, z):
        return z.sum(-1)


class OtherLevels(Likelihood):
    def __init__(self):
        super().__init__(3)
"""
EVALUATION = """
[generation.evaluation]
importance_samples = 4
prior_samples = 64
generated = 80
gradient_samples = 2
refinement_steps = 2
refined_images = 40
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")

    def load(model: str, z_dim: int = 4):
        path = tmp_path / "suite.toml"
        path.write_text(
            f'[generation]\ndata = "digits"\ntraining = {{ epochs = 1 }}\n{EVALUATION}[generation.matrix]\n'
            f"model = {model}\nz_dim = {z_dim}\n",
            encoding="utf-8",
        )
        return epsbench.load_suite(str(path), 100)

    return load


def run(suite, out: Path):
    epsbench.run_suite(suite, out, epsbench.Options(quiet=True, device="cpu", compile="off"))
    (record,) = epsbench.records(out)
    return record


ALL = (
    '{ name = "vae", filters = 4, encoder = { name = "mine.py:Encoder", hidden = 16 }, decoder = "mine.py:decoder", '
    'prior = "mine.py:Laplace", likelihood = "mine.py:Binomial" }'
)


def test_all_four_parts_of_ones_own_are_trained_measured_and_loaded(suite, tmp_path):
    record = run(suite(ALL), tmp_path / "out")
    assert (record.status, record.findings) == ("ok", ())
    assert record.cell["model"]["encoder"] == {"name": "mine.py:Encoder", "hidden": 16}
    assert record.cell["model"]["likelihood"] == "mine.py:Binomial"
    assert {"importance_bpd", "refined_bpd", "reparameterised_gradient_variance", "coverage"} <= set(record.metrics)
    vae = epsbench.load_model(tmp_path / "out", base=tmp_path, z_dim=4)
    assert [type(part).__name__ for part in (vae.encoder, vae.prior, vae.likelihood)] == [
        "Encoder", "Laplace", "Binomial",
    ]  # fmt: skip
    z = torch.zeros(2, 4)
    assert vae.sample(z).shape == vae.mean_image(z).shape == (2, 1, 8, 8)


def test_another_code_or_parameter_of_a_part_is_another_cell(suite, tmp_path):
    first, again = (suite(ALL).cells[0].id for _ in range(2))
    assert first == again
    assert suite(ALL.replace("hidden = 16", "hidden = 17")).cells[0].id != first
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("nn.GELU()", "nn.ReLU()"), encoding="utf-8")
    assert suite(ALL).cells[0].id != first


def test_the_usual_parts_are_no_part_of_a_cell(suite):
    plain = suite('{ name = "vae", filters = 4 }').cells[0]
    named = suite('{ name = "vae", filters = 4, prior = "normal", likelihood = "categorical" }').cells[0]
    assert plain == named
    assert set(plain.canonical()["model"]) == {"name", "filters", "levels"}


def test_parts_that_come_along_are_named(suite, tmp_path):
    model = (
        '{ name = "vae", filters = 4, prior = { name = "mixture", components = 3 }, likelihood = '
        '{ name = "discretised-logistic", components = 2 } }'
    )
    record = run(suite(model), tmp_path / "out")
    assert record.status == "ok"
    vae = epsbench.load_model(tmp_path / "out")
    assert (vae.prior.means.shape, vae.likelihood.components, vae.decoder(torch.zeros(1, 4)).shape) == (
        (3, 4), 2, (1, 6, 1, 8, 8),
    )  # fmt: skip


@pytest.mark.parametrize("kind", [VAE, Autoencoder, ResidualVAE])
def test_every_built_in_takes_them(kind):
    network = kind(filters=4, likelihood=Logistic(2), prior=Mixture(3)).build(DATASETS["cifar10"], 6)
    assert isinstance(network.likelihood, DiscretisedLogistic)
    assert isinstance(network.prior, MixtureOfNormals)
    assert network.decoder(torch.zeros(2, 6)).shape == (2, 6, 3, 32, 32)
    usual = kind(filters=4).build(DATASETS["cifar10"], 6)
    assert isinstance(usual.likelihood, Categorical)
    assert isinstance(usual.prior, StandardNormal)


def test_a_residual_vae_has_one_prior():
    with pytest.raises(ValueError, match="components and prior both set the prior"):
        ResidualVAE(components=3, prior=Mixture(3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ('{ name = "vae", encoder = "mine.py:Encodr" }', r"encoder: .*Encodr"),
        ('{ name = "vae", encoder = { name = "mine.py:Encoder", width = 3 } }', "encoder: .*unknown .*'width'"),
        ('{ name = "vae", prior = "norml" }', r"prior: unknown prior 'norml'; did you mean 'normal'"),
        ('{ name = "vae", prior = { name = "mixture", components = 0 } }', "components must be at least 1"),
    ],
)  # fmt: skip
def test_a_name_or_parameter_that_does_not_exist_is_refused_with_the_suite(suite, model, message):
    with pytest.raises(InputError, match=message):
        suite(model)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("prior", "number", "prior number must be a torch.nn.Module, not int"),
        ("prior", "NoDraw", "prior NoDraw must define draw"),
        ("likelihood", "OtherLevels", "likelihood OtherLevels has 3 grey levels, and the model 16"),
        ("encoder", "decoder_of_4", r"the encoder must return mean and log-std, not Tensor"),
        ("decoder", "decoder_of_4", r"the decoder's output must have shape \(2, 16, 1, 8, 8\), not \(2, 4, 1, 8, 8\)"),
    ],
)
def test_a_part_that_cannot_be_used_is_refused_with_the_suite(suite, kind, name, message):
    with pytest.raises(InputError, match=message):
        suite(f'{{ name = "vae", {kind} = "mine.py:{name}" }}')


PRIORS = """
class Prior(nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.z_dim = z_dim
    def log_prob(self, z):
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) {density}
    def draw(self, noise):
        return {draw}
"""


@pytest.mark.parametrize(
    ("draw", "density", "message"),
    [
        ("torch.zeros(4, self.z_dim)", "", "returns a tensor of shape (4, 4) for 3 rows; it must be (3, 4), as noise"),
        ("[0.0] * self.z_dim", "", "draw(noise) returns list; a tensor (N, 4) is needed"),
        ("noise.normals(self.z_dim)", "", "it raises AttributeError: 'KeyedNoise' object has no attribute 'normals' ("),
        ("torch.randn_like(noise.normal(self.z_dim))", "", "draw(noise) uses a global random generator"),
        ("noise.normal(self.z_dim) / 0", "", "draw(noise) returns NaN or infinity"),
        ("noise.normal(self.z_dim)", "* float('nan')", "log_prob(z) is NaN or infinite at codes that draw(noise) made"),
    ],
)
def test_a_prior_that_cannot_draw_is_refused_before_training(suite, tmp_path, draw, density, message):
    with (tmp_path / "mine.py").open("a", encoding="utf-8") as file:
        file.write(PRIORS.format(draw=draw, density=density))
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        run(suite('{ name = "vae", prior = "mine.py:Prior" }'), tmp_path / "out")
    assert "the prior of model 'vae(prior=mine.py:Prior)' cannot be used: " in str(raised.value)
    assert not list((tmp_path / "out").glob("weights/*"))


def test_a_vae_of_ones_own_that_cheats_is_void(suite, tmp_path):
    """The audits work where a suite names a VAE of the user's own."""
    record = run(suite('"mine.py:Halved"'), tmp_path / "out")
    assert (record.status, {finding.code for finding in record.findings}) == ("void", {"bounds-out-of-order"})


def test_a_module_without_a_kind_is_still_a_part():
    part = OwnPart("encoder", torch.nn.Flatten)
    assert isinstance(part.build(shape=(1, 8, 8), z_dim=4), torch.nn.Flatten)
