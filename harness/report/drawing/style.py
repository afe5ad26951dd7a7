"""How figures look: a light and a dark theme, colours for colour-blind readers, and no global matplotlib state."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter


@dataclass(frozen=True)
class Theme:
    """The colours of a page. Those of lines are Okabe and Ito's (2008), lightened for the dark theme; they differ in
    lightness, so that a grey print can be read too."""

    name: str
    """``"light"`` or ``"dark"``."""
    paper: str
    """The background."""
    ink: str
    """Text."""
    faint: str
    """Axis labels and legends."""
    grid: str
    """Grid lines and axes."""
    lines: tuple[str, ...]
    """Curves, one colour a model."""


LIGHT = Theme(
    "light",
    "#ffffff",
    "#1c2530",
    "#66717f",
    "#e4e8ec",
    ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#2b95cf", "#5a5a5a"),
)
DARK = Theme(
    "dark",
    "#161b22",
    "#e6eaef",
    "#98a3b0",
    "#2b323b",
    ("#58a6e0", "#f28e4b", "#3ecf9f", "#dd88cc", "#e3b341", "#8fd3f4", "#b5b5b5"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
KEY_WIDTH, LETTER_WIDTH = 0.62, 0.078  # inches that a legend's key and each of its letters take
SHARES = tuple(step / 50 for step in range(51))
LONGEST_LABEL = 44  # letters beside a line
FONT: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "epsbench",
}


READABLE = 4.5
"""The least contrast of a text and its ground (WCAG 2.2, 1.4.3)."""


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours ``#rrggbb`` (WCAG 2.2), from 1 to 21."""

    def luminance(colour: str) -> float:
        channels = np.array(to_rgb(colour))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@cache
def readable(colour: str, paper: str) -> str:
    """The colour, darkened or lightened as little as its text on this ground needs to be read."""
    away = "#000000" if contrast("#000000", paper) > contrast("#ffffff", paper) else "#ffffff"
    (r, g, b), (to_r, to_g, to_b) = to_rgb(colour), to_rgb(away)
    mixed = (to_hex((r + share * (to_r - r), g + share * (to_g - g), b + share * (to_b - b))) for share in SHARES)
    return next((each for each in mixed if contrast(each, paper) >= READABLE), away)


PANELS = 4  # beside each other


def figure(theme: Theme, width: float = 6.6, height: float = 3.7) -> tuple[Figure, Axes]:
    """An empty figure of this size, in inches, with one plain pair of axes."""
    with matplotlib.rc_context(FONT):
        drawing = Figure(figsize=(width, height), facecolor=theme.paper, layout="constrained")
        axes = drawing.add_subplot(facecolor=theme.paper)
    _plain(axes, theme)
    return drawing, axes


def panels(theme: Theme, count: int, height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure of ``count`` axes that share their height axis, row by row, each ``height`` inches high.

    One panel is as wide as a plain figure, several are as wide as the page.
    """
    columns = min(count, PANELS)
    rows = -(-count // columns)
    with matplotlib.rc_context(FONT):
        size = (6.6 if count == 1 else 13.4, height * rows + 0.4)
        layout = ConstrainedLayoutEngine(h_pad=0.08)  # inches: a title keeps off the axis above it
        drawing = Figure(figsize=size, facecolor=theme.paper, layout=layout)
        row_by_row: list[Axes] = []
        for index in range(count):
            shared = row_by_row[0] if row_by_row else None
            row_by_row.append(drawing.add_subplot(rows, columns, index + 1, facecolor=theme.paper, sharey=shared))
    for index, axes in enumerate(row_by_row):
        _plain(axes, theme)
        axes.tick_params(labelleft=index % columns == 0)
    return drawing, row_by_row


def samples_axis(axes: Axes) -> None:
    """A logarithmic axis of counts: 1, 10, 100, 1,000."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.minorticks_off()


def _plain(axes: Axes, theme: Theme) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.grid)
    axes.tick_params(colors=theme.faint, length=0, labelcolor=theme.faint)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)


_AS_PDF: ContextVar[bool] = ContextVar("as_pdf", default=False)


def as_pdf(draw: Callable[[], bytes]) -> bytes:
    """What ``draw`` draws, as PDF with embedded fonts in place of SVG; the same figure gives the same bytes."""
    token = _AS_PDF.set(True)
    try:
        return draw()
    finally:
        _AS_PDF.reset(token)


