"""Figures of classes: accuracy of every class, confusion under attack, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from epsbench.harness.report.drawing.curves import ROWS_PER_PANEL
from epsbench.harness.report.drawing.illustration import Illustration, both
from epsbench.harness.report.drawing.plot import Plot, Point, Series
from epsbench.harness.report.drawing.style import Theme, axis_titles, contrast, figure, legend, shortened, svg, text
from epsbench.harness.report.results.units import norm_name, plural
from epsbench.harness.report.robustness.classes import BINS, Seen
from epsbench.harness.report.robustness.leaderboard import Board

MOST_CLASSES = 20
"""Classes in a figure."""
MOST_BOARDS, MOST_CONFUSIONS = 2, 3
"""Leaderboards with figures of classes, and models with a figure of confusion: the page must not grow without bound."""
BY_CLASS = (
    "Accuracy class by class, in the worst case over attacks with its 95 % intervals, and without an attack (hollow or "
    "dashed). A model that is robust on average may fail on some classes altogether."
)
CONFUSION = (
    "Rows are labels, columns what the model sees under the attack, in percent of the row's images. The diagonal is "
    "the robust accuracy of the class under this attack. A full column: the class that everything is taken for."
)
RELIABILITY = (
    f"Accuracy against confidence in {BINS} bins of equal width, with the 95 % intervals. On the thin line "
    "confidence is accuracy; below it the model is too sure of itself. An image that is fooled is not attacked further."
)


def class_figures(models: Sequence[Seen]) -> Iterator[Illustration]:
    """For the first leaderboards: accuracy by class, a reliability diagram, and confusion of the best models."""
    boards = list({id(model.board): model.board for model in models}.values())[:MOST_BOARDS]
    for board in boards:
        own = [model for model in models if model.board is board][:ROWS_PER_PANEL]
        chosen = shown_classes(own)
        some = len(chosen) < len(own[0].names)
        title = f"Accuracy by class on {_where(board)}"
        caption = (
            f"{BY_CLASS} Shown: the {len(chosen)} classes where the first model is least robust." if some else BY_CLASS
        )
        draw, plot = partial(draw_by_class, own, chosen), by_class_plot(own, chosen)
        yield both(title, caption, draw, plot=plot, data=board.data, norm=board.norm)
        title, plot = f"Confidence and accuracy on {_where(board)}", reliability_plot(own)
        yield both(title, RELIABILITY, partial(draw_reliability, own), plot=plot, data=board.data, norm=board.norm)
    drawn = [model for model in models if model.board in boards and len(model.names) <= MOST_CLASSES]
    for number, model in enumerate(drawn[:MOST_CONFUSIONS]):
        title = f"Confusion of {model.row.label} under {model.attack} on {_where(model.board)}"
        caption = "" if number else CONFUSION
        yield both(title, caption, partial(draw_confusion, model), data=model.board.data, norm=model.board.norm)


def _where(board: Board) -> str:
    return f"{board.data}, {norm_name(board.norm)} ε = {board.ranked[1]}"


def shown_classes(models: Sequence[Seen]) -> list[int]:
    """All classes; of many, those where the first model is least robust."""
    shares = models[0].by_class(models[0].robust)
    if len(shares) <= MOST_CLASSES:
        return [index for index, *_ in shares]
    return [index for index, *_ in sorted(shares, key=lambda share: share[1])[:MOST_CLASSES]]


def _at(model: Seen, bits: np.ndarray, chosen: Sequence[int]) -> list[tuple[int, float, float, float]]:
    """Place, share and interval of the chosen classes."""
    shares = {index: (value, low, high) for index, value, low, high in model.by_class(bits)}
    return [(place, *shares[index]) for place, index in enumerate(chosen) if index in shares]


def draw_by_class(models: Sequence[Seen], chosen: Sequence[int], theme: Theme) -> bytes:
    """A column a class, and in it a point a model with its interval."""
    drawing, axes = figure(theme, height=3.9)
    handles = []
    for number, (model, colour) in enumerate(zip(models, theme.lines, strict=False)):
        shift = 0.7 * ((number + 0.5) / len(models) - 0.5)
        clean, robust = (_at(model, bits, chosen) for bits in (model.clean, model.robust))
        axes.plot([p + shift for p, *_ in clean], [v for _, v, *_ in clean], "o", color=colour, mfc="none", ms=4.5)
        axes.errorbar(
            [p + shift for p, *_ in robust], [value for _, value, *_ in robust],
            yerr=[[value - low for _, value, low, _ in robust], [high - value for _, value, _, high in robust]],
            fmt="o", color=colour, markersize=4.5, linewidth=1.4, clip_on=False,
        )  # fmt: skip
        handles.append(Line2D([], [], color=colour, marker="o", linewidth=0, label=text(model.row.label)))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(-0.6, len(chosen) - 0.4)
    names = [text(shortened(models[0].names[index])) for index in chosen]
    long = max(map(len, names), default=0) * len(names) > 75
    axes.set_xticks(range(len(chosen)), names, rotation=40 if long else 0, ha="right" if long else "center")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    board = models[0].board
    axis_titles(axes, theme, "class", f"accuracy on {_where(board)}")
    legend(drawing, theme, handles)
    return svg(drawing)


def by_class_plot(models: Sequence[Seen], chosen: Sequence[int]) -> Plot:
    """The same for the page's script."""
    series = [
        Series(
            f"{model.row.label}, {kind}",
            tuple(
                Point(place, value, low, high, model.names[chosen[place]])
                for place, value, low, high in _at(model, bits, chosen)
            ),
            colour,
            dash=dash,
            strong=not dash,
        )
        for colour, model in enumerate(models)
        for dash, (kind, bits) in enumerate((("worst case", model.robust), ("clean", model.clean)))
    ]
    ticks = tuple((float(place), models[0].names[index]) for place, index in enumerate(chosen))
    return Plot("class", f"accuracy on {_where(models[0].board)}", tuple(series), ticks, percent=True)


