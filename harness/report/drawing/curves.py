"""Curves by epoch, and a logarithmic axis where values span a wide range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from epsbench.harness.report.drawing.style import Theme, axis_titles, direct_labels, figure, legend, svg, text

ROWS_PER_PANEL = 7
"""Models in a figure: as many as a theme has colours."""
MOST_DRAWN = 4 * ROWS_PER_PANEL
"""Models in all figures of one kind: a page of hundreds of figures would take minutes, and nobody would read it."""
DASHES = ((None, None), (3.0, 1.6))


def curves(
    lines: Mapping[str, Sequence[tuple[str, Sequence[float]]]], theme: Theme, unit: str, *, share: bool = False
) -> bytes:
    """Values by epoch, as SVG.

    ``lines`` maps a model's label to (split, values); the first split is a solid line with a label, the second a
    dashed one. ``share`` marks values in [0, 1], which are shown in percent.
    """
    drawing, axes = figure(theme, height=3.7)
    labels = []
    names: dict[str, None] = {}
    longest = max((len(values) for splits in lines.values() for _, values in splits), default=1)
    for (label, splits), colour in zip(lines.items(), theme.lines, strict=False):
        for (split, values), dash in zip(splits, DASHES, strict=False):
            names[split] = None
            axes.plot(range(1, len(values) + 1), values, color=colour, dashes=dash, linewidth=1.8)
        labels.append((splits[0][1][-1], label, colour))
    axes.set_xlim(1, max(longest, 2))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    else:
        close_up(axes, [value for splits in lines.values() for _, values in splits for value in values])
    axis_titles(axes, theme, "epoch", unit)
    direct_labels(axes, labels, 0.07)
    handles = [
        Line2D([], [], color=theme.faint, linewidth=1.8, label=text(split), dashes=dash)
        for split, dash in zip(names, DASHES, strict=False)
    ]
    legend(drawing, theme, handles)
    return svg(drawing)


def close_up(axes: Axes, values: Sequence[float]) -> None:
    """Make the height axis logarithmic where values span more than a factor of four: the end of training, where
    values change little, can then be read."""
    if values and min(values) > 0 and max(values) / min(values) > 4:
        axes.set_yscale("log")
        ticks = [
            tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if min(values) / 2 < tick < max(values) * 2
        ]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
