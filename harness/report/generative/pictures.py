"""The pictures of generative models in blocks, and what to look for in each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epsbench.harness.report.drawing.images import Arrays, grid, png
from epsbench.harness.report.generative.settings import (
    Setting,
    best,
    by_data,
    by_likelihood,
    families,
    likelihood_title,
    short_names,
)
from epsbench.harness.report.results.units import visible

WIDTH, NARROW = 350, 230  # CSS pixels of a sheet, alone and among others of its kind
SIDE = 8  # samples on a side of a sheet
MOST_BLOCKS = 12
SAMPLES = "samples_epoch_"
OWN_CAPTION = (
    "Samples are decoded from the same draws of the prior at every epoch. Noise becomes strokes, and then images of "
    "the kinds in the data; look for variety, and for shapes between two kinds. Reconstructions lose detail first "
    "where the latent space is small. An interpolation should change gradually, with a plausible image at every step: "
    "the latent space then has no holes there. A sample that equals the training image below it was memorised."
)
SWEEPS = {
    "beta": (
        "Samples at each β",
        "With a small β the codes do not fill the prior, and samples are broken. With a large β the rate is low, and "
        "samples are smooth and alike; where no unit is active they are all the mean image. Look for the β whose "
        "samples are both complete and varied.",
    ),
    "z_dim": (
        "Samples at each z",
        "With a small latent space images are blurred but complete. With a larger one they are sharper, and more of "
        "them show nothing recognizable, because the codes fill the prior less evenly.",
    ),
}
PLANE_TITLE = "The latent plane"
PLANE_CAPTION = (
    "Each image is decoded from one point of the plane; the points are at even quantiles of the standard normal prior "
    "on both axes. Look for which kinds of images are neighbours, and how much of the plane each kind takes."
)
AUTOENCODER_CAPTION = (
    "Both models draw z from the prior and decode it. The autoencoder reconstructs well, but nothing in its training "
    "made the codes fill the prior. Most draws are far from every code the decoder was trained on, so the autoencoder "
    "is not a generative model. A VAE pays for such codes with its rate."
)


@dataclass(frozen=True)
class Sheet:
    """One picture."""

    title: str
    """What it shows."""
    image: bytes
    """The picture as PNG."""
    width: int
    """The width to show it at, in CSS pixels."""

    @classmethod
    def of(cls, title: str, image: np.ndarray, target: int = WIDTH) -> Sheet:
        """A sheet of an image (C, H, W), enlarged by a multiple of one half to about ``target`` pixels."""
        width = image.shape[2]
        return cls(title, png(image), round(width * max(1.0, round(2 * target / width) / 2)))


@dataclass(frozen=True)
class Block:
    """Sheets that are shown side by side."""

    title: str
    """What stands above them."""
    caption: str
    """What to look for."""
    sheets: tuple[Sheet, ...]
    """The pictures, from left to right."""
    essential: bool = True
    """Whether they are visible at once; otherwise the reader unfolds them."""


class Pictures:
    """The arrays kept with the first seed of each setting that has any; each file is read once."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._arrays = {setting: arrays for setting in settings if (arrays := _first(setting)) is not None}

    @property
    def settings(self) -> list[Setting]:
        """The settings that have pictures."""
        return list(self._arrays)

    def of(self, setting: Setting) -> Arrays:
        """The arrays of a setting that has pictures."""
        return self._arrays[setting]

    def last_samples(self, setting: Setting) -> np.ndarray | None:
        """Its samples (N, C, H, W) at the end of training; None where there are none."""
        names = sorted(name for name in self.of(setting).arrays if name.startswith(SAMPLES))
        return self.of(setting).images(names[-1]) if names else None


def _first(setting: Setting) -> Arrays | None:
    for record in setting.measured:
        if (arrays := Arrays.read(setting.folder, record)) is not None:
            return arrays
    return None


def blocks(settings: Sequence[Setting]) -> tuple[list[Block], int]:
    """The blocks of a page, essential ones first, and the number of blocks that are left out."""
    pictures = Pictures(settings)
    made = [
        *_own(pictures, essential=True),
        *_sweeps(pictures),
        *_planes(pictures),
        *_autoencoders(pictures),
        *_own(pictures, essential=False),
    ]
    return made[:MOST_BLOCKS], max(0, len(made) - MOST_BLOCKS)


