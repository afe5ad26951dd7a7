"""Natural against robust accuracy: one point a model, with the intervals of both."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from epsbench.harness.report.drawing.style import Theme, axis_titles, figure, hollow_point, legend, point_labels, svg
from epsbench.harness.report.robustness.leaderboard import Board, Row
from epsbench.harness.statistics import ends

FEWEST, MOST_LABELS = 2, 14


def tradeoff_rows(board: Board) -> list[Row]:
    """The rows that have both accuracies at the ε of the ranks; empty where there are fewer than two."""
    eps, _ = board.ranked
    rows = [row for row in board.rows if row.clean.value is not None and row.worst[eps].value is not None]
    return rows if len(rows) >= FEWEST else []


def draw_tradeoff(board: Board, rows: Sequence[Row], theme: Theme) -> bytes:
    """A point a model with bars of the 95 % intervals; the dashed line is where an attack would cost nothing."""
    drawing, axes = figure(theme, height=4.2)
    eps, _ = board.ranked
    labels = []
    for index, row in enumerate(rows):
        clean, worst = row.clean, row.worst[eps]
        x, y, colour = clean.value or 0.0, worst.value or 0.0, theme.lines[index % len(theme.lines)]
        (left_end, right_end), (lower_end, upper_end) = (
            ends(value, score.low, score.high) for value, score in ((x, clean), (y, worst))
        )
        axes.errorbar(
            [x], [y],
            xerr=[[x - left_end], [right_end - x]],
            yerr=[[y - lower_end], [upper_end - y]],
            color=colour, marker="o", markersize=6, markerfacecolor=theme.paper if worst.bound else colour,
            linewidth=1.2, clip_on=False,
        )  # fmt: skip
        if index < MOST_LABELS:
            labels.append((x, y, row.label, colour))
    lowest = min((row.clean.low or row.clean.value or 0.0 for row in rows), default=0.0)
    left = max(0.0, lowest - 0.05)
    axes.set_xlim(left, 1.005)
    axes.set_ylim(-0.02, 1.02)
    axes.plot([left, 1.0], [left, 1.0], color=theme.faint, linewidth=1.0, dashes=(3.0, 2.0))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis_titles(axes, theme, "clean accuracy", f"worst case on {board.where}")
    point_labels(axes, labels, 0.065)
    handles = [Line2D([], [], color=theme.faint, linewidth=1.0, dashes=(3.0, 2.0), label="robust = clean")]
    if any(row.worst[eps].bound for row in rows):
        handles.append(hollow_point(theme, "upper bound"))
    legend(drawing, theme, handles)
    return svg(drawing)
