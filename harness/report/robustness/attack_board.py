"""The leaderboard of attacks: tables and figures of what each attack reaches, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from epsbench.harness.report.drawing.curves import ROWS_PER_PANEL
from epsbench.harness.report.drawing.illustration import Illustration, both
from epsbench.harness.report.drawing.plot import Plot, Point, Series
from epsbench.harness.report.drawing.style import (
    MARKERS,
    Theme,
    axis_titles,
    figure,
    legend,
    point_labels,
    shortened,
    svg,
    text,
)
from epsbench.harness.report.drawing.table import ASIDE, NEEDED, Column, Entry, Table
from epsbench.harness.report.results.units import ABSENT, duration, norm_name, number, plural
from epsbench.harness.report.robustness.leaderboard import Board
from epsbench.harness.report.robustness.optimality import Local, Standing, standings

CAPTION = (
    "Optimality (AttackBench; Cinà et al., 2025): 1 for an attack that fools every image at the smallest distance that "
    "any attack here knows, 0 for one that fools none: the area between its curve of robust accuracy over the distance "
    "and that of the best of all attacks, divided by that of an attack that finds nothing, subtracted from 1. The best "
    "is only the best of the attacks shown. Local: on one model; global: the mean over models. Measured at: "
    "where an attack is judged. One that looks for the smallest distance is judged at every distance, any other at its "
    "own ε alone. Cost is for an attacked image, over all ε. Passes: forward passes without a gradient."
)
COST_CAPTION = (
    "A point is an attack: its global optimality against the gradients and further forward passes for an image, over "
    "all its ε. Look for attacks on the upper left: they find nearly as much for less."
)
CURVE_CAPTION = (
    "The robust accuracy that each attack leaves, and the thick line that of the best of all attacks, image by image. "
    "The area between two lines decides the optimality."
)
MOST_MODELS = 4
"""Models with a column of their own, and with a figure."""
MOST_BOARDS = 2
"""Leaderboards of attacks with figures."""
MOST_POINTS = 160
"""Points of a line: more cannot be told apart."""
MOST_TICKS = 6
"""Numbers on the axis of cost: of more, powers of ten alone are left, so that none covers another."""


def attacks_title(board: Board) -> str:
    """``"Leaderboard of attacks on mnist, L∞"``."""
    return f"Leaderboard of attacks on {board.data}, {norm_name(board.norm)}"


def attack_tables(boards: Sequence[Board]) -> list[Table]:
    """One table a leaderboard that has at least two attacks on one model."""
    return [table for board in boards if (table := attack_table(board)) is not None]


def attack_table(board: Board) -> Table | None:
    """The attacks of a leaderboard, the best first; None where there are fewer than two."""
    attacks = standings(board)
    if not attacks:
        return None
    models = [index for index in range(len(board.rows)) if any(index in each.local for each in attacks)]
    shown = models[:MOST_MODELS] if len(models) > 1 else []
    several = len({len(each.local) for each in attacks}) > 1
    columns = (
        Column("attack", label=True, weight=NEEDED),
        Column("measured at", weight=ASIDE),
        Column("optimality", True, weight=NEEDED),
        *([Column("models", True, weight=NEEDED)] if several else []),
        *(Column(shortened(board.rows[index].label), True) for index in shown),
        *(Column(title, True) for title in ("gradients/image", "passes/image", "time/image")),
    )
    rows = tuple(
        (
            Entry(each.label),
            Entry(f"{len(each.grid)} ε" if each.grid else "every distance"),
            Entry(f"{each.optimality:.3f}"),
            *([Entry(f"{len(each.local)} of {len(models)}")] if several else []),
            *(Entry(_local(each.local.get(index))) for index in shown),
            Entry(number(each.cost("gradients"))),
            Entry(number(each.cost("passes"))),
            Entry(duration(each.cost("seconds"))),
        )
        for each in attacks
    )
    hidden = len(models) - len(shown) if shown else 0
    notes = (f"{plural(hidden, 'more model')} without a column, counted in the optimality",) if hidden else ()
    return Table(attacks_title(board), columns, rows, CAPTION, notes)


def _local(local: Local | None) -> str:
    return ABSENT if local is None else f"{local.optimality:.3f}"


def attack_figures(boards: Sequence[Board]) -> Iterator[Illustration]:
    """For the first leaderboards of attacks: optimality against cost, and the curves on the first models."""
    compared = [(board, made) for board in boards if (made := standings(board))][:MOST_BOARDS]
    for board, attacks in compared:
        title = f"Optimality of attacks against cost on {board.data}, {norm_name(board.norm)}"
        draw, plot = partial(draw_cost, attacks), cost_plot(attacks)
        yield both(title, COST_CAPTION, draw, plot=plot, data=board.data, norm=board.norm)
        for index, row in list(enumerate(board.rows))[:MOST_MODELS]:
            lines = curves(attacks, index)
            if len(lines) > 2:
                title = f"Attacks against the best of all on {board.data}, {norm_name(board.norm)}: {row.label}"
                draw, plot = partial(draw_curves, board, lines), curve_plot(board, lines)
                yield both(title, CURVE_CAPTION, draw, plot=plot, data=board.data, norm=board.norm)


Line = tuple[str, list[float], list[float], bool]
"""Label, places, heights, and whether the line falls in steps."""


def curves(attacks: Sequence[Standing], index: int) -> list[Line]:
    """The lines of some attacks on the first seed of one row, and at the end that of the best of all."""
    lines: list[Line] = []
    best: np.ndarray | None = None
    for each in [one for one in attacks if index in one.local][:ROWS_PER_PANEL]:
        run, best = each.local[index].runs[0], each.local[index].best[0]
        if run.grid:
            heights = [float((run.distances > eps).mean()) for eps in (0.0, *run.grid)]
            lines.append((each.label, [0.0, *run.grid], heights, False))
        else:
            lines.append((each.label, *steps(run.distances), True))
    return [*lines, ("best of all", *steps(best), True)] if best is not None else []


def steps(distances: np.ndarray) -> tuple[list[float], list[float]]:
    """Places and heights of the robust accuracy over the distance, of many steps some that are evenly spread."""
    reached = np.sort(distances[np.isfinite(distances) & (distances > 0)])
    clean, n = int((distances > 0).sum()), max(1, len(distances))
    count = min(len(reached), MOST_POINTS)
    chosen = np.unique(np.linspace(1, len(reached), count).round().astype(int)) if count else np.empty(0, dtype=int)
    places = [0.0, *(float(reached[k - 1]) for k in chosen)]
    return places, [clean / n, *((clean - int(k)) / n for k in chosen)]


def draw_curves(board: Board, lines: Sequence[Line], theme: Theme) -> bytes:
    """A line an attack, and a thick one for the best of all."""
    drawing, axes = figure(theme, height=4.2)
    handles = []
    for (label, places, heights, stepped), colour in zip(lines, (*theme.lines, theme.ink), strict=False):
        best = label == lines[-1][0]
        colour, width, marker = (theme.ink, 2.6, "") if best else (colour, 1.6, "" if stepped else "o")
        axes.plot(
            places, heights, color=colour, linewidth=width, marker=marker, markersize=4, clip_on=False,
            drawstyle="steps-post" if stepped else "default", zorder=1.5 if best else 2,
        )  # fmt: skip
        handles.append(Line2D([], [], color=colour, linewidth=width, marker=marker, markersize=4, label=text(label)))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis_titles(axes, theme, _distance(board), f"robust accuracy on {board.data}")
    legend(drawing, theme, handles)
    return svg(drawing)


def curve_plot(board: Board, lines: Sequence[Line]) -> Plot:
    """The same for the page's script."""
    series = tuple(
        Series(
            label,
            tuple(Point(x, y) for x, y in zip(places, heights, strict=True)),
            index % 7,
            strong=index == len(lines) - 1,
            steps=stepped,
        )
        for index, (label, places, heights, stepped) in enumerate(lines)
    )
    return Plot(_distance(board), f"robust accuracy on {board.data}", series, percent=True)