def svg(drawing: Figure) -> bytes:
    """The figure as SVG, inside `as_pdf` as PDF; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    if _AS_PDF.get():
        with matplotlib.rc_context({**FONT, "pdf.fonttype": 42}):
            FigureCanvasPdf(drawing).print_pdf(buffer, metadata={"CreationDate": None, "Creator": None})
        return buffer.getvalue()
    with matplotlib.rc_context(FONT):
        FigureCanvasSVG(drawing).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@cache
def _glyphs() -> frozenset[int]:
    """The characters that the font of figures has."""
    return frozenset(get_font(findfont(FONT["font.family"])).get_charmap())


def text(value: str) -> str:
    """A string for a figure: matplotlib would read dollar signs as the start of a formula, so they are escaped, and
    draws an empty box for a character that its font lacks, so its number stands there: ``U+6A21``."""
    shown = "".join(each if ord(each) in _glyphs() else f"U+{ord(each):04X}" for each in value)
    return shown.replace("$", r"\$")


def axis_titles(axes: Axes, theme: Theme, below: str, above: str) -> None:
    """Titles of both axes: of x below, of y above the axes and unrotated."""
    axes.set_xlabel(text(below), color=theme.faint)
    axes.set_title(text(above), loc="left", color=theme.faint, fontsize=9.5, pad=10)


def legend(drawing: Figure, theme: Theme, handles: Sequence[Artist]) -> None:
    """A legend below the axes, in as many columns as fit beside each other."""
    widths = [KEY_WIDTH + LETTER_WIDTH * len(str(handle.get_label())) for handle in handles]

    def width(columns: int) -> float:
        return sum(
            float(column.max()) for column in np.array_split(widths, columns)
        )  # matplotlib fills columns this way

    room = drawing.get_size_inches()[0]
    fitting = [columns for columns in range(len(handles), 1, -1) if width(columns) <= room]
    drawing.legend(
        handles=handles,
        loc="outside lower left",
        ncols=fitting[0] if fitting else 1,
        frameon=False,
        labelcolor=theme.faint,
    )


def hollow_point(theme: Theme, label: str) -> Line2D:
    """An entry of a legend for points that are drawn hollow."""
    return Line2D([], [], color=theme.faint, marker="o", markerfacecolor=theme.paper, linewidth=0, label=label)


def direct_labels(axes: Axes, labels: Iterable[tuple[float, str, str]], gap: float) -> None:
    """Labels right of the axes, each at the end of its line, at least ``gap`` (a share of the axes' height) apart.

    ``labels`` are (height in data units, text, colour). Labels that move keep their order.
    """
    right = axes.get_xlim()[1]
    point_labels(axes, ((right, height, label, colour) for height, label, colour in labels), gap)


def point_labels(axes: Axes, labels: Iterable[tuple[float, float, str, str]], gap: float) -> None:
    """As `direct_labels`, for points anywhere in the axes: (x, y, text, colour), x and y in data units."""
    wanted = sorted(labels, key=lambda label: label[1:])
    to_share = axes.transData + axes.transAxes.inverted()
    places = spread([float(to_share.transform((x, y))[1]) for x, y, _, _ in wanted], gap, 0.0, 1.0)
    # From the left end of the label: a line from its middle would cross the labels above or below.
    line = {"arrowstyle": "-", "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 1, "relpos": (0.0, 0.5)}
    for (x, y, label, colour), place in zip(wanted, places, strict=True):
        axes.annotate(
            text(shortened(label)),
            xy=(x, y),
            xytext=(1.05, place),
            xycoords="data",
            textcoords=axes.transAxes,
            color=readable(colour, to_hex(axes.get_facecolor())),
            va="center",
            fontsize=9.5,
            annotation_clip=False,
            arrowprops={**line, "color": colour},
        )


def shortened(label: str) -> str:
    """The label, with its middle left out where it is long; the tables show the whole label."""
    if len(label) <= LONGEST_LABEL:
        return label
    kept = LONGEST_LABEL - 1
    return f"{label[: kept - kept // 4].rstrip()}…{label[-(kept // 4) :].lstrip()}"


def spread(heights: list[float], gap: float, low: float, high: float) -> list[float]:
    """Heights, ascending, moved as little as needed so that neighbours are at least ``gap`` apart.

    Neighbours that overlap form a block, centred on the mean of its members (pool adjacent violators). Heights outside
    [low, high] are then moved inside, as far as there is room.
    """
    blocks: list[tuple[float, int]] = []
    for height in heights:
        blocks.append((height, 1))
        while len(blocks) > 1:
            (lower, below), (upper, above) = blocks[-2], blocks[-1]
            if upper - lower >= gap * (below + above) / 2:
                break
            blocks[-2:] = [((lower * below + upper * above) / (below + above), below + above)]
    places = [centre + gap * (i - (count - 1) / 2) for centre, count in blocks for i in range(count)]
    last = len(places) - 1
    places = [max(place, low + gap * i) for i, place in enumerate(places)]
    return [min(place, high - gap * (last - i)) for i, place in enumerate(places)]
