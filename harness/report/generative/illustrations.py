"""Which figures a page draws of its generative models, and what to look for in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import replace
from functools import partial

from epsbench.harness.report.figures import ROWS_PER_PANEL
from epsbench.harness.report.generative import figures
from epsbench.harness.report.generative.settings import (
    Bound,
    Likelihood,
    Setting,
    best,
    by_data,
    by_likelihood,
    distinct,
    families,
    short_names,
    shorten,
    title,
)
from epsbench.harness.report.illustrations import Illustration, Splits, both, curve, training

MOST_BOUNDS = 8
MOST_UNITS = 12
FEWEST_BETAS = 3
TRAINING_CAPTION = (
    "Lower is better. Training starts near log2 of the number of grey levels, an even guess, and falls fast at first. "
    "A validation curve that rises while the training curve falls is overfitting. Of several seeds, the first."
)
BOUNDS_CAPTION = (
    "Every curve bounds the same likelihood from above, so lower is tighter. Bands are 95 % over images: the prior's "
    "draws are shared by all of them, and its band leaves out their luck. Look at how far right the prior's curve "
    "must go to meet the ELBO: a few latent dimensions are searched by luck, with more the curve hangs above and more "
    "samples hardly help, for hardly any lands near the code of an image. Importance weighting starts at the ELBO "
    "whatever the dimension. Of several seeds, the first."
)
GAINS_CAPTION = (
    "What the ELBO gives away because the encoder's Gaussian is not the true posterior: the curve rises as samples "
    "are added and levels off near the true gap. A bar is the 95 % interval of the paired difference. Of several "
    "seeds, the first."
)
RATE_CAPTION = (
    "Every β buys reconstruction with rate at another price. Towards the lower right the code says more and the image "
    "is restored better; a faint diagonal joins what costs the same in all, so the β nearest the lower left has the "
    "best bits per dimension, as a rule β = 1, which trains on just that sum. Means over seeds."
)
UNITS_CAPTION = (
    "Nats that each latent dimension carries, largest first. A unit is active when its posterior mean varies by more "
    "than 0.01 over the test images. Look for how many go dead, at zero rate, as β or the dimension grows: the model "
    "switches off what is not worth its price. Of several seeds, the first."
)


def likelihood_figures(held: Sequence[Setting]) -> Iterator[Illustration]:
    """Bounds by number of samples, and the gain of importance weighting, for every likelihood."""
    for likelihood, group in by_likelihood(held).items():
        for family in _told(group):
            yield from _bounds(likelihood, family)
            yield from _gains(likelihood, family)


def _told(group: Sequence[Setting]) -> list[list[Setting]]:
    """Families over z of at least two models with bounds; where there are none, the best model alone."""
    known = [seed for setting in group if (seed := _one_seed(setting)) is not None]
    several = [family for family in families(known, "z_dim") if len(family) > 1]
    return several or [best(known)[:1]] * bool(known)


def _one_seed(setting: Setting) -> Setting | None:
    """The setting with its first seed that has bounds: an ELBO and curves go together only within a seed."""
    for record in setting.held:
        if "test_bpd" in record.metrics and {"importance_k", "prior_l"} & record.curves.keys():
            return replace(setting, records=(record,))
    return None


def _importance(setting: Setting) -> Bound | None:
    return setting.bound("importance_bpd", "importance_k")


def _bounds(likelihood: Likelihood, family: Sequence[Setting]) -> Iterator[Illustration]:
    shown = [
        figures.Bounds(name, elbo, _importance(setting), setting.bound("prior_bpd", "prior_l"))
        for setting, name in zip(family, short_names(family), strict=True)
        if (elbo := setting.metric("test_bpd")) is not None
    ]
    draw = partial(figures.bounds, shown[:MOST_BOUNDS])
    heading = f"Bounds by number of samples: {title(likelihood)}"
    yield both(heading, _caption(BOUNDS_CAPTION, shown, MOST_BOUNDS), draw, wide=len(shown) > 1)


def _gains(likelihood: Likelihood, family: Sequence[Setting]) -> Iterator[Illustration]:
    names = short_names(family)
    gains = {name: gain for name, setting in zip(names, family, strict=True) if (gain := _gain(setting)) is not None}
    for start in range(0, len(gains), ROWS_PER_PANEL):
        part = dict(list(gains.items())[start : start + ROWS_PER_PANEL])
        heading = f"What importance weighting gains: {title(likelihood)}"
        yield both(heading, GAINS_CAPTION, partial(figures.gains, part))


def _gain(setting: Setting) -> figures.Gain | None:
    gain = _below(setting, "test_bpd", _importance(setting))
    long = _below(setting, "long_elbo_bpd", setting.bound("long_importance_bpd", "long_importance_k"))
    return None if gain is None else figures.Gain(gain, setting.metric("importance_gap_bpd"), long)


def _below(setting: Setting, elbo: str, bound: Bound | None) -> Bound | None:
    """A bound as its distance below the ELBO of the same images."""
    metric = setting.metric(elbo)
    if metric is None or bound is None:
        return None
    return Bound(bound.counts, [metric.value - value for value in bound.values], bound.errors)


def latent_figures(held: Sequence[Setting]) -> Iterator[Illustration]:
    """Rate against distortion where at least three β share the rest, and the units of every model."""
    for likelihood, group in by_likelihood(held).items():
        planes = [(name, points) for name, points in _planes(group) if len(points) >= FEWEST_BETAS]
        lines = dict(zip(distinct([name for name, _ in planes]), (points for _, points in planes), strict=True))
        if lines:
            draw = partial(figures.rate_distortion, dict(list(lines.items())[:ROWS_PER_PANEL]))
            yield both(f"Rate and distortion over β: {title(likelihood)}", RATE_CAPTION, draw)
    for data, group in by_data(held).items():
        known = [(setting, dimensions) for setting in group if (dimensions := setting.dimensions()) is not None]
        names = short_names([setting for setting, _ in known])
        shown = {name: dimensions for name, (_, dimensions) in zip(names, known, strict=True)}
        if shown:
            draw = partial(figures.units, dict(list(shown.items())[:MOST_UNITS]))
            heading = f"What each latent dimension carries on {data}"
            yield both(heading, _caption(UNITS_CAPTION, shown, MOST_UNITS), draw, wide=len(shown) > 1)


def _caption(caption: str, shown: Sized, most: int) -> str:
    return f"{caption} {len(shown) - most} more models not drawn." if len(shown) > most else caption


def _planes(group: Sequence[Setting]) -> Iterator[tuple[str, list[figures.Point]]]:
    over_beta = families(group, "beta")
    for family in over_beta:
        points = [
            figures.Point(setting.beta, rate.value, distortion.value)
            for setting in family
            if (rate := setting.metric("rate_bpd")) and (distortion := setting.metric("distortion_bpd"))
        ]
        yield f"{shorten(family[0].model)}, z = {family[0].z_dim}", points


def training_figures(held: Sequence[Setting]) -> Iterator[Illustration]:
    """How the bits per dimension fell, for every likelihood."""
    for likelihood, group in by_likelihood(held).items():
        lines: dict[str, Splits] = {}
        for setting, name in zip(group, short_names(group), strict=True):
            if splits := curve(setting.held, validation="validation_bpd", training="train_bpd"):
                lines[name] = splits
        heading = f"Bits per dimension on {title(likelihood)}"
        yield from training(heading, TRAINING_CAPTION, lines, "bits per dimension", share=False)
