"""The numbers of cells that were measured at several commits, as lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from epsbench.harness.records import Metric, Record
from epsbench.harness.report.drawing.curves import ROWS_PER_PANEL
from epsbench.harness.report.drawing.illustration import Illustration, both
from epsbench.harness.report.drawing.style import Theme, axis_titles, figure, legend, svg, text
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.results.units import visible
from epsbench.harness.statistics import ends

NUMBERS = {"robustness": "robust_accuracy", "generation": "test_bpd"}
"""Task → the number whose history is shown."""
UNITS = {"robustness": "robust accuracy", "generation": "bits per dimension of the test images"}
CAPTION = (
    "The cells whose number changed most come first, by commit, with bands of the 95 % intervals. A line breaks where "
    "the cell failed or is void, and goes on past commits at which it was not measured."
)
MOST_FIGURES = 4
"""Figures of a task, of seven cells each: those whose number changed most come first."""
MOST_COMMITS = 30
"""Commits in a figure: the last ones."""


@dataclass(frozen=True)
class Line:
    """One cell: its numbers, each with its interval, by the place of the commit on the lower axis."""

    label: str
    """The cell."""
    points: tuple[tuple[int, float, float, float], ...]
    """Place, value, and the ends of the interval, from left to right."""
    breaks: tuple[int, ...] = ()
    """The places at which the cell has no number, because it failed or is void."""

    @property
    def change(self) -> float:
        """The range of its values."""
        values = [value for _, value, *_ in self.points]
        return max(values) - min(values)

    @property
    def drawn(self) -> list[tuple[float, float, float, float]]:
        """The points with NaN at every break."""
        nothing = ((place, math.nan, math.nan, math.nan) for place in self.breaks)
        return sorted((*self.points, *nothing), key=lambda point: point[0])


def history_figures(groups: Sequence[Sequence[Record]], names: Names) -> Iterator[Illustration]:
    """For each task a few figures of the cells measured more than once; each group is one cell, oldest first."""
    for task in NUMBERS:
        lines, commits = history_lines(groups, task, names)
        for start in range(0, min(len(lines), MOST_FIGURES * ROWS_PER_PANEL), ROWS_PER_PANEL):
            panel = lines[start : start + ROWS_PER_PANEL]
            left = len(lines) - MOST_FIGURES * ROWS_PER_PANEL
            caption = "" if start else CAPTION + (f" {left:,} more cells not drawn." if left > 0 else "")
            yield both(f"History of the {UNITS[task]}", caption, partial(draw, panel, commits, task))


def history_lines(groups: Sequence[Sequence[Record]], task: str, names: Names) -> tuple[list[Line], list[str]]:
    """The lines of a task's cells, those whose number changed most first, and the commits that their places stand for.

    Each group is one cell, oldest first. A cell with a number at one commit alone has no line.
    """
    number = NUMBERS[task]
    own = [group for group in groups if group[0].cell.get("task") == task]
    moved = [group for group in own if len({commit(record) for record in group if _has(record, number)}) > 1]
    commits = _commits(moved)
    return sorted(_lines(moved, number, commits, names), key=lambda line: -line.change), list(commits)


def commit(record: Record) -> str:
    """The beginning of the commit that a record was measured at, with a + where the tree was changed; else a dash."""
    for key in ("repository", "git"):
        git = record.environment.get(key)
        if isinstance(git, Mapping) and git.get("commit"):
            return visible(str(git["commit"]))[:10] + ("+" if git.get("dirty") else "")
    return "–"


def _commits(groups: Sequence[Sequence[Record]]) -> dict[str, int]:
    """The commits by the time of their first measurement, the last ones of many, with their places."""
    measured = sorted((record.finished, commit(record)) for group in groups for record in group)
    ordered = list(dict.fromkeys(name for _, name in measured))[-MOST_COMMITS:]
    return {name: place for place, name in enumerate(ordered)}


def _has(record: Record, number: str) -> bool:
    return record.status == "ok" and number in record.metrics


def _lines(groups: Sequence[Sequence[Record]], number: str, commits: Mapping[str, int], names: Names) -> Iterator[Line]:
    for group in groups:
        last: dict[int, tuple[float, float, float] | None] = {}  # of several measurements at one commit the last
        for record in group:
            if (place := commits.get(commit(record))) is not None:
                last[place] = _point(record.metrics[number]) if _has(record, number) else None
        points = tuple((place, *point) for place, point in sorted(last.items()) if point is not None)
        if len(points) > 1:
            breaks = tuple(place for place, point in sorted(last.items()) if point is None)
            yield Line(names.cell(group[0].cell), points, breaks)


def _point(metric: Metric) -> tuple[float, float, float]:
    """The value, and the ends of its interval."""
    return metric.value, *ends(metric.value, metric.low, metric.high)


def draw(lines: Sequence[Line], commits: Sequence[str], task: str, theme: Theme) -> bytes:
    """A line a cell, as SVG; on the lower axis the commits, oldest first."""
    drawing, axes = figure(theme, height=4.0)
    handles = []
    for line, colour in zip(lines, theme.lines, strict=False):
        places, values, lows, highs = zip(*line.drawn, strict=True)
        axes.plot(places, values, color=colour, marker="o", markersize=4, linewidth=1.8, clip_on=False)
        axes.fill_between(places, lows, highs, color=colour, alpha=0.14, linewidth=0)
        handles.append(Line2D([], [], color=colour, marker="o", markersize=4, label=text(line.label)))
    axes.set_xlim(0, max(1, len(commits) - 1))
    tilted = len(commits) > 4
    axes.set_xticks(
        range(len(commits)), [text(name[:7] + name[10:]) for name in commits], rotation=40 if tilted else 0,
        ha="right" if tilted else "center",
    )  # fmt: skip
    if task == "robustness":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %", decimals=1))
    axis_titles(axes, theme, "commit", UNITS[task])
    legend(drawing, theme, handles)
    return svg(drawing)