def _distance(board: Board) -> str:
    unit = "numbers changed" if board.norm.startswith("l0") else "pixel units"
    return f"ε, or distance ({norm_name(board.norm)}, {unit})"


def asked(standing: Standing) -> float:
    """Gradients and further forward passes for an image."""
    return standing.cost("gradients") + standing.cost("passes")


def draw_cost(attacks: Sequence[Standing], theme: Theme) -> bytes:
    """A point an attack."""
    drawing, axes = figure(theme, height=4.0)
    labels = []
    for index, each in enumerate(attacks[: 2 * ROWS_PER_PANEL]):
        colour, marker = theme.lines[index % len(theme.lines)], MARKERS[index % len(MARKERS)]
        x = max(asked(each), 0.5)
        axes.plot([x], [each.optimality], color=colour, marker=marker, markersize=6.5, clip_on=False)
        labels.append((x, each.optimality, each.label, colour))
    axes.set_xscale("log")
    least, most = min(x for x, *_ in labels), max(x for x, *_ in labels)
    axes.set_xlim(least / 1.3, most * 1.3)
    ticks = [tick for power in range(7) for tick in (10**power, 3 * 10**power) if least / 1.3 <= tick <= most * 1.3]
    if len(ticks) > MOST_TICKS:
        ticks = [tick for tick in ticks if str(tick).startswith("1")]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axis_titles(axes, theme, "gradients and further passes for an image", "global optimality")
    point_labels(axes, labels, 0.065)
    return svg(drawing)


def cost_plot(attacks: Sequence[Standing]) -> Plot:
    """The same for the page's script; attacks that ask nothing of the model have no place."""
    series = tuple(
        Series(
            each.label,
            (Point(asked(each), each.optimality, label=f"{number(asked(each))} gradients and passes"),),
            index % 7,
            line=False,
        )
        for index, each in enumerate(attacks)
        if asked(each)
    )
    return Plot("gradients and further passes for an image", "global optimality", series, x_log=True)
