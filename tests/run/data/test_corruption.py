"""The common corruptions: against closed forms, Pillow and SciPy, and independent of an image's neighbours."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from epsbench.harness.plan.axes.corruptions import LEAST_SIDE
from epsbench.harness.run.data.corruption import CORRUPTIONS, corrupted
from epsbench.harness.run.data.corruption.digital import jpeg, pixelate
from epsbench.harness.run.data.corruption.noise import shot
from epsbench.harness.run.data.corruption.resampling import along_both, gaussian_blur, zoomed
from epsbench.harness.run.data.corruption.weather import height_map
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.noise import KeyedNoise


def smooth(n: int, channels: int = 3, side: int = 32) -> torch.Tensor:
    """Images with structure, uint8."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(n, channels, 8, 8, generator=generator)
    large = torch.nn.functional.interpolate(low, size=(side, side), mode="bicubic", align_corners=False)
    return (large.clamp(0, 1) * 255).round().to(torch.uint8)


def examples(raw: torch.Tensor) -> Examples:
    return Examples(raw, torch.zeros(len(raw), dtype=torch.int64), 255)


def keyed(n: int) -> KeyedNoise:
    return KeyedNoise(0, torch.arange(n), torch.ones(n, dtype=torch.int64))


def change(raw: torch.Tensor, name: str, severity: int) -> float:
    moved = corrupted(examples(raw), name, severity).pixels() - raw / 255
    return float(moved.square().mean().sqrt())


def test_there_are_fifteen_kinds_of_five_severities():
    assert list(CORRUPTIONS) == list(LEAST_SIDE)
    assert len(CORRUPTIONS) == 15
    assert all(len(small) == len(large) == 5 for _, small, large in CORRUPTIONS.values())
    # As `numpy.arange` gives them: 6 to 26 factors for small images; 11, 16, 11, 13, 11 for large ones.
    _, small, large = CORRUPTIONS["zoom-blur"]
    assert [len(each) for each in small] == [len(np.arange(1, s, 0.01)) for s in (1.06, 1.11, 1.16, 1.21, 1.26)]
    wanted = [np.arange(1, 1.11, 0.01), np.arange(1, 1.16, 0.01), np.arange(1, 1.21, 0.02), np.arange(1, 1.26, 0.02),
              np.arange(1, 1.31, 0.03)]  # fmt: skip
    assert [len(each) for each in large] == list(map(len, wanted))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_corrupted_alone_and_more_with_severity(name, channels):
    raw = smooth(6, channels)
    whole = corrupted(examples(raw), name, 4).pixels()
    alone = corrupted(examples(raw[:2]), name, 4).pixels()
    torch.testing.assert_close(whole[:2], alone, atol=1.1 / 255, rtol=0)  # a rounding of half a grey level
    assert whole.shape == raw.shape
    assert (whole >= 0).all()
    assert (whole <= 1).all()
    assert (whole != raw / 255).flatten(1).any(1).all()
    if name not in ("elastic-transform", "glass-blur", "frost"):  # whose published constants do not grow
        assert change(raw, name, 1) < change(raw, name, 5)


@pytest.mark.parametrize("name", [name for name, least in LEAST_SIDE.items() if least > 1])
def test_the_smallest_images_of_a_kind_work_and_large_oblong_ones(name):
    for shape in ((LEAST_SIDE[name], LEAST_SIDE[name]), (72, 90)):
        if name == "glass-blur" and shape[0] > 64:
            continue  # pixel after pixel: slow for large images
        raw = torch.nn.functional.interpolate(smooth(2).float(), size=shape).round().to(torch.uint8)
        assert change(raw, name, 5) > 0.003


@pytest.mark.parametrize("photons", [500, 60, 3])
def test_shot_noise_is_poisson(photons):
    level = 100
    x = torch.full((1, 1, 200, 200), level / 255)
    counts = (shot(x, keyed(1), photons) * photons).round().flatten().numpy()
    rate = level / 255 * photons
    assert counts.mean() == pytest.approx(rate, abs=5 * math.sqrt(rate / 40_000))
    assert counts.var() == pytest.approx(rate, rel=0.05)
    for k in (int(rate), int(rate + math.sqrt(rate))):
        assert (counts <= k).mean() == pytest.approx(stats.poisson.cdf(k, rate), abs=0.015)


