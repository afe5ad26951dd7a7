"""The figures of generative models: bounds by number of samples, rate against distortion, the rate of each unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from epsbench.harness.report.drawing.curves import close_up
from epsbench.harness.report.drawing.style import (
    Theme,
    axis_titles,
    direct_labels,
    figure,
    legend,
    panels,
    samples_axis,
    svg,
    text,
)
from epsbench.harness.report.generative.settings import Bound, Dimensions, Estimate
from epsbench.harness.statistics import normal_quantile

MOST_DIMENSIONS = 64
ACTIVE_VARIANCE = 0.01
DASH = (3.0, 1.6)


@dataclass(frozen=True)
class Bounds:
    """The bounds of one model."""

    title: str
    """The model's name in the figure."""
    elbo: Estimate
    """The evidence lower bound."""
    importance: Bound | None
    """The importance-weighted bound by its number of samples."""
    prior: Bound | None
    """The bound by Monte Carlo from the prior, by its number of samples."""


@dataclass(frozen=True)
class Gain:
    """How much tighter than the ELBO the importance-weighted bound is, in bits per dimension."""

    gain: Bound
    """The gain by the number of samples, over all test images."""
    last: Estimate | None = None
    """The paired difference at the largest number of samples, with its interval."""
    long: Bound | None = None
    """The gain over the first test images, which goes to larger numbers of samples."""


def bounds(shown: Sequence[Bounds], theme: Theme) -> bytes:
    """The bounds of some models against the number of samples, side by side with one height axis.

    Bands are 95 % over images.
    """
    drawing, row = panels(theme, len(shown), height=3.5)
    elbo, importance, prior = theme.ink, theme.lines[0], theme.lines[1]
    values = []
    for axes, panel in zip(row, shown, strict=True):
        curves = [(panel.importance, importance), (panel.prior, prior)]
        counts = [count for curve, _ in curves if curve is not None for count in curve.counts]
        samples_axis(axes)
        axes.set_xlim(min(counts, default=1) / 1.3, max([*counts, 10]) * 1.3)
        axes.axhline(panel.elbo.value, color=elbo, linewidth=1.4, dashes=DASH)
        if panel.elbo.low is not None and panel.elbo.high is not None:
            axes.axhspan(panel.elbo.low, panel.elbo.high, color=elbo, alpha=0.10, linewidth=0)
        values.append(panel.elbo.value)
        for curve, colour in curves:
            if curve is not None:
                _banded(axes, curve, colour)
                values += curve.values
        axis_titles(axes, theme, "samples", panel.title)
    close_up(row[0], values)
    legend(
        drawing,
        theme,
        [
            Line2D([], [], color=elbo, linewidth=1.4, dashes=DASH, label="ELBO"),
            Line2D([], [], color=importance, linewidth=1.8, label="importance weighted (IWAE)"),
            Line2D([], [], color=prior, linewidth=1.8, label="Monte Carlo from the prior"),
        ],
    )
    return svg(drawing)


def _banded(axes: Axes, curve: Bound, colour: str) -> None:
    values, half = np.array(curve.values), normal_quantile() * np.array(curve.errors)
    axes.plot(curve.counts, values, color=colour, linewidth=1.8, marker="o", markersize=3)
    axes.fill_between(curve.counts, values - half, values + half, color=colour, alpha=0.16, linewidth=0)


def gains(shown: Mapping[str, Gain], theme: Theme) -> bytes:
    """How far the importance-weighted bound is below the ELBO, by its number of samples; a colour a model."""
    drawing, axes = figure(theme, height=3.9)
    samples_axis(axes)
    labels, counts = [], [1.0]
    for (label, line), colour in zip(shown.items(), theme.lines, strict=False):
        axes.plot(line.gain.counts, line.gain.values, color=colour, linewidth=1.8, marker="o", markersize=3)
        height = line.gain.values[-1]
        if line.last is not None and line.last.low is not None and line.last.high is not None:
            axes.plot([line.gain.counts[-1]] * 2, [line.last.low, line.last.high], color=colour, linewidth=3, alpha=0.6)
        if line.long is not None:
            axes.plot(line.long.counts, line.long.values, color=colour, linewidth=1.4, dashes=DASH)
            height = line.long.values[-1]
            counts += line.long.counts
        counts += line.gain.counts
        labels.append((height, label, colour))
    axes.set_xlim(min(counts), max(*counts, 10))
    axes.axhline(0, color=theme.faint, linewidth=0.8)
    axis_titles(axes, theme, "importance samples", "bits per dimension below the ELBO")
    direct_labels(axes, labels, 0.07)
    if any(line.long is not None for line in shown.values()):
        kinds = {"all test images": (None, None), "the first test images": DASH}
        legend(drawing, theme, [Line2D([], [], color=theme.faint, dashes=d, label=kind) for kind, d in kinds.items()])
    return svg(drawing)


