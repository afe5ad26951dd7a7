"""The figures of generative models: bounds by number of samples, rate against distortion, units by their rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from epsbench.harness.report.figures import close_up
from epsbench.harness.report.generative.settings import Bound, Dimensions, Estimate
from epsbench.harness.report.style import (
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
from epsbench.harness.statistics import normal_quantile

MOST_DIMENSIONS = 64
ACTIVE_VARIANCE = 0.01
DASH = (3.0, 1.6)


@dataclass(frozen=True)
class Bounds:
    """The bounds of one model: the ELBO, and by the number of samples importance weighting and the prior."""

    title: str
    elbo: Estimate
    importance: Bound | None
    prior: Bound | None


@dataclass(frozen=True)
class Gain:
    """What importance weighting gains over the ELBO by its number of samples, in bits per dimension. ``last`` is the
    measured gain at the last number with its interval, where there is one; ``long`` that over the first images."""

    gain: Bound
    last: Estimate | None = None
    long: Bound | None = None


def bounds(shown: Sequence[Bounds], theme: Theme) -> bytes:
    """The bounds of some models against the number of samples, side by side on one height axis.

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
    """How far importance weighting lies below the ELBO by its number of samples, a colour a model."""
    drawing, axes = figure(theme, height=3.9)
    samples_axis(axes)
    labels, counts = [], [1.0]
    for (label, held), colour in zip(shown.items(), theme.lines, strict=False):
        axes.plot(held.gain.counts, held.gain.values, color=colour, linewidth=1.8, marker="o", markersize=3)
        height = held.gain.values[-1]
        if held.last is not None and held.last.low is not None and held.last.high is not None:
            axes.plot([held.gain.counts[-1]] * 2, [held.last.low, held.last.high], color=colour, linewidth=3, alpha=0.6)
        if held.long is not None:
            axes.plot(held.long.counts, held.long.values, color=colour, linewidth=1.4, dashes=DASH)
            height = held.long.values[-1]
            counts += held.long.counts
        counts += held.gain.counts
        labels.append((height, label, colour))
    axes.set_xlim(min(counts), max(*counts, 10))
    axes.axhline(0, color=theme.faint, linewidth=0.8)
    axis_titles(axes, theme, "importance samples", "bits per dimension below the ELBO")
    direct_labels(axes, labels, 0.07)
    if any(held.long is not None for held in shown.values()):
        kinds = {"all test images": (None, None), "the first test images": DASH}
        legend(drawing, theme, [Line2D([], [], color=theme.faint, dashes=d, label=kind) for kind, d in kinds.items()])
    return svg(drawing)


@dataclass(frozen=True)
class Point:
    """A model on the plane of rate and distortion, in bits per dimension."""

    beta: float
    rate: float
    distortion: float


def rate_distortion(lines: Mapping[str, Sequence[Point]], theme: Theme) -> bytes:
    """Distortion against rate, a point a β, a colour a family; on a faint diagonal every point has the same bpd."""
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
    """Lines of equal rate plus distortion; each is named where it ends, beside or above the edge."""
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
    """The rate of every latent dimension, the largest first, small multiples on one height axis; active ones coloured,
    dead ones marked by a dot.

    Of more than 64 dimensions the first 64 are drawn.
    """
    drawing, grid = panels(theme, len(shown), height=2.6)
    alive, dead = theme.lines[0], theme.lines[1]
    for axes, (label, held) in zip(grid, shown.items(), strict=True):
        order = np.argsort(held.rates)[::-1][:MOST_DIMENSIONS]
        active = np.array(held.variances) > ACTIVE_VARIANCE
        places, rates = np.arange(1, len(order) + 1), np.array(held.rates)[order]
        axes.bar(places, rates, color=[alive if active[index] else dead for index in order], width=0.8)
        axes.plot(places[~active[order]], rates[~active[order]], color=dead, marker="o", markersize=3.5, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.set_xlim(0.3, len(order) + 0.7)
        drawn = f", {MOST_DIMENSIONS} drawn" if len(held.rates) > MOST_DIMENSIONS else ""
        axis_titles(axes, theme, "dimension", f"{label}: {active.sum()} of {len(active)}{drawn}")
    grid[0].set_ylabel(text("rate (nats)"), color=theme.faint)
    legend(drawing, theme, [Patch(color=alive, label="active"), Patch(color=dead, label="dead")])
    return svg(drawing)
