"""The blurs and the weather against a second implementation: loops over pixels, NumPy and SciPy.

Written from the formulas of Hendrycks and Dietterich (2019) and of ImageMagick's motion blur. Both implementations draw
the same random numbers, in the same order; nothing else is shared.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from epsbench.harness.plan.axes.corruptions import LEAST_SIDE
from epsbench.harness.run.data.corruption import CORRUPTIONS, SEED, corrupted
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.noise import KeyedNoise

GREY = 1 / 255
N = 2


def images(channels: int, height: int, width: int) -> np.ndarray:
    """Images with structure and with noise, uint8 (N, C, H, W)."""
    random = np.random.default_rng(0)
    smooth = ndimage.zoom(random.random((N, channels, 4, 4)), (1, 1, height / 4, width / 4), order=1)
    return np.clip(255 * (smooth + 0.1 * random.standard_normal((N, channels, height, width))), 0, 255).astype(np.uint8)


def draws(name: str, severity: int, image: int) -> KeyedNoise:
    """The random numbers of one image."""
    stream = list(LEAST_SIDE).index(name) * 5 + severity
    return KeyedNoise(SEED, torch.tensor([image]), torch.tensor([stream]))


def uniform(noise: KeyedNoise, *shape: int) -> np.ndarray:
    return noise.uniform(*shape)[0].numpy().astype(np.float64)


def per_channel(function, x: np.ndarray) -> np.ndarray:
    return np.stack([function(channel) for channel in x])


def blurred(plane: np.ndarray, deviation: float) -> np.ndarray:
    """scikit-image's Gaussian filter: the nearest pixel beyond the border, cut off at four deviations."""
    return ndimage.gaussian_filter(plane, deviation, mode="nearest", truncate=4.0)


def defocus(x: np.ndarray, noise: KeyedNoise, constants) -> np.ndarray:
    radius, alias = constants
    reach, half = (8, 1) if radius <= 8 else (math.ceil(radius) + 2, 2)
    disk = np.array([[float(i * i + j * j <= radius**2) for j in range(-reach, reach + 1)]
                     for i in range(-reach, reach + 1)])  # fmt: skip
    tap = np.array([math.exp(-(k * k) / (2 * alias**2)) for k in range(-half, half + 1)])
    tap /= tap.sum()
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, tap, axis=axis, mode="constant")
    return per_channel(lambda plane: ndimage.correlate(plane, disk / disk.sum(), mode="mirror"), x)


def glass(x: np.ndarray, noise: KeyedNoise, constants) -> np.ndarray:
    deviation, reach, rounds = constants
    grey = np.floor(per_channel(lambda plane: blurred(plane, deviation), x) * 255 + 1e-4) / 255
    height, width = x.shape[1:]
    for _ in range(rounds):
        steps = np.floor(uniform(noise, 2, height, width) * 2 * reach).astype(int) - reach
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, across = steps[:, row, column]
                grey[:, row, column] = grey[:, row + down, column + across]
    return per_channel(lambda plane: blurred(plane, deviation), grey)


def smeared(plane: np.ndarray, degrees: float, radius: float, deviation: float) -> np.ndarray:
    """ImageMagick's MotionBlurImage with the nearest pixel beyond the border."""
    weights = [math.exp(-(k * k) / (2 * deviation**2)) for k in range(2 * math.ceil(radius) + 1)]
    angle = math.radians(degrees)
    height, width = plane.shape
    total = np.zeros_like(plane)
    for row in range(height):
        for column in range(width):
            for k, weight in enumerate(weights):
                down, across = math.ceil(k * math.sin(angle) - 0.5), math.ceil(k * math.cos(angle) - 0.5)
                near = min(max(row + down, 0), height - 1), min(max(column + across, 0), width - 1)
                total[row, column] += weight / sum(weights) * plane[near]
    return total


def motion(x: np.ndarray, noise: KeyedNoise, constants) -> np.ndarray:
    degrees = 90 * uniform(noise, 1).item() - 45
    return per_channel(lambda plane: smeared(plane, degrees, *constants), x)