def _own(pictures: Pictures, *, essential: bool) -> Iterator[Block]:
    """The pictures of single settings: of the best one of every likelihood, or of all others."""
    first = [best(group)[0] for group in by_likelihood(pictures.settings).values()] or pictures.settings[:1]
    for setting in pictures.settings:
        if (setting in first) is essential and (sheets := _sheets(pictures.of(setting))):
            yield Block(f"{setting.data}: {setting.name}", OWN_CAPTION if essential else "", tuple(sheets), essential)


def _sheets(arrays: Arrays) -> list[Sheet]:
    """Samples over training, then the arrays of `LAYOUTS` that were kept."""
    made = [
        Sheet.of(_epoch(name), grid(arrays.images(name)[: SIDE * SIDE], SIDE))
        for name in sorted(name for name in arrays.arrays if name.startswith(SAMPLES))
    ]
    return made + [
        Sheet.of(label, layout(arrays.rows(name)), 2 * NARROW)
        for name, (label, layout) in LAYOUTS.items()
        if name in arrays.arrays
    ]


def _epoch(name: str) -> str:
    epoch = visible(name.removeprefix(SAMPLES).lstrip("0") or "0")
    return "samples before training" if epoch == "0" else f"samples after epoch {epoch}"


def _pairs(rows: np.ndarray) -> np.ndarray:
    """Rows (2, N, C, H, W), one above the other, at most 16 wide."""
    return _lines(rows[:2, :16])


def _lines(rows: np.ndarray) -> np.ndarray:
    return grid(rows.reshape(-1, *rows.shape[2:]), rows.shape[1])


LAYOUTS: Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "reconstructions": ("test images above their reconstructions", _pairs),
    "neighbours": ("samples above their nearest training images", _pairs),
    "interpolations": ("from one test image to another through the latent space", _lines),
}


def _sweeps(pictures: Pictures) -> Iterator[Block]:
    """Last samples of models that differ only in β, or only in z."""
    for axis, (heading, caption) in SWEEPS.items():
        for group in by_likelihood(pictures.settings).values():
            for family in families(group, axis):
                sheets = list(_side_by_side(pictures, family, short_names(family)))
                if len(sheets) > 1:
                    fixed = f"z = {family[0].z_dim}" if axis == "beta" else f"β = {family[0].beta:g}"
                    where = f"{likelihood_title(family[0].likelihood or ('', ''))}, {family[0].model}, {fixed}"
                    yield Block(f"{heading}: {where}", caption, tuple(sheets))


def _side_by_side(
    pictures: Pictures, settings: Sequence[Setting], names: Sequence[str], width: int = NARROW
) -> Iterator[Sheet]:
    for setting, name in zip(settings, names, strict=True):
        if (samples := pictures.last_samples(setting)) is not None:
            yield Sheet.of(name, grid(samples[: SIDE * SIDE], SIDE), width)


def _planes(pictures: Pictures) -> Iterator[Block]:
    for data, group in by_data(pictures.settings).items():
        known = [setting for setting in group if "manifold" in pictures.of(setting).arrays]
        sheets = []
        for setting, name in zip(known, short_names(known), strict=True):
            points = pictures.of(setting).images("manifold")
            sheets.append(Sheet.of(name, grid(points, math.isqrt(len(points)), gap=0), 2 * NARROW))
        if sheets:
            yield Block(f"{PLANE_TITLE} on {data}", PLANE_CAPTION, tuple(sheets))


def _autoencoders(pictures: Pictures) -> Iterator[Block]:
    """An autoencoder's samples beside those of the VAE of the same data and z whose β is nearest to 1."""
    for plain in pictures.settings:
        if plain.likelihood is not None:
            continue
        peers = [s for s in pictures.settings if s.likelihood and (s.data, s.z_dim) == (plain.data, plain.z_dim)]
        if peers:
            peer = min(peers, key=lambda setting: (setting.levels != plain.levels, abs(setting.beta - 1)))
            pair = [plain, peer]
            labels = [f"{setting.model}{_distortion(setting)}" for setting in pair]
            sheets = tuple(_side_by_side(pictures, pair, labels, WIDTH))
            heading = f"Why an autoencoder is not generative: {plain.data}, z = {plain.z_dim}"
            yield Block(heading, AUTOENCODER_CAPTION, sheets)


def _distortion(setting: Setting) -> str:
    distortion = setting.metric("distortion_bpd")
    return f", distortion {distortion.value:.3f} bits per dimension" if distortion else ""
