"""The figures that a page shows of generative models, and what to look for in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from epsbench.harness.report.drawing.curves import MOST_DRAWN, ROWS_PER_PANEL
from epsbench.harness.report.drawing.illustration import Illustration, Splits, both, curve, training, with_count
from epsbench.harness.report.drawing.plot import Plot, Point, Series
from epsbench.harness.report.generative import figures
from epsbench.harness.report.generative.settings import (
    Bound,
    Likelihood,
    Setting,
    best,
    by_data,
    by_likelihood,
    families,
    likelihood_title,
    short_names,
    shorten,
)
from epsbench.harness.report.results.units import distinct
from epsbench.harness.statistics import normal_quantile

MOST_BOUNDS = 8
MOST_UNITS = 12
FEWEST_BETAS = 3
TRAINING_CAPTION = (
    "Lower is better. Training starts near log2 of the number of grey levels, which is a uniform guess, and falls "
    "fast at first. A validation curve that rises while the training curve falls shows overfitting. Where there are "
    "several seeds, the first is drawn."
)
BOUNDS_CAPTION = (
    "Every curve is an upper bound of the same quantity: lower is tighter. Bands are 95 % over images. All images "
    "share the draws from the prior, so that band does not include their randomness. Look at how many samples from "
    "the prior the bound needs to reach the ELBO: with few latent dimensions some samples fit the image; with many "
    "hardly any does, and more samples help little. Importance weighting starts at the ELBO with any number of "
    "dimensions. Where there are several seeds, the first is drawn."
)
GAINS_CAPTION = (
    "The loss of the ELBO because the encoder's Gaussian is not the true posterior. The curve rises with the number of "
    "samples and levels off near the true gap. A bar is the 95 % interval of the paired difference. Where there are "
    "several seeds, the first is drawn."
)
RATE_CAPTION = (
    "β sets how much rate the model spends on its reconstruction. Towards the lower right the code carries more and "
    "the image is reconstructed better. Rate plus distortion is constant along a faint diagonal, so the point nearest "
    "the lower left has the best bits per dimension; as a rule this is β = 1, which trains on just that sum. Means "
    "over seeds."
)
UNITS_CAPTION = (
    "The rate of each latent dimension in nats, largest first. A unit is active when the variance of its posterior "
    "mean over the test images is above 0.01. Look for how many units become inactive, at zero rate, as β or the "
    "dimension grows: the model does not use them, because they cost more rate than they save distortion. Where there "
    "are several seeds, the first is drawn."
)


def likelihood_figures(settings: Sequence[Setting]) -> Iterator[Illustration]:
    """For every likelihood: bounds by number of samples, and the gain of importance weighting."""
    for likelihood, group in by_likelihood(settings).items():
        for family in _drawn(group):
            yield from _bounds(likelihood, family)
            yield from _gains(likelihood, family)


def _drawn(group: Sequence[Setting]) -> list[list[Setting]]:
    """Families over z of at least two models with bounds; where there is none, the best model alone."""
    known = [seed for setting in group if (seed := _one_seed(setting)) is not None]
    several = [family for family in families(known, "z_dim") if len(family) > 1]
    return several or [best(known)[:1]] * bool(known)


def _one_seed(setting: Setting) -> Setting | None:
    """The setting with only its first seed that has bounds: the ELBO and the curves must be of the same seed."""
    for record in setting.measured:
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
    plot = _bounds_plot(shown[:MOST_BOUNDS])
    heading = f"Bounds by number of samples: {likelihood_title(likelihood)}"
    yield both(heading, with_count(BOUNDS_CAPTION, len(shown), MOST_BOUNDS), draw, wide=len(shown) > 1, plot=plot)


def _bounds_plot(shown: Sequence[figures.Bounds]) -> Plot:
    series = []
    for colour, model in enumerate(shown):
        name = f"{model.title}, " if len(shown) > 1 else ""
        for label, bound, dash in (("IWAE", model.importance, 0), ("Monte Carlo from the prior", model.prior, 1)):
            if bound is not None:
                series.append(Series(name + label, _with_errors(bound), colour % 7, dash))
        counts = [count for bound in (model.importance, model.prior) if bound is not None for count in bound.counts]
        elbo = model.elbo
        points = [
            Point(count, elbo.value, elbo.low, elbo.high) for count in (min(counts, default=1), max(counts, default=10))
        ]
        series.append(Series(f"{name}ELBO", tuple(points), colour % 7, 2))
    return Plot("samples", "bits per dimension", tuple(series), x_log=True, y_log=True)


def _gains(likelihood: Likelihood, family: Sequence[Setting]) -> Iterator[Illustration]:
    names = short_names(family)
    gains = {name: gain for name, setting in zip(names, family, strict=True) if (gain := _gain(setting)) is not None}
    drawn, caption = list(gains.items())[:MOST_DRAWN], with_count(GAINS_CAPTION, len(gains))
    for start in range(0, len(drawn), ROWS_PER_PANEL):
        part = dict(drawn[start : start + ROWS_PER_PANEL])
        heading = f"Gain of importance weighting: {likelihood_title(likelihood)}"
        yield both(heading, caption, partial(figures.gains, part), plot=_gains_plot(part), data=likelihood[0])


def _gains_plot(gains: Mapping[str, figures.Gain]) -> Plot:
    series = []
    for colour, (name, gain) in enumerate(gains.items()):
        for label, bound, dash in ((name, gain.gain, 0), (f"{name}, the first test images", gain.long, 1)):
            if bound is not None:
                series.append(Series(label, _with_errors(bound), colour, dash))
    return Plot("importance samples", "bits per dimension below the ELBO", tuple(series), x_log=True)


def _with_errors(bound: Bound) -> tuple[Point, ...]:
    half = [normal_quantile() * error for error in bound.errors]
    numbers = zip(bound.counts, bound.values, half, strict=True)
    return tuple(Point(count, value, value - error, value + error) for count, value, error in numbers)


def _gain(setting: Setting) -> figures.Gain | None:
    gain = _below(setting, "test_bpd", _importance(setting))
    long = _below(setting, "long_elbo_bpd", setting.bound("long_importance_bpd", "long_importance_k"))
    return None if gain is None else figures.Gain(gain, setting.metric("importance_gap_bpd"), long)


def _below(setting: Setting, elbo: str, bound: Bound | None) -> Bound | None:
    """The ELBO of the same images minus a bound."""
    metric = setting.metric(elbo)
    if metric is None or bound is None:
        return None
    return Bound(bound.counts, [metric.value - value for value in bound.values], bound.errors)


def latent_figures(settings: Sequence[Setting]) -> Iterator[Illustration]:
    """Rate against distortion where at least three settings differ only in β, and the units of every model."""
    for likelihood, group in by_likelihood(settings).items():
        planes = [(name, points) for name, points in _planes(group) if len(points) >= FEWEST_BETAS]
        lines = dict(zip(distinct([name for name, _ in planes]), (points for _, points in planes), strict=True))
        if lines:
            draw = partial(figures.rate_distortion, dict(list(lines.items())[:ROWS_PER_PANEL]))
            yield both(f"Rate and distortion over β: {likelihood_title(likelihood)}", RATE_CAPTION, draw)
    for data, group in by_data(settings).items():
        known = [(setting, dimensions) for setting in group if (dimensions := setting.dimensions()) is not None]
        names = short_names([setting for setting, _ in known])
        shown = {name: dimensions for name, (_, dimensions) in zip(names, known, strict=True)}
        if shown:
            draw = partial(figures.units, dict(list(shown.items())[:MOST_UNITS]))
            heading = f"Rate of each latent dimension on {data}"
            yield both(heading, with_count(UNITS_CAPTION, len(shown), MOST_UNITS), draw, wide=len(shown) > 1)


def _planes(group: Sequence[Setting]) -> Iterator[tuple[str, list[figures.Point]]]:
    over_beta = families(group, "beta")
    for family in over_beta:
        points = [
            figures.Point(setting.beta, rate.value, distortion.value)
            for setting in family
            if (rate := setting.metric("rate_bpd")) and (distortion := setting.metric("distortion_bpd"))
        ]
        yield f"{shorten(family[0].model)}, z = {family[0].z_dim}", points


def training_figures(settings: Sequence[Setting]) -> Iterator[Illustration]:
    """Bits per dimension by epoch, for every likelihood."""
    for likelihood, group in by_likelihood(settings).items():
        lines: dict[str, Splits] = {}
        for setting, name in zip(group, short_names(group), strict=True):
            if splits := curve(setting.measured, validation="validation_bpd", training="train_bpd"):
                lines[name] = splits
        heading = f"Bits per dimension on {likelihood_title(likelihood)}"
        yield from training(heading, TRAINING_CAPTION, lines, "bits per dimension", share=False)
