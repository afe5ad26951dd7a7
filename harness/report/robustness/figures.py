"""The figures of a leaderboard as SVG: accuracy against ε, and robust accuracy against gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from epsbench.harness.plan.training_text import number_of_classes
from epsbench.harness.report.drawing.curves import MOST_DRAWN, ROWS_PER_PANEL
from epsbench.harness.report.drawing.style import (
    MARKERS,
    Theme,
    axis_titles,
    direct_labels,
    figure,
    legend,
    svg,
    text,
)
from epsbench.harness.report.results.cells import AttackKey
from epsbench.harness.report.results.units import norm_name
from epsbench.harness.report.robustness.leaderboard import Board, Row
from epsbench.harness.report.robustness.scores import Score
from epsbench.harness.statistics import ends

Dash = tuple[float | None, ...]
DASHES: tuple[Dash, ...] = ((None, None), (5.0, 2.0), (1.5, 1.5), (6.0, 1.5, 1.5, 1.5), (9.0, 3.0))
"""The strokes of a figure's attacks. Stroke and marker tell the attacks on one model apart."""
MOST_EPS = 8
MOST_ATTACKS = 24
Item = TypeVar("Item")
ROUND = tuple(digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5))


def panels(board: Board) -> list[tuple[Row, ...]]:
    """The first rows of a board that have numbers, in panels of at most seven, as many as there are colours."""
    rows = drawable(board)[:MOST_DRAWN]
    return [tuple(rows[start : start + ROWS_PER_PANEL]) for start in range(0, len(rows), ROWS_PER_PANEL)]


def drawable(board: Board) -> list[Row]:
    """The rows of a board that have numbers."""
    return [row for row in board.rows if any(score.value is not None for score in row.attacks.values())]


