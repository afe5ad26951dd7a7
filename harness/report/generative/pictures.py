"""The pictures of generative models, in blocks: what belongs side by side, and what to look for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epsbench.harness.records import read_pictures
from epsbench.harness.report.generative.settings import (
    Setting,
    best,
    by_data,
    by_likelihood,
    families,
    short_names,
    title,
)
from epsbench.harness.report.pictures import Arrays, grid, png
from epsbench.harness.report.units import visible

WIDTH, NARROW = 350, 230  # CSS pixels of a sheet, alone and among others of its kind
SIDE = 8  # samples on a side of a sheet
MOST_BLOCKS = 12
SAMPLES = "samples_epoch_"
OWN_CAPTION = (
    "Samples are decoded from the same draws of the prior at every epoch: noise becomes strokes, then images of the "
    "data's kind; look for variety and for shapes between two kinds. Reconstructions lose detail first where the "
    "latent is small. An interpolation should change its subject gradually, with every step a plausible image: the "
    "latent has no holes there. A sample that equals the training image below it would have been memorised."
)
SWEEPS = {
    "beta": (
        "Samples at each β",
        "A small β leaves codes that do not fill the prior, so samples are broken; a large one spends too few nats, "
        "so samples are smooth and alike, down to one mean image where no unit is left. Look for where samples are "
        "both whole and varied.",
    ),
    "z_dim": (
        "Samples at each z",
        "A small latent makes blurred but whole images; a larger one sharper images, and more that are of no kind, "
        "for its codes fill the prior less evenly.",
    ),
}
PLANE_TITLE = "The latent plane"
PLANE_CAPTION = (
    "Each image is decoded from one point of the plane, at even quantiles of the standard normal prior on both axes. "
    "Look for how kinds border on each other, and how much of the plane each takes."
)
AUTOENCODER_CAPTION = (
    "Both draw z from the prior and decode it. The autoencoder reconstructs well, but nothing made its codes "
    "fill the prior: the draws fall where the decoder never learned anything, so it is not a generative model. The "
    "VAE's rate is the price of codes that do."
)


@dataclass(frozen=True)
class Sheet:
    """One picture, what it shows, and the width to show it at, in CSS pixels."""

    title: str
    image: bytes
    width: int

    @classmethod
    def of(cls, title: str, image: np.ndarray, target: int = WIDTH) -> Sheet:
        """A sheet of an image (C, H, W), enlarged by a multiple of one half to about ``target`` pixels."""
        width = image.shape[2]
        return cls(title, png(image), round(width * max(1.0, round(2 * target / width) / 2)))


@dataclass(frozen=True)
class Block:
    """Sheets that belong together, with a caption that says what to look for; folded away unless ``essential``."""

    title: str
    caption: str
    sheets: tuple[Sheet, ...]
    essential: bool = True


class Pictures:
    """The arrays kept with the first seed of each setting that has any; each file is read once."""

    def __init__(self, held: Sequence[Setting]) -> None:
        self._held = {setting: arrays for setting in held if (arrays := _first(setting)) is not None}

    @property
    def settings(self) -> list[Setting]:
        return list(self._held)

    def of(self, setting: Setting) -> Arrays:
        return self._held[setting]

    def last_samples(self, setting: Setting) -> np.ndarray | None:
        """Its samples (N, C, H, W) at the end of training; None where there are none."""
        names = sorted(name for name in self.of(setting).arrays if name.startswith(SAMPLES))
        return self.of(setting).images(names[-1]) if names else None


def _first(setting: Setting) -> Arrays | None:
    for record in setting.held:
        if arrays := read_pictures(setting.folder, record):
            return Arrays(setting.folder / "pictures" / f"{record.id}.npz", arrays)
    return None


def blocks(held: Sequence[Setting]) -> tuple[list[Block], int]:
    """The blocks of a page, what is essential first, and how many more there would be."""
    pictures = Pictures(held)
    made = [
        *_own(pictures, essential=True),
        *_sweeps(pictures),
        *_planes(pictures),
        *_autoencoders(pictures),
        *_own(pictures, essential=False),
    ]
    return made[:MOST_BLOCKS], max(0, len(made) - MOST_BLOCKS)


def _own(pictures: Pictures, *, essential: bool) -> Iterator[Block]:
    """A setting's own pictures: of the best of every likelihood, or of all others."""
    first = [best(group)[0] for group in by_likelihood(pictures.settings).values()] or pictures.settings[:1]
    for setting in pictures.settings:
        if (setting in first) is essential and (sheets := _sheets(pictures.of(setting))):
            yield Block(f"{setting.data}: {setting.name}", OWN_CAPTION if essential else "", tuple(sheets), essential)


def _sheets(arrays: Arrays) -> list[Sheet]:
    """Samples over training, then whatever else of `LAYOUTS` was kept."""
    made = [
        Sheet.of(_epoch(name), grid(arrays.images(name)[: SIDE * SIDE], SIDE))
        for name in sorted(name for name in arrays.arrays if name.startswith(SAMPLES))
    ]
    return made + [
        Sheet.of(told, layout(arrays.rows(name)), 2 * NARROW)
        for name, (told, layout) in LAYOUTS.items()
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
    "interpolations": ("from one test image to another through the latent", _lines),
}


def _sweeps(pictures: Pictures) -> Iterator[Block]:
    """Last samples of models that differ in β, or in z, alone."""
    for axis, (heading, caption) in SWEEPS.items():
        for group in by_likelihood(pictures.settings).values():
            for family in families(group, axis):
                sheets = list(_side_by_side(pictures, family, short_names(family)))
                if len(sheets) > 1:
                    fixed = f"z = {family[0].z_dim}" if axis == "beta" else f"β = {family[0].beta:g}"
                    where = f"{title(family[0].likelihood or ('', ''))}, {family[0].model}, {fixed}"
                    yield Block(f"{heading}: {where}", caption, tuple(sheets))


def _side_by_side(
    pictures: Pictures, held: Sequence[Setting], names: Sequence[str], width: int = NARROW
) -> Iterator[Sheet]:
    for setting, name in zip(held, names, strict=True):
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
            told = [f"{setting.model}{_distortion(setting)}" for setting in pair]
            sheets = tuple(_side_by_side(pictures, pair, told, WIDTH))
            heading = f"Why an autoencoder is not generative: {plain.data}, z = {plain.z_dim}"
            yield Block(heading, AUTOENCODER_CAPTION, sheets)


def _distortion(setting: Setting) -> str:
    held = setting.metric("distortion_bpd")
    return f", distortion {held.value:.3f} bits per dimension" if held else ""