def test_gaussian_and_impulse_noise_have_their_constants():
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    moved = corrupted(examples(grey), "gaussian-noise", 5).pixels() - 128 / 255
    assert float(moved.std()) == pytest.approx(0.10, rel=0.02)
    moved = corrupted(examples(grey), "impulse-noise", 5).pixels()
    assert float((moved == 0).float().mean()) == pytest.approx(0.035, rel=0.1)
    assert float((moved == 1).float().mean()) == pytest.approx(0.035, rel=0.1)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 2.5])
def test_a_gaussian_blur_is_scipys(deviation):
    x = smooth(1)[0] / 255
    theirs = np.stack([ndimage.gaussian_filter(c, deviation, mode="nearest") for c in x.numpy().astype(np.float64)])
    torch.testing.assert_close(
        gaussian_blur(x[None], deviation)[0].numpy(), theirs.astype(np.float32), atol=1e-5, rtol=0
    )
    mirrored = np.stack([ndimage.gaussian_filter(c, deviation, mode="reflect", truncate=3) for c in x.numpy()])
    ours = gaussian_blur(x[None], deviation, truncate=3.0, mode="symmetric")[0].numpy()
    np.testing.assert_allclose(ours, mirrored, atol=1e-5)


@pytest.mark.parametrize("factor", [1.01, 1.13, 1.25, 3.0])
def test_a_zoom_is_scipys(factor):
    x = (smooth(1)[0, 0] / 255).numpy().astype(np.float64)
    crop = math.ceil(32 / factor)
    first = (32 - crop) // 2
    whole = ndimage.zoom(x[first : first + crop, first : first + crop], factor, order=1)
    trim = (len(whole) - 32) // 2
    expected = whole[trim : trim + 32, trim : trim + 32]
    ours = along_both(torch.tensor(x)[None, None].float(), zoomed(32, factor), zoomed(32, factor))[0, 0]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("share", [0.95, 0.65, 0.3])
def test_pixelation_is_pillows(share):
    raw = smooth(4)
    ours = (pixelate(raw / 255, keyed(4), share) * 255).round().int()
    for image, mine in zip(raw, ours, strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
        small = pillow.resize((int(32 * share),) * 2, Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
        theirs = torch.from_numpy(np.array(small)).permute(2, 0, 1).int()
        assert (mine - theirs).abs().max() <= 1


@pytest.mark.parametrize("quality", [80, 40, 7])
@pytest.mark.parametrize(("channels", "mean"), [(1, 0.25), (3, 1.5)])
def test_jpeg_is_about_that_of_pillow(quality, channels, mean):
    raw = smooth(8, channels)
    ours = (jpeg(raw / 255, keyed(8), quality).clamp(0, 1) * 255).round().int()
    theirs = []
    for image in raw:
        buffer, pixels = io.BytesIO(), image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(buffer, "JPEG", quality=quality)
        theirs.append(torch.from_numpy(np.atleast_3d(np.array(Image.open(buffer)))).permute(2, 0, 1).int())
    apart = (ours - torch.stack(theirs)).abs().float()
    assert float(apart.mean()) <= mean  # grey levels of 255
    assert float(apart.mean()) < 0.35 * float((torch.stack(theirs) - raw.int()).abs().float().mean())


def test_contrast_and_brightness_are_their_formulas():
    raw = smooth(3)
    x = raw / 255
    ours = corrupted(examples(raw), "contrast", 2).pixels()
    expected = ((x - x.mean((2, 3), keepdim=True)) * 0.5 + x.mean((2, 3), keepdim=True)).clamp(0, 1)
    torch.testing.assert_close(ours, expected, atol=0.51 / 255, rtol=0)
    import colorsys

    ours = corrupted(examples(raw), "brightness", 3).pixels()
    for row, column in ((0, 0), (7, 20), (31, 31)):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[1, :, row, column].tolist())
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.15))
        assert ours[1, :, row, column].tolist() == pytest.approx(wanted, abs=0.6 / 255)


def test_height_maps_differ_by_image_and_reach_from_0_to_1():
    field = height_map(keyed(5), 32, 32, 2.0)
    assert field.shape == (5, 1, 32, 32)
    assert (field.amin((1, 2, 3)) == 0).all()
    assert (field.amax((1, 2, 3)) == 1).all()
    assert (field[0] != field[1]).any()
    rough, even = (height_map(keyed(5), 32, 32, decay).diff(dim=3).abs().mean() for decay in (1.2, 3.0))
    assert rough > 2 * even