def stretched(plane: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a plane zoomed to the size of the plane."""
    crop = [math.ceil(side / factor) for side in plane.shape]
    first = [(side - part) // 2 for side, part in zip(plane.shape, crop, strict=True)]
    middle = plane[first[0] : first[0] + crop[0], first[1] : first[1] + crop[1]]
    large = ndimage.zoom(middle, factor, order=1)
    trim = [(long - side) // 2 for long, side in zip(large.shape, plane.shape, strict=True)]
    return large[trim[0] : trim[0] + plane.shape[0], trim[1] : trim[1] + plane.shape[1]]


def zoom(x: np.ndarray, noise: KeyedNoise, factors) -> np.ndarray:
    return per_channel(lambda plane: (plane + sum(stretched(plane, f) for f in factors)) / (len(factors) + 1), x)


def elastic(x: np.ndarray, noise: KeyedNoise, shares) -> np.ndarray:
    height, width = x.shape[1:]
    strength, deviation, affine = (min(height, width) * share for share in shares)
    reach = min(height, width) // 3
    row, column = height // 2, width // 2
    source = np.array([[row + reach, column + reach], [row + reach, column - reach], [row - reach, column - reach]])
    target = source + affine * (2 * uniform(noise, 3, 2) - 1)
    # The affine map that takes the moved points back to where they came from.
    first, second, third = target
    basis = np.stack([first - third, second - third], 1)
    to = np.stack([source[0] - source[2], source[1] - source[2]], 1).astype(float)
    matrix = to @ np.linalg.inv(basis)
    shift = source[2] - matrix @ third
    places = np.stack(np.mgrid[:height, :width].astype(float))
    read = np.einsum("ij,jhw->ihw", matrix, places) + shift[:, None, None]
    x = per_channel(lambda plane: ndimage.map_coordinates(plane, read, order=1, mode="mirror"), x)
    drawn = 2 * uniform(noise, 2, height, width) - 1
    moved = strength * per_channel(
        lambda plane: ndimage.gaussian_filter(plane, deviation, mode="reflect", truncate=3.0), drawn
    )
    read = places + moved[::-1]  # the first displacement is across
    return per_channel(lambda plane: ndimage.map_coordinates(plane, read, order=1, mode="reflect"), x)


def landscape(noise: KeyedNoise, height: int, width: int, decay: float) -> np.ndarray:
    """Diamond-square on a torus, point by point."""
    side = 1
    while side < max(height, width):
        side *= 2
    drawn = 2 * uniform(noise, side, side) - 1
    field, step, wobble = np.zeros((side, side)), side, 100.0

    def fill(row: int, column: int, neighbours: list[tuple[int, int]]) -> None:
        mean = sum(field[(row + down) % side, (column + across) % side] for down, across in neighbours) / 4
        field[row, column] = mean + wobble**2 * drawn[row, column]

    while step > 1:
        half = step // 2
        corners = [(down, across) for down in (-half, half) for across in (-half, half)]
        edges = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for row in range(half, side, step):
            for column in range(half, side, step):
                fill(row, column, corners)
        for row in range(0, side, half):
            for column in range(half if row % step == 0 else 0, side, step):
                fill(row, column, edges)
        step, wobble = half, wobble / decay
    return ((field - field.min()) / (field.max() - field.min()))[:height, :width]


def fog(x: np.ndarray, noise: KeyedNoise, constants) -> np.ndarray:
    strength, decay = constants
    return (x + strength * landscape(noise, *x.shape[1:], decay)) * x.max() / (x.max() + strength)


def frost(x: np.ndarray, noise: KeyedNoise, constants) -> np.ndarray:
    image, texture = constants
    coarse, fine = (landscape(noise, *x.shape[1:], decay) for decay in (1.7, 1.3))
    ridges = 0.6 * (1 - np.abs(2 * coarse - 1)) ** 2 + 0.4 * fine
    tint = (0.85, 0.95, 1.0) if len(x) == 3 else (0.95,)
    return np.stack([image * plane + texture * shade * ridges for plane, shade in zip(x, tint, strict=True)])


def snow(x: np.ndarray, noise: KeyedNoise, constants) -> np.ndarray:
    mean, deviation, factor, threshold, radius, blur, image = constants
    height, width = x.shape[1:]
    flakes = mean + deviation * noise.normal(1, height, width)[0, 0].numpy().astype(np.float64)
    flakes = stretched(flakes, factor)
    flakes[flakes < threshold] = 0
    flakes = np.floor(np.clip(flakes, 0, 1) * 255) / 255
    flakes = smeared(flakes, -135 + 90 * uniform(noise, 1).item(), radius, blur)
    grey = x[0] if len(x) == 1 else 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    return image * x + (1 - image) * np.maximum(x, 1.5 * grey + 0.5) + flakes + np.rot90(flakes, 2)


REFERENCES = {
    "defocus-blur": defocus, "glass-blur": glass, "motion-blur": motion, "zoom-blur": zoom, "snow": snow,
    "frost": frost, "fog": fog, "elastic-transform": elastic,
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(("channels", "height", "width", "severity"), [(3, 32, 32, 2), (1, 28, 28, 5), (3, 66, 72, 3)])
def test_a_corruption_is_that_of_the_loops(name, channels, height, width, severity):
    raw = images(channels, height, width)
    examples = Examples(torch.from_numpy(raw), torch.zeros(N, dtype=torch.int64), 255)
    ours = corrupted(examples, name, severity).pixels().numpy()
    _, small, large = CORRUPTIONS[name]
    constants = (small if min(height, width) <= 64 else large)[severity - 1]
    for number, image in enumerate(raw):
        theirs = np.clip(REFERENCES[name](image / 255, draws(name, severity, number), constants), 0, 1)
        apart = np.abs(ours[number] - np.round(theirs * 255) / 255)
        assert (apart < 0.5 * GREY).mean() > 0.98, apart.max() * 255  # rounding may go either way
        assert apart.max() < 1.5 * GREY, apart.max() * 255