def draw_confusion(model: Seen, theme: Theme) -> bytes:
    """The shares of each row, in percent, on a ground that darkens with them."""
    counts = model.confusion()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = len(shares)
    drawing, axes = figure(theme, height=max(3.0, 0.34 * size + 1.2))
    shades = LinearSegmentedColormap.from_list("shares", [theme.paper, theme.lines[0]])
    axes.grid(visible=False)
    axes.imshow(shares, cmap=shades, vmin=0, vmax=1, aspect="auto")
    for (label, other), share in np.ndenumerate(shares):
        if share:
            ground = to_hex(shades(float(share)))
            ink = max((theme.ink, theme.paper), key=lambda colour: contrast(colour, ground))
            axes.text(other, label, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=8)
    names = [text(shortened(name)) for name in model.names]
    long = max(map(len, names)) * size > 75
    axes.set_xticks(range(size), names, rotation=40 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(size), names)
    axis_titles(axes, theme, f"class seen under {model.attack}", "label")
    return svg(drawing)


def draw_reliability(models: Sequence[Seen], theme: Theme) -> bytes:
    """Accuracy against confidence, solid without an attack and dashed under it."""
    drawing, axes = figure(theme, height=4.2)
    axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=0.8)
    handles = []
    for model, colour in zip(models, theme.lines, strict=False):
        for number, made in enumerate(model.calibration().values()):
            values = [one.accuracy for one in made]
            line = axes.errorbar(
                [one.confidence for one in made], values,
                yerr=[[one.accuracy - one.low for one in made], [one.high - one.accuracy for one in made]],
                color=colour, marker="o", markersize=3.5, linewidth=1.6, elinewidth=0.8, clip_on=False,
            )  # fmt: skip
            if number:
                line.lines[0].set_linestyle("--")
        handles.append(Line2D([], [], color=colour, linewidth=1.6, label=text(model.row.label)))
    handles.append(Line2D([], [], color=theme.faint, linewidth=1.6, label="clean"))
    handles.append(Line2D([], [], color=theme.faint, linewidth=1.6, linestyle="--", label="under attack"))
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis_titles(axes, theme, "confidence", f"accuracy on {_where(models[0].board)}")
    legend(drawing, theme, handles)
    return svg(drawing)


def reliability_plot(models: Sequence[Seen]) -> Plot:
    """The same for the page's script."""
    series = [
        Series(
            f"{model.row.label}, {kind}",
            tuple(Point(one.confidence, one.accuracy, one.low, one.high, _bin(one.confidence, one.n)) for one in made),
            colour,
            dash=dash,
        )
        for colour, model in enumerate(models)
        for dash, (kind, made) in enumerate(model.calibration().items())
    ]
    series.append(Series("confidence = accuracy", (Point(0, 0), Point(1, 1)), 6))
    ticks = tuple((tick / 5, f"{20 * tick} %") for tick in range(6))
    return Plot("confidence", f"accuracy on {_where(models[0].board)}", tuple(series), ticks, percent=True)


def _bin(confidence: float, n: int) -> str:
    return f"confidence {100 * confidence:.1f} %, {plural(n, 'image')}"
