"""Images that are moved at random, and the epochs of a VAE that learn from them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from epsbench.harness.plan.axes.recipes import GenerationTraining
from epsbench.harness.run.training.moved import SLIGHT, WIDE, Motion, moved
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Settings
from epsbench.harness.run.training.vae import train_vae
from epsbench.models.generative import VAE

N, SIZE, MIDDLE = 256, 20, slice(5, 15)


def motions(motion: Motion, height: int = SIZE, width: int = SIZE) -> tuple[Tensor, Tensor]:
    """The linear map (N, 2, 2) and the shift (N, 2) in pixels of each image: where its pixels come from.

    Of two ramps, right(u, v) = u and down(u, v) = v, each pixel shows the position that it comes from.
    """
    u, v = torch.meshgrid(torch.arange(width) - (width - 1) / 2, torch.arange(height) - (height - 1) / 2, indexing="xy")
    came = [
        (moved((ramp * 0.01 + 0.5).expand(N, 1, height, width), motion, torch.Generator().manual_seed(0)) - 0.5) * 100
        for ramp in (u, v)
    ]
    middle = tuple(slice(side // 2 - 3, side // 2 + 3) for side in (height, width))
    at = torch.stack([each[(slice(None), 0, *middle)].flatten(1) for each in came], 2)
    known = torch.stack([u[middle].flatten(), v[middle].flatten(), torch.ones(at.shape[1])], 1)
    solved = torch.linalg.lstsq(known.expand(N, -1, -1), at).solution  # (N, 3, 2)
    torch.testing.assert_close(known @ solved, at, atol=1e-3, rtol=0)  # it is an affine map
    return solved[:, :2].mT, solved[:, 2]


@pytest.mark.parametrize("sides", [(SIZE, SIZE), (20, 40), (40, 20)])
def test_slight_motions_shift_and_turn(sides):
    linear, shift = motions(SLIGHT, *sides)
    torch.testing.assert_close(linear @ linear.mT, torch.eye(2).expand(N, 2, 2), atol=2e-3, rtol=0)
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).rad2deg()
    assert 4 < angle.abs().max() <= 5.01
    for each in shift.T:
        assert 0.8 < each.abs().max() <= 1.001
    # Each image has a motion of its own, symmetric around none.
    assert abs(angle.mean().item()) < 0.6
    assert len(angle.unique()) > 200


@pytest.mark.parametrize("sides", [(SIZE, SIZE), (20, 40)])
def test_wide_motions_stretch_and_slant_too(sides):
    linear, shift = motions(WIDE, *sides)
    # The columns: where a step to the right comes from, and one downwards.
    right, down = linear.unbind(2)
    stretch, angle = right.norm(dim=1).log(), torch.atan2(right[:, 1], right[:, 0])
    turned_back = torch.stack([angle.cos() * down[:, 0] + angle.sin() * down[:, 1],
                               -angle.sin() * down[:, 0] + angle.cos() * down[:, 1]], 1)  # fmt: skip
    for value, most in (
        (stretch, 0.1), (turned_back[:, 1].log(), 0.1), (turned_back[:, 0] / turned_back[:, 1], 0.15),
        (angle.rad2deg(), 12.0), *((each, 1.5) for each in shift.T),
    ):  # fmt: skip
        assert 0.8 * most < value.abs().max() <= 1.01 * most
        assert abs(float(value.mean())) < 0.15 * most


def test_no_motion_leaves_an_image_as_it_is():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved(x, Motion(0.0, 0.0), torch.Generator()), x, atol=1e-6, rtol=0)


def test_the_first_epochs_learn_from_moved_images(data, monkeypatch):
    """The network is asked about moved images in the first epochs, and about the images themselves in the others."""
    vae = seeded(lambda: VAE(filters=4, levels=2).build(data.description, 2), 0)
    own = {each.numpy().tobytes() for each in data.train.pixels(slice(0, len(data.train)))}
    seen: list[float] = []
    elbo = vae.elbo

    def watched(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        if vae.training:
            seen.append(sum(each.numpy().tobytes() in own for each in x) / len(x))
        return elbo(x, noise)

    monkeypatch.setattr(vae, "elbo", watched)
    recipe = {"epochs": 3, "moved_epochs": 2, "batch_size": 64, "learning_rate": 1e-3, "schedule": "constant"}
    curves = train_vae(vae, data, recipe, 1.0, Settings(seed=0, precision="float32", compile="off")).curves
    steps = len(data.train) // 64
    assert seen[-steps:] == [1.0] * steps
    assert max(seen[-3 * steps : -steps]) < 0.1
    assert len(curves["train_bpd"]) == 3
    assert all(math.isfinite(each) for each in curves["train_bpd"])


def test_more_moved_epochs_than_epochs_are_refused():
    with pytest.raises(ValueError, match="moved_epochs: 3 are more than the 2 epochs of the training"):
        GenerationTraining(epochs=2, moved_epochs=3)
    GenerationTraining(epochs=0, moved_epochs=3)  # weights that come with the model
