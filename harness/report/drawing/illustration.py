"""A figure of a page in both themes, and the figure of curves over training that all kinds of models share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from epsbench.harness.records import Record
from epsbench.harness.report.drawing.curves import MOST_DRAWN, ROWS_PER_PANEL, curves
from epsbench.harness.report.drawing.plot import Plot, Point, Series
from epsbench.harness.report.drawing.style import DARK, LIGHT
from epsbench.harness.report.drawing.table import Table

Splits = list[tuple[str, Sequence[float]]]
"""The curves of one model: (split, values by epoch)."""


@dataclass(frozen=True)
class Illustration:
    """A figure with its title and caption. Where several of a kind follow each other, the page shows one caption."""

    title: str
    """What stands above the figure."""
    caption: str
    """How to read the figure, and what to look for."""
    light: bytes
    """The figure as SVG for a light page."""
    dark: bytes
    """The figure as SVG for a dark page."""
    wide: bool = False
    """Whether it takes the whole width of the page."""
    draw: Callable[..., bytes] | None = None
    """What drew it, called with a theme: for other formats."""
    plot: Plot | None = None
    """Its numbers, from which the page's script draws a figure that answers to the pointer."""
    data: str = ""
    """The data set that it is about, where there is one."""
    norm: str = ""
    """The norm that it is about, as a suite names it, where there is one."""


def both(
    title: str,
    caption: str,
    draw: Callable[..., bytes],
    *,
    wide: bool = False,
    plot: Plot | None = None,
    data: str = "",
    norm: str = "",
) -> Illustration:
    """The figure that ``draw(theme=...)`` draws, in both themes."""
    return Illustration(title, caption, draw(theme=LIGHT), draw(theme=DARK), wide, draw, plot, data, norm)


def curve(records: Sequence[Record], **splits: str) -> Splits:
    """The curves, by split, of the first record that has any of at least two epochs."""
    for record in records:
        kept: Splits = [
            (split, record.curves[name]) for split, name in splits.items() if len(record.curves.get(name, ())) > 1
        ]
        if kept:
            return kept
    return []


def with_count(caption: str, models: int, most: int = MOST_DRAWN) -> str:
    """The caption, followed by the number of models that are not drawn where there are more than ``most``."""
    return f"{caption} {models - most:,} more models not drawn." if models > most else caption


def training(
    title: str, caption: str, lines: Mapping[str, Splits], unit: str, *, share: bool, data: str = ""
) -> Iterator[Illustration]:
    """Curves by epoch, at most seven models a figure and `MOST_DRAWN` in all; the caption counts the others."""
    labels, caption = list(lines)[:MOST_DRAWN], with_count(caption, len(lines))
    for start in range(0, len(labels), ROWS_PER_PANEL):
        panel = {label: lines[label] for label in labels[start : start + ROWS_PER_PANEL]}
        draw = partial(curves, panel, unit=unit, share=share)
        yield both(title, caption, draw, plot=_plot(panel, unit, share), data=data)


def _plot(panel: Mapping[str, Splits], unit: str, share: bool) -> Plot:
    series = [
        Series(
            f"{label}, {split}",
            tuple(Point(epoch, value) for epoch, value in enumerate(values, 1)),
            colour,
            dash=index,
        )
        for colour, (label, splits) in enumerate(panel.items())
        for index, (split, values) in enumerate(splits)
    ]
    return Plot("epoch", unit, tuple(series), percent=share, y_log=not share)


Captioned = TypeVar("Captioned", Table, Illustration)


def captioned_once(shown: Iterable[Captioned]) -> list[Captioned]:
    """Tables or figures, where each caption stands only at the first that has it."""
    captions: set[str] = set()
    once = []
    for one in shown:
        once.append(replace(one, caption="") if one.caption in captions else one)
        captions.add(one.caption)
    return once