def accuracy(board: Board, rows: Sequence[Row], theme: Theme) -> bytes:
    """Accuracy against ε: a colour a model, a marker and a stroke an attack, bands the 95 % intervals; the
    thick line is the worst case. At ε = 0 stands the clean accuracy."""
    drawing, axes = figure(theme, height=4.2)
    attacks = _some(list(board.labels), MOST_ATTACKS)
    labels = []
    for row, colour in zip(rows, theme.lines, strict=False):
        for attack, marker in zip(attacks, MARKERS * (1 + len(attacks) // len(MARKERS)), strict=False):
            scores = [(eps, row.attacks.get((eps, attack))) for eps, _ in board.eps]
            dash = DASHES[attacks.index(attack) % len(DASHES)]
            start = (Fraction(0), row.clean)
            _line(axes, [start, *scores], colour, marker=marker, linewidth=1.2, alpha=0.8, dash=dash)
        worst = [(Fraction(0), row.clean), *((eps, row.worst.get(eps)) for eps, _ in board.eps)]
        last = _line(axes, worst, colour, marker="", linewidth=2.6, alpha=1.0)
        labels.append((_last(row, board) if last is None else last, row.label, colour))
    if chance := _chance(board):
        axes.axhline(chance, color=theme.faint, linewidth=1.0, dashes=(1.0, 2.0))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(0, float(board.eps[-1][0]) * 1.02 or 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xticks(*_eps_ticks(board))
    axis_titles(axes, theme, f"ε ({norm_name(board.norm)}, pixel units)", f"accuracy on {board.data}")
    direct_labels(axes, labels, 0.06)
    handles = [
        Line2D(
            [],
            [],
            color=theme.faint,
            marker=marker,
            markersize=4,
            linewidth=1.2,
            label=text(board.labels[attack]),
            dashes=DASHES[index % len(DASHES)],
        )
        for index, (attack, marker) in enumerate(zip(attacks, MARKERS, strict=False))
    ]
    handles.append(Line2D([], [], color=theme.faint, linewidth=2.6, label="worst case"))
    if chance:
        handles.append(Line2D([], [], color=theme.faint, linewidth=1.0, dashes=(1.0, 2.0), label="chance"))
    legend(drawing, theme, handles)
    return svg(drawing)


def _chance(board: Board) -> float | None:
    """The accuracy of guessing among equally frequent classes; None where their number is not known."""
    classes = number_of_classes(board.rows[0].records[0].cell) if board.rows else None
    return 1 / classes if classes else None


def _eps_ticks(board: Board) -> tuple[list[float], list[str]]:
    """Places and names of the ticks: 0 and every ε, without the name where it would overlap that of a larger ε."""
    places, names = [0.0, *(float(eps) for eps, _ in board.eps)], ["0", *(text(spelled) for _, spelled in board.eps)]
    left = math.inf
    for index in range(len(places) - 1, -1, -1):
        half = 0.011 * len(names[index]) * places[-1]
        if places[index] + half < left or not index:
            left = places[index] - half
        else:
            names[index] = ""
    return places, names


def _last(row: Row, board: Board) -> float:
    """The end of a row's lowest line: the place of its label where the worst case has no line to the end."""
    for eps, _ in reversed(board.eps):
        values = [score.value for attack in board.attacks[eps] if (score := row.attacks[eps, attack]).value is not None]
        if values:
            return min(values)
    return row.clean.value or 0.0


def _line(
    axes: Axes,
    points: Sequence[tuple[Fraction, Score | None]],
    colour: str,
    *,
    marker: str,
    linewidth: float,
    alpha: float,
    dash: Dash = (None, None),
) -> float | None:
    """Draw the measured points with their band; a missing point, or one that is only a bound, leaves a gap. Returns
    the last height, or None where no line reaches the end."""
    known = [score is not None and score.value is not None and not score.bound for _, score in points]
    if sum(known) < 2:
        return None
    gap = Score("missing", math.nan, math.nan, math.nan)
    scores = [
        score if score is not None and is_known else gap for (_, score), is_known in zip(points, known, strict=True)
    ]
    places = [float(eps) for eps, _ in points]
    values = [math.nan if score.value is None else score.value for score in scores]
    axes.plot(
        places, values, color=colour, marker=marker, markersize=4, linewidth=linewidth, alpha=alpha, clip_on=False,
        dashes=dash,
    )  # fmt: skip
    bands = (ends(value, score.low, score.high) for value, score in zip(values, scores, strict=True))
    lows, highs = zip(*bands, strict=True)
    axes.fill_between(places, lows, highs, color=colour, alpha=0.05 if marker else 0.16, linewidth=0)
    return values[-1] if known[-1] else None


def price(
    board: Board, row: Row, taken: Mapping[tuple[Fraction, AttackKey], float], counts: Sequence[float], theme: Theme
) -> bytes:
    """Robust accuracy against gradients: a point an attack and ε, a line an ε, in a stronger colour as ε grows.

    ``taken`` has the gradients for an image by ε and attack, ``counts`` those of all figures that share an axis. An
    attack without gradients stands at the left edge, outside the logarithmic axis, and no line joins it.
    """
    drawing, axes = figure(theme, height=4.0)
    shown, attacks = _some([eps for eps, _ in board.eps], MOST_EPS), _some(list(board.labels), MOST_ATTACKS)
    lowest = min(count for count in counts if count > 0)
    edge, right = lowest / 2, max(*counts, 2 * lowest) * 1.15
    shade = LinearSegmentedColormap.from_list("ε", [theme.paper, theme.lines[0]])
    spelled, labels = dict(board.eps), []
    markers = dict(zip(attacks, MARKERS * (1 + len(attacks) // len(MARKERS)), strict=False))
    for index, eps in enumerate(shown):
        colour = to_hex(shade(1 - 0.45 * (len(shown) - 1 - index) / max(1, len(shown) - 1)))
        points = [
            (taken[eps, attack], row.attacks[eps, attack].value or 0.0, attack)
            for attack in board.attacks[eps]
            if attack in markers and (eps, attack) in taken and row.attacks[eps, attack].value is not None
        ]
        for count, value, attack in points:
            axes.plot([count or edge], [value], color=colour, marker=markers[attack], markersize=5.5, clip_on=False)
        line = sorted((count, value) for count, value, _ in points if count)
        axes.plot([x for x, _ in line], [y for _, y in line], color=colour, linewidth=1.8, clip_on=False)
        if line:
            last, height = line[-1]
            axes.plot([last, right], [height] * 2, color=colour, linewidth=0.8, dashes=(1.0, 2.0))
            labels.append(
                (height - 1e-6 * index, f"ε = {spelled[eps]}", colour)
            )  # lines that coincide keep their order
    axes.set_xscale("log")
    axes.set_xlim(edge / 1.15, right)
    ticks = [tick for tick in ROUND if lowest * 0.99 <= tick <= right] or [lowest]
    none = [] if all(counts) else [edge]
    axes.set_xticks([*none, *ticks], [*["0"] * len(none), *(f"{tick:g}" for tick in ticks)])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis_titles(axes, theme, "gradients for an image", f"robust accuracy on {board.data}")
    direct_labels(axes, labels, 0.065)
    handles = [
        Line2D([], [], color=theme.faint, marker=marker, markersize=5, linewidth=0, label=text(board.labels[attack]))
        for attack, marker in markers.items()
    ]
    legend(drawing, theme, handles)
    return svg(drawing)


def _some(items: list[Item], most: int) -> list[Item]:
    """At most so many of them, evenly chosen, among them the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