@dataclass(frozen=True)
class Point:
    """A model in the plane of rate and distortion."""

    beta: float
    """The weight of the rate in its training loss."""
    rate: float
    """In bits per dimension."""
    distortion: float
    """In bits per dimension."""


def rate_distortion(lines: Mapping[str, Sequence[Point]], theme: Theme) -> bytes:
    """Distortion against rate: a point a β, a colour a family; along a faint diagonal their sum, the bpd, is equal."""
    drawing, axes = figure(theme, height=4.4)
    axes.grid(visible=False)
    points = [point for line in lines.values() for point in line]
    left, right = _range([point.rate for point in points])
    bottom, top = _range([point.distortion for point in points])
    axes.set_xlim(max(0.0, left), right)
    axes.set_ylim(bottom, top)
    _diagonals(axes, theme)
    handles = []
    for (label, line), colour in zip(lines.items(), theme.lines, strict=False):
        ordered = sorted(line, key=lambda point: point.rate)
        axes.plot([p.rate for p in ordered], [p.distortion for p in ordered], color=colour, linewidth=1.4)
        for point in ordered:
            axes.plot([point.rate], [point.distortion], color=colour, marker="o", markersize=6)
            axes.annotate(
                f"β = {point.beta:g}",
                (point.rate, point.distortion),
                (7, 6),
                textcoords="offset points",
                color=colour,
                fontsize=9,
            )
        handles.append(Line2D([], [], color=colour, marker="o", linewidth=1.4, label=text(label)))
    axis_titles(axes, theme, "rate (bits per dimension)", "distortion (bits per dimension)")
    if len(lines) > 1:
        legend(drawing, theme, handles)
    return svg(drawing)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.15 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _diagonals(axes: Axes, theme: Theme) -> None:
    """Lines of equal rate plus distortion, with the sum written at their end, beside or above the axes."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for total in MaxNLocator(nbins=9).tick_values(left + bottom, right + top):
        low, high = max(left, total - top), min(right, total - bottom)
        if high <= low:
            continue
        axes.plot([low, high], [total - low, total - high], color=theme.grid, linewidth=0.9, zorder=0.5)
        reaches = high == right
        axes.annotate(
            f"{total:.3g} bpd",
            (high, total - high),
            xytext=(4, 0) if reaches else (0, 3),
            textcoords="offset points",
            ha="left" if reaches else "right",
            va="center" if reaches else "baseline",
            color=theme.faint,
            fontsize=7.5,
            annotation_clip=False,
        )


def units(shown: Mapping[str, Dimensions], theme: Theme) -> bytes:
    """The rate of every latent dimension, the largest first, one panel a model with one height axis.

    Active and inactive dimensions have different colours, and a dot marks the inactive ones. Of more than 64
    dimensions the first 64 are drawn.
    """
    drawing, grid = panels(theme, len(shown), height=2.6)
    active_colour, inactive_colour = theme.lines[0], theme.lines[1]
    for axes, (label, dimensions) in zip(grid, shown.items(), strict=True):
        order = np.argsort(dimensions.rates)[::-1][:MOST_DIMENSIONS]
        active = np.array(dimensions.variances) > ACTIVE_VARIANCE
        places, rates = np.arange(1, len(order) + 1), np.array(dimensions.rates)[order]
        axes.bar(
            places, rates, color=[active_colour if active[index] else inactive_colour for index in order], width=0.8
        )
        dots = ~active[order]
        axes.plot(places[dots], rates[dots], color=inactive_colour, marker="o", markersize=3.5, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.set_xlim(0.3, len(order) + 0.7)
        drawn = f", {MOST_DIMENSIONS} drawn" if len(dimensions.rates) > MOST_DIMENSIONS else ""
        axis_titles(axes, theme, "dimension", f"{label}: {active.sum()} of {len(active)}{drawn}")
    grid[0].set_ylabel(text("rate (nats)"), color=theme.faint)
    patches = [Patch(color=active_colour, label="active"), Patch(color=inactive_colour, label="inactive")]
    legend(drawing, theme, patches)
    return svg(drawing)
