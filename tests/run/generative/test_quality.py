"""Sample quality against closed cases, hand-made ones, plain loops and a generator that knows the answer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import nn

from epsbench.harness.errors import InputError
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.generative import overlap as overlap_module
from epsbench.harness.run.generative import quality as module
from epsbench.harness.run.generative import sampling
from epsbench.harness.run.generative.overlap import Balls, Overlap
from epsbench.harness.run.generative.quality import (
    STEPS,
    compare,
    frechet_distance,
    frechet_distance_infinite,
    kernel_distance,
    quality,
)
from epsbench.harness.run.generative.sampling import draw_levels, levels_of
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.priors import MixtureOfNormals
from epsbench.models.vae import VAENetwork, quantise, rescale


def points(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def shares(overlap):
    return {
        name: getattr(overlap, name).float().mean().item() for name in ("realistic", "reached", "covered", "density")
    }


def test_overlap_worked_out_by_hand():
    # Balls for k = 1: [−100, 0], [−1, 1], [0, 2], [1, 5], [3, 17] around the real points,
    # [−1, 2], [½, 3½], [2, 10], [6, 34] around the generated ones. Points on an edge are inside.
    overlap = Overlap.of(column(-50, 0, 1, 3, 10), column(0.5, 2, 6, 20), k=1)
    assert overlap.realistic.tolist() == [True, True, True, False]
    assert overlap.density.tolist() == [2, 2, 1, 0]
    assert overlap.covered.tolist() == [False, True, True, True, True]
    assert overlap.reached.tolist() == [False, True, True, True, True]


def test_a_set_against_itself():
    x = points(60)
    # Every ball holds its centre and k neighbours.
    assert shares(Overlap.of(x, x)) == pytest.approx({"realistic": 1, "reached": 1, "covered": 1, "density": 6 / 5})


def test_sets_apart():
    assert shares(Overlap.of(points(40), points(40, seed=1) + 100)) == dict.fromkeys(
        ("realistic", "reached", "covered", "density"), 0
    )


def test_a_generator_of_half_of_the_modes():
    x = points(40)
    overlap = Overlap.of(torch.cat([x, x + 100]), x)
    assert shares(overlap) == pytest.approx({"realistic": 1, "reached": 0.5, "covered": 0.5, "density": 6 / 5})


def test_one_image_again_and_again():
    # All generated points are one: it is realistic, nearly nothing is reached, and it lies in the balls around it.
    x = points(60)
    overlap = Overlap.of(x, x[:1].expand(60, 3))
    assert overlap.realistic.all()
    assert overlap.reached.sum() == 1
    assert overlap.covered.sum() == (torch.cdist(x[:1], x)[0] <= Balls.around(x, 5).radii + 1e-6).sum()


@pytest.mark.parametrize("batch", [7, 1000])
def test_overlap_against_loops(batch, monkeypatch):
    monkeypatch.setattr(overlap_module, "BATCH", batch)
    real, generated, k = points(30).numpy(), (points(23, seed=1) + 0.7).numpy(), 3

    def reach(those):
        return [sorted(np.linalg.norm(those - point, axis=1))[k] for point in those]

    of_real, of_generated = reach(real), reach(generated)
    overlap = Overlap.of(torch.from_numpy(real), torch.from_numpy(generated), k)
    for j, point in enumerate(generated):
        holding = sum(np.linalg.norm(point - real[i]) <= of_real[i] for i in range(30))
        assert overlap.density[j].item() == pytest.approx(holding / k)
        assert overlap.realistic[j].item() == (holding > 0)
    for i, point in enumerate(real):
        away = [np.linalg.norm(point - other) for other in generated]
        assert overlap.covered[i].item() == any(distance <= of_real[i] for distance in away)
        assert overlap.reached[i].item() == any(away[j] <= of_generated[j] for j in range(23))


def test_what_one_distribution_gives():
    overlap = shares(Overlap.of(points(2000), points(2000, seed=1)))
    assert overlap["density"] == pytest.approx(1, abs=0.06)
    assert overlap["covered"] == pytest.approx(1 - 2**-5, abs=0.02)


def test_no_neighbours():
    with pytest.raises(ValueError, match="neighbour number 5 among 5"):
        Balls.around(points(5), 5)


def test_frechet_distance_in_closed_form():
    x = points(500, d=4)
    centred = x - x.mean(0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + torch.tensor([3.0, 0, 4, 0])) == pytest.approx(25, rel=1e-5)
    # Twice as wide: tr(S + 4S − 2·2S) = tr S.
    assert frechet_distance(centred, 2 * centred) == pytest.approx(centred.var(0).sum().item(), rel=1e-5)


def test_frechet_distance_against_a_matrix_square_root():
    x, y = points(300, d=4).double(), points(200, d=4, seed=1).double() @ points(4, d=4, seed=2).double()
    s, t = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    between = (x.mean(0) - y.mean(0)).square().sum().item()
    expected = between + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real)
    assert frechet_distance(x.float(), y.float()) == pytest.approx(expected, rel=1e-5)


def test_the_frechet_distance_of_infinitely_many_points():
    # Of one distribution it is 0, and of two whose means are 2 apart it is 4; finite sets are further apart.
    x, y = points(2000, d=40), points(2000, d=40, seed=1)
    one, apart = frechet_distance_infinite(x, y, 0), frechet_distance_infinite(x, y + 2 / 40**0.5, 0)
    assert abs(one) < 0.1 * frechet_distance(x, y)
    assert apart == pytest.approx(4, rel=0.05)
    assert frechet_distance_infinite(x, y, 0) == one
    # A line needs three sizes, each of more than twice as many points as there are dimensions.
    assert frechet_distance_infinite(x[:242], y[:242], 0) is None
    assert frechet_distance_infinite(x[:243], y[:243], 0) is not None


def unbiased(x, y):
    """The squared maximum mean discrepancy as the paper sums it."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n = len(x)
    within = [kernel(z[i], z[j]) for z in (x, y) for i in range(n) for j in range(n) if i != j]
    return sum(within) / (n * (n - 1)) - 2 * sum(kernel(a, b) for a in x for b in y) / n**2


