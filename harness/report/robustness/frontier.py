"""Robust accuracy against seconds of training, and the frontier: models that no other beats in both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from epsbench.harness.report.drawing.style import Theme, axis_titles, figure, hollow_point, legend, point_labels, svg
from epsbench.harness.report.results.units import defense_name, scalar
from epsbench.harness.report.robustness.leaderboard import Board, Row
from epsbench.harness.report.robustness.training_cost import training_seconds

ROUND = tuple(digit * 10.0**power for power in range(-1, 7) for digit in (1, 2, 5))
MOST_LABELS = 14  # as many as fit beside the axes
WIDE = 8.0  # the axis is logarithmic where the longest training takes this many times the shortest


@dataclass(frozen=True)
class Point:
    """One way of training."""

    label: str
    """The model's label in the figure."""
    defended: bool
    """Whether it was trained with a defense."""
    seconds: float
    """The time of one training, the mean over seeds."""
    seconds_sd: float
    """Its standard deviation over seeds; 0 for one seed."""
    accuracy: float
    """The worst case over attacks, a share in [0, 1], the mean over seeds."""
    accuracy_sd: float
    """Its standard deviation over seeds; 0 for one seed."""
    bound: bool
    """Whether the accuracy is only an upper bound, because the result of an attack is missing."""


def frontiers(board: Board) -> dict[str, list[Point]]:
    """The points of a board at the ε it is ranked by, one set for every device that trained at least two defenses.

    Training times of different devices cannot be compared.
    """
    sets: dict[str, list[Point]] = defaultdict(list)
    varying = len({row.model for row in board.rows}) > 1, len({row.augmentation for row in board.rows}) > 1
    for row in board.rows:
        if (point := _point(board, row, *varying)) is not None:
            sets[scalar(row.records[0].cost.get("device", ""))].append(point)
    return {device: points for device, points in sets.items() if sum(p.defended and not p.bound for p in points) > 1}


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points for which no other is more robust and trains no longer, ascending in both; bounds are left out."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.seconds, -one.accuracy)):
        if not point.bound and (not best or point.accuracy > best[-1].accuracy):
            best.append(point)
    return best


def draw(board: Board, points: Sequence[Point], theme: Theme) -> bytes:
    """One point a model with bars of one standard deviation, and the frontier as a stepped line; as SVG.

    Of many points only those on the frontier have a label.
    """
    drawing, axes = figure(theme, height=4.2)
    front = pareto(points)
    seconds = [point.seconds for point in points]
    wide = max(seconds) > WIDE * min(seconds)
    if wide:
        axes.set_xscale("log")
    axes.set_xlim((min(seconds) / 1.3) if wide else 0.0, max(seconds) * (1.3 if wide else 1.08))
    axes.set_ylim(-0.02, 1.02)
    right = axes.get_xlim()[1]
    axes.plot(
        [*(point.seconds for point in front), right],
        [*(point.accuracy for point in front), front[-1].accuracy],
        drawstyle="steps-post",
        color=theme.faint,
        linewidth=1.2,
    )
    labels = []
    labelled = {id(point) for point in (points if len(points) <= MOST_LABELS else front[-MOST_LABELS:])}
    for index, point in enumerate(points):
        colour = theme.lines[index % len(theme.lines)]
        axes.errorbar(
            point.seconds,
            point.accuracy,
            xerr=point.seconds_sd or None,
            yerr=point.accuracy_sd or None,
            color=colour,
            marker="o",
            markersize=6,
            markerfacecolor=theme.paper if point.bound else colour,
            linewidth=1.2,
            clip_on=False,
        )
        if id(point) in labelled:
            labels.append((point.seconds, point.accuracy, point.label, colour))
    if wide:
        ticks = [tick for tick in ROUND if axes.get_xlim()[0] <= tick <= right]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis_titles(axes, theme, "seconds of training", f"worst case on {board.where}")
    point_labels(axes, labels, 0.065)
    handles = [Line2D([], [], color=theme.faint, linewidth=1.2, label="frontier")]
    if any(point.bound for point in points):
        handles.append(hollow_point(theme, "upper bound"))
    legend(drawing, theme, handles)
    return svg(drawing)


def _point(board: Board, row: Row, models: bool, augmentations: bool) -> Point | None:
    """A row as a point. ``models`` and ``augmentations`` say whether these differ between the rows, for its label."""
    score, seconds = row.worst.get(board.ranked[0]), list(training_seconds(row).values())
    if score is None or score.value is None or not seconds:
        return None
    spread = stdev(seconds) if len(seconds) > 1 else 0.0
    label = _label(row, models, augmentations)
    return Point(label, row.defense != "none", mean(seconds), spread, score.value, score.sd or 0.0, bool(score.note))


def _label(row: Row, models: bool, augmentations: bool) -> str:
    """The defense, and of the other axes those that differ between the rows."""
    parts = [row.model] if models else []
    parts.append(defense_name(row.defense))
    parts += [row.augmentation] if augmentations else []
    return " + ".join(part for part in parts if part != "none") + (f" ({row.extra})" if row.extra else "")
