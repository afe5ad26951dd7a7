"""The axes ``corruption`` and ``severity``: what is done to the test images before they are classified or attacked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from epsbench.harness.errors import did_you_mean
from epsbench.harness.plan.axes.tables import Point
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.data.own import OwnData

NONE = "none"
MOST_SEVERE = 5
VERSION = "1"
"""Part of the id of every cell with a corruption; another value makes those records stale."""

LEAST_SIDE: dict[str, int] = {
    "gaussian-noise": 1,
    "shot-noise": 1,
    "impulse-noise": 1,
    "defocus-blur": 8,
    "glass-blur": 8,
    "motion-blur": 16,
    "zoom-blur": 24,
    "snow": 24,
    "frost": 8,
    "fog": 8,
    "brightness": 1,
    "contrast": 1,
    "elastic-transform": 16,
    "pixelate": 8,
    "jpeg-compression": 8,
}
"""The 15 kinds of Hendrycks and Dietterich (2019), each with the shortest side of an image that it is defined for."""


@dataclass(frozen=True)
class Corruption:
    """An entry of the axis ``corruption``."""

    name: str
    """The kind, or ``"none"``."""

    severity: int | None = None
    """From 1 to 5; None: that of the axis ``severity``."""


def read_corruption(entry: Any) -> Corruption:
    """A kind by its name, or by a table with its severity. Raises `ValueError` for anything else."""
    table = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ValueError(f'must be a name or a table such as {{ name = "fog", severity = 3 }}, not {entry!r}')
    for key in table:
        if key not in ("name", "severity"):
            raise ValueError(f"unknown key {key!r}; known: name, severity")
    name, severity = table["name"], table.get("severity")
    if name not in LEAST_SIDE and name != NONE:
        raise ValueError(f"unknown corruption {name!r}{did_you_mean(name, [NONE, *LEAST_SIDE])}")
    if severity is not None and (type(severity) is not int or not 1 <= severity <= MOST_SEVERE):
        raise ValueError(f"severity must be a whole number from 1 to {MOST_SEVERE}, not {severity!r}")
    if name == NONE and severity is not None:
        raise ValueError('"none" has no severity')
    return Corruption(name, severity)


def settled(point: Point) -> Point:
    """A point whose corruption is a name, with its severity beside it: 0 where there is none.

    Without an attack ε is 0.
    """
    corruption = point.get("corruption")
    if isinstance(corruption, Corruption):
        severity = 0 if corruption.name == NONE else corruption.severity or point["severity"]
        point = point | {"corruption": corruption.name, "severity": severity}
    if "attack" in point and point["attack"].name == NONE:
        point = point | {"eps": Fraction(0)}
    return point


def too_small(task: str, data: str | OwnData, points: Iterable[Point]) -> Iterator[str]:
    """A problem for every corruption that images of this data are too small for, or have too many channels for."""
    channels, height, width = describe(data).shape
    kinds = dict.fromkeys(point.get("corruption", NONE) for point in points)
    for kind in kinds:
        path = f"{task}.matrix.corruption: {kind!r}"
        if kind != NONE and channels not in (1, 3):
            yield f"{path} is for images of 1 or 3 channels, and {str(data)!r} has {channels}"
        elif kind != NONE and min(height, width) < LEAST_SIDE[kind]:
            yield (
                f"{path} needs images of at least {LEAST_SIDE[kind]} pixels a side, and {str(data)!r} has "
                f"{height}×{width}; leave it out, or use data with larger images"
            )
