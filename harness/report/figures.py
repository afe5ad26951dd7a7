"""The curves of a report, drawn with matplotlib's object-oriented interface and returned as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from harness.report.leaderboard import Board, Row, Score
from harness.report.style import MARKERS, Theme, axis_titles, direct_labels, figure, svg, text
from harness.report.units import norm_name

ROWS_PER_PANEL = 7
DASHES = ((None, None), (3.0, 1.6))


def panels(board: Board) -> list[tuple[Row, ...]]:
    """The rows of a board in panels of at most seven, as many as there are colours."""
    rows = [row for row in board.rows if any(score.value is not None for score in row.attacks.values())]
    return [tuple(rows[start : start + ROWS_PER_PANEL]) for start in range(0, len(rows), ROWS_PER_PANEL)]


def accuracy(board: Board, rows: Sequence[Row], theme: Theme) -> bytes:
    """Accuracy against ε: a colour a model, a marker an attack, bands the 95 % intervals; the heavy line is the
    worst case. The clean accuracy stands at ε = 0."""
    drawing, axes = figure(theme, height=4.2)
    attacks = list(dict.fromkeys(attack for names in board.attacks.values() for attack in names))
    labels = []
    for row, colour in zip(rows, theme.lines, strict=False):
        for attack, marker in zip(attacks, MARKERS * (1 + len(attacks) // len(MARKERS)), strict=False):
            scores = [(eps, row.attacks.get((eps, attack))) for eps, _ in board.eps]
            _line(axes, [(Fraction(0), row.clean), *scores], colour, marker=marker, linewidth=0.9, alpha=0.55)
        worst = [(Fraction(0), row.clean), *((eps, row.worst.get(eps)) for eps, _ in board.eps)]
        last = _line(axes, worst, colour, marker="", linewidth=2.6, alpha=1.0)
        labels.append((_last(row, board) if last is None else last, row.label, colour))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(0, float(board.eps[-1][0]) * 1.02 or 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    ticks = [(Fraction(0), "0"), *board.eps]
    axes.set_xticks([float(eps) for eps, _ in ticks], [text(spelled) for _, spelled in ticks])
    axis_titles(axes, theme, f"ε ({norm_name(board.norm)}, pixel units)", f"accuracy on {board.data}")
    direct_labels(axes, labels, 0.06)
    handles = [
        Line2D([], [], color=theme.faint, marker=marker, markersize=4, linewidth=1.0, label=text(attack))
        for attack, marker in zip(attacks, MARKERS, strict=False)
    ]
    handles.append(Line2D([], [], color=theme.faint, linewidth=2.6, label="worst case"))
    drawing.legend(
        handles=handles, loc="outside lower left", ncols=min(5, len(handles)), frameon=False, labelcolor=theme.faint
    )
    return svg(drawing)


def _last(row: Row, board: Board) -> float:
    """Where the lowest of a row's lines ends: the place of a label whose worst case has no line to the end."""
    for eps, _ in reversed(board.eps):
        values = [score.value for name in board.attacks[eps] if (score := row.attacks[eps, name]).value is not None]
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
) -> float | None:
    """Draw what was measured, with its band; a point that is lacking or only a bound leaves a gap. Returns the last
    height, or None where there is no line to label."""
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
        places, values, color=colour, marker=marker, markersize=4, linewidth=linewidth, alpha=alpha, clip_on=False
    )
    lows = [value if score.low is None else score.low for value, score in zip(values, scores, strict=True)]
    highs = [value if score.high is None else score.high for value, score in zip(values, scores, strict=True)]
    axes.fill_between(places, lows, highs, color=colour, alpha=0.05 if marker else 0.16, linewidth=0)
    return values[-1] if known[-1] else None


def curves(
    lines: Mapping[str, Sequence[tuple[str, Sequence[float]]]], theme: Theme, unit: str, *, share: bool = False
) -> bytes:
    """Values by epoch. ``lines`` maps a model's label to (split, values); the first split is drawn solid and
    labelled, the second dashed. ``share`` marks values in [0, 1], shown in percent."""
    drawing, axes = figure(theme, height=3.7)
    labels = []
    splits: dict[str, None] = {}
    longest = max((len(values) for held in lines.values() for _, values in held), default=1)
    for (label, held), colour in zip(lines.items(), theme.lines, strict=False):
        for (split, values), dash in zip(held, DASHES, strict=False):
            splits[split] = None
            axes.plot(range(1, len(values) + 1), values, color=colour, dashes=dash, linewidth=1.8)
        labels.append((held[0][1][-1], label, colour))
    axes.set_xlim(1, max(longest, 2))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    else:
        _close_up(axes, [value for held in lines.values() for _, values in held for value in values])
    axis_titles(axes, theme, "epoch", unit)
    direct_labels(axes, labels, 0.07)
    handles = [
        Line2D([], [], color=theme.faint, linewidth=1.8, label=text(split), dashes=dash)
        for split, dash in zip(splits, DASHES, strict=False)
    ]
    drawing.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, labelcolor=theme.faint)
    return svg(drawing)


def _close_up(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where values span more than a factor of four, so that the end of training can be read."""
    if values and min(values) > 0 and max(values) / min(values) > 4:
        axes.set_yscale("log")
        ticks = [
            tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if min(values) / 2 < tick < max(values) * 2
        ]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