def test_kernel_distance_against_loops():
    x, y = points(25), points(25, seed=1) + 0.5
    assert kernel_distance(x, y, 0) == pytest.approx(unbiased(x.double().numpy(), y.double().numpy()), rel=1e-6)


def test_kernel_distance_of_subsets(monkeypatch):
    x, y = points(60), points(60, seed=1) + 0.5
    whole = kernel_distance(x, y, 0)
    monkeypatch.setattr(module, "SUBSET_SIZE", 20)
    before = torch.get_rng_state()
    first = kernel_distance(x, y, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert kernel_distance(x, y, 0) == first
    assert kernel_distance(x, y, 1) != first
    assert first == pytest.approx(whole, rel=0.2)


def test_kernel_distance_of_one_distribution_is_about_zero_either_way():
    measured = [kernel_distance(points(100, seed=2 * i), points(100, seed=2 * i + 1), 0) for i in range(30)]
    assert min(measured) < 0 < max(measured)
    assert abs(np.mean(measured)) < 3 * np.std(measured) / 30**0.5


def test_intervals():
    metrics = compare(Balls.around(points(80)), Balls.around(points(80, seed=1) + 0.3), 0)
    shares_of_sets = {"precision", "recall", "density", "coverage", "clipped_density", "clipped_coverage"}
    assert set(metrics) == shares_of_sets | {"frechet_distance", "kernel_distance", "frechet_distance_infinite"}
    for name, metric in metrics.items():
        assert metric.n == 80
        if "distance" in name:
            assert metric.low is None
        else:
            assert metric.low <= metric.value <= metric.high
            assert metric.low < metric.high


class Album(nn.Module):
    """A generator that shows one of the images it was given, every time."""

    def __init__(self, images, levels=16):
        super().__init__()
        self.shape, self.levels = tuple(images.shape[1:]), levels
        self.prior = SimpleNamespace(draw=lambda noise: noise.uniform(1))
        self.images = nn.Parameter(quantise(images, levels).float())

    def logits(self, z):
        return self.decoder(z)

    def decoder(self, z):
        chosen = (z[:, 0] * len(self.images)).long()
        return nn.functional.one_hot(self.images[chosen].long(), self.levels).movedim(-1, 1) * 100.0


@pytest.fixture(scope="module")
def small():
    return load_data("digits", None, torch.device("cpu"), 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def test_a_generator_of_training_images_scores_like_them_and_shows_as_copies(small, folder):
    calls = []
    measured = quality(Album(small.train.pixels()), small, {"generated": 10_000}, 0, folder, calls.append)
    metrics = measured.metrics
    measures = {
        "precision",
        "recall",
        "density",
        "coverage",
        "frechet_distance",
        "kernel_distance",
        "neighbour_distance",
        "clipped_density",
        "clipped_coverage",
        "likelihood_gap",
    }
    floors = {f"floor_{name}" for name in measures}
    assert set(metrics) == measures | floors | {"likelihood_divergence"}
    assert {metric.n for metric in metrics.values()} == {200}
    assert metrics["neighbour_distance"].value == 0
    assert metrics["floor_neighbour_distance"].value > 0.5
    assert metrics["precision"].value > 0.7
    assert metrics["frechet_distance"].value < 3 * metrics["floor_frechet_distance"].value
    assert set(measured.evaluation) == {"feature_weights_sha256", "feature_accuracy"}
    assert measured.pictures["neighbours"].shape == (2, 8, 1, 8, 8)
    assert sum(calls) == STEPS


def test_the_neighbours_of_each_set_are_looked_for_once(small, folder, monkeypatch):
    """It is most of the work. The test images are compared with the samples and with the training images."""
    asked = []
    look = overlap_module.nearest_points

    def counted(points, k):
        asked.append(points)
        return look(points, k)

    monkeypatch.setattr(overlap_module, "nearest_points", counted)
    quality(Album(small.train.pixels()), small, {"generated": 60}, 0, folder)
    assert [len(points) for points in asked] == [60, 60, 60]
    assert len({points.sum().item() for points in asked}) == 3


def test_known_balls_give_the_overlap_of_the_points():
    real, generated = points(40), points(30, seed=1) + 0.4
    known = Overlap.between(Balls.around(real, 3), Balls.around(generated, 3))
    made = Overlap.of(real, generated, 3)
    for name in ("realistic", "reached", "density", "covered", "clipped", "clipped_real", "filled"):
        assert torch.equal(getattr(known, name), getattr(made, name)), name


def test_a_generator_of_noise_is_worse_than_the_floor(small, folder):
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    metrics = quality(Album(noise), small, {"generated": 200}, 0, folder).metrics
    for name in ("frechet_distance", "kernel_distance", "neighbour_distance"):
        assert metrics[name].value > 2 * metrics[f"floor_{name}"].value
    for name in ("recall", "coverage", "clipped_density", "clipped_coverage"):
        assert metrics[name].value < metrics[f"floor_{name}"].value / 2
    assert metrics["likelihood_divergence"].value > 10


def test_as_many_images_as_asked_for(small, folder):
    metrics = quality(Album(small.train.pixels()), small, {"generated": 50}, 0, folder).metrics
    assert {metric.n for metric in metrics.values()} == {50}


def test_nothing_and_too_little(small, folder):
    assert quality(Album(small.train.pixels()), small, {"generated": 0}, 0, folder) == module.Measured()
    with pytest.raises(InputError, match="needs more images than 5"):
        quality(Album(small.train.pixels()), small, {"generated": 5}, 0, folder)


class Even(Album):
    """A generator of pixels that are level 0, 2 or 3 with chances ½, ¼ and ¼."""

    def decoder(self, z):
        share = torch.tensor([0.5, 0, 0.25, 0.25]).log()
        return share.view(1, 4, 1, 1, 1).expand(len(z), 4, *self.shape)


def test_pixels_are_drawn_as_often_as_their_chances_say():
    drawn = draw_levels(Even(torch.zeros(1, 1, 10, 10), levels=4), 400, 0)
    assert drawn.shape == (400, 1, 10, 10)
    assert drawn.dtype == torch.uint8
    frequencies = torch.bincount(drawn.flatten().long(), minlength=4) / drawn.numel()
    assert frequencies[1] == 0
    assert frequencies.tolist() == pytest.approx([0.5, 0, 0.25, 0.25], abs=0.01)  # four standard errors


def test_samples_depend_on_the_seed_and_their_index_alone(monkeypatch):
    vae = Even(torch.zeros(1, 1, 4, 4), levels=4)
    whole = draw_levels(vae, 40, 0)
    monkeypatch.setattr(sampling, "BATCH", 7)
    assert torch.equal(draw_levels(vae, 30, 0), whole[:30])
    assert not torch.equal(draw_levels(vae, 40, 1), whole)


@pytest.mark.parametrize("prior", [None, MixtureOfNormals(2, 3)])
def test_a_vaes_samples_have_the_mean_of_its_likelihood(prior):
    torch.manual_seed(0)
    vae = VAENetwork((1, 8, 8), 2, filters=4, prior=prior)
    index = torch.arange(3000)
    expected = vae.mean_image(vae.prior.draw(KeyedNoise(5, index, torch.zeros_like(index)))).mean(0)
    mean = rescale(draw_levels(vae, 3000, 5), 16).mean(0)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.025)  # over four standard errors of 0.3 / √3000


def test_data_on_the_models_levels(small):
    assert torch.equal(levels_of(small.test, 9, 4), quantise(small.test.pixels(slice(0, 9)), 4).to(torch.uint8))
