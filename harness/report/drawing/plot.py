"""The numbers of a figure, from which the page's script draws it again and shows values under the pointer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """A measured point of a curve."""

    x: float
    """Its place on the lower axis."""
    y: float
    """Its value."""
    low: float | None = None
    """The lower end of its 95 % interval."""
    high: float | None = None
    """The upper end."""
    label: str = ""
    """What the point is called under the pointer, where x alone does not say it."""


@dataclass(frozen=True)
class Series:
    """A curve; or, without a line, points of one kind."""

    label: str
    """Its name in the legend."""
    points: tuple[Point, ...]
    """Its points, in the order of drawing."""
    colour: int = 0
    """The index of its colour in a theme."""
    dash: int = 0
    """The index of its stroke: 0 is a solid line."""
    strong: bool = False
    """Whether its line is thick."""
    line: bool = True
    """Whether a line joins its points."""
    steps: bool = False
    """Whether the line keeps its height up to the next point."""


@dataclass(frozen=True)
class Plot:
    """A figure as numbers."""

    x_title: str
    """The title of the lower axis."""
    y_title: str
    """The title of the other axis."""
    series: tuple[Series, ...]
    """The curves."""
    ticks: tuple[tuple[float, str], ...] = ()
    """Places and names on the lower axis; empty: round numbers."""
    percent: bool = False
    """Whether values are shares in [0, 1], which are shown in percent."""
    x_log: bool = False
    """Whether the lower axis is logarithmic."""
    y_log: bool = False
    """Whether the other axis is logarithmic where values are positive and span more than a factor of four."""

    def as_json(self) -> Mapping[str, Any]:
        """The plot as plain values for the script: a point is [x, y, low, high, label]; only finite ones are kept."""
        return {
            "x": self.x_title,
            "y": self.y_title,
            "ticks": [[place, name] for place, name in self.ticks],
            "percent": self.percent,
            "xlog": self.x_log,
            "ylog": self.y_log,
            "series": [
                {
                    "label": one.label,
                    "colour": one.colour,
                    "dash": one.dash,
                    "strong": one.strong,
                    "line": one.line,
                    "steps": one.steps,
                    "points": [
                        [_short(point.x), _short(point.y), _short(point.low), _short(point.high), point.label]
                        for point in one.points
                        if math.isfinite(point.x) and math.isfinite(point.y)
                    ],
                }
                for one in self.series
            ],
        }


def _short(value: float | None) -> float | None:
    """Six significant digits: more than a pointer can tell apart, in half the space."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
