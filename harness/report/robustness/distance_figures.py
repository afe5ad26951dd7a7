"""Robust accuracy against the distance, at every distance, from runs that looked for the smallest one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from epsbench.harness.report.drawing.curves import MOST_DRAWN, ROWS_PER_PANEL
from epsbench.harness.report.drawing.illustration import Illustration, both, with_count
from epsbench.harness.report.drawing.style import Theme, axis_titles, figure, legend, svg, text
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import data_name, norm_name
from epsbench.harness.report.robustness.distances import Measured, curves, measured

CAPTION = (
    "A line is one run that looked for the smallest distance: at each ε, the share of test images whose nearest "
    "adversarial image is further away. One run gives the whole line. Of two attacks on one model, the lower line is "
    "the stronger attack."
)


def distance_figures(results: Results) -> Iterator[Illustration]:
    """One figure a data set and norm, at most seven runs each."""

    def place(run: Measured) -> tuple[str, str]:
        return data_name(run.record.cell["data"]), run.record.cell["norm"]

    for (data, norm), group in groupby(sorted(measured(results), key=place), place):
        runs = list(group)
        shown = runs[:MOST_DRAWN]
        for start in range(0, len(shown), ROWS_PER_PANEL):
            yield both(
                f"Robust accuracy against the distance on {data}, {norm_name(norm)}",
                with_count(CAPTION, len(runs)),
                partial(draw, shown[start : start + ROWS_PER_PANEL], data, norm),
            )


def draw(runs: Sequence[Measured], data: str, norm: str, theme: Theme) -> bytes:
    """The lines of some runs, as SVG."""
    drawing, axes = figure(theme)
    handles = []
    for (label, distances, heights), colour in zip(curves(runs), theme.lines, strict=False):
        axes.step(distances, heights, where="post", color=colour, linewidth=1.8)
        handles.append(Line2D([], [], color=colour, linewidth=1.8, label=text(label)))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    unit = "numbers changed" if norm.startswith("l0") else "pixel units"
    axis_titles(axes, theme, f"distance ({norm_name(norm)}, {unit})", f"robust accuracy on {data}")
    legend(drawing, theme, handles)
    return svg(drawing)
