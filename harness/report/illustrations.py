"""The figures of a page: which curves to draw from which records, and what to look for in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from epsbench.harness.records import Record
from epsbench.harness.report import figures
from epsbench.harness.report.content import Content
from epsbench.harness.report.cost import gradients
from epsbench.harness.report.frontier import draw as draw_frontier
from epsbench.harness.report.frontier import frontiers
from epsbench.harness.report.leaderboard import Board
from epsbench.harness.report.style import DARK, LIGHT
from epsbench.harness.report.units import norm_name

Splits = list[tuple[str, Sequence[float]]]
"""The curves of one model: (split, values by epoch)."""

ACCURACY_CAPTION = (
    "A colour is a model, a marker an attack, a band the 95 % interval; the heavy line is the worst case over attacks, "
    "image by image. Look for curves that stay high: noise should cost little, and a gradient attack should reach zero "
    "as ε grows; one that levels off above chance hints at masked gradients."
)
PRICE_CAPTION = (
    "A point is an attack at one ε, a line joins the attacks at one ε. Look for how far a line falls to the right. "
    "A flat line: one gradient tells as much as many. A falling one: the cheap attack flatters the model. One that "
    "falls from near the top to the bottom: the model resists a single step and nothing else. Where images that are "
    "fooled leave early, a weak model is cheap to attack, and its points lie further left."
)
FRONTIER_CAPTION = (
    "A point is a way of training: its worst case over attacks against the seconds its training took{}, the means over "
    "seeds with bars of one standard deviation. The stepped line is the frontier, the most that so many seconds buy: a "
    "point below it is beaten by one that trains no longer. Look for where the line stops rising, and for costly "
    "points under it."
)
MOST_PRICES = 6
TRAINING_CAPTION = (
    "Accuracy by epoch, on clean images. A training curve above its validation curve is overfitting; an adversarial "
    "training curve counts the images that it trained on. Of several seeds, the first."
)


@dataclass(frozen=True)
class Illustration:
    """A figure in both themes, as SVG, with a title and a caption that says what to look for; of figures of a kind
    that stand together the page says it once. A ``wide`` one takes the whole page's width."""

    title: str
    caption: str
    light: bytes
    dark: bytes
    wide: bool = False


def robustness_figures(content: Content) -> Iterator[Illustration]:
    """Accuracy against ε for every leaderboard, then how its models trained."""
    drawn: set[str] = set()
    for board in content.boards:
        if board.eps[-1][0] > 0:
            for rows in figures.panels(board):
                yield both(
                    f"Accuracy against ε on {board.data}, {norm_name(board.norm)}",
                    ACCURACY_CAPTION,
                    partial(figures.accuracy, board, rows),
                )
        yield from frontier_figures(board)
        trained = {
            row.label: lines
            for row in board.rows
            if (lines := curve(row.records, validation="validation_accuracy", training="train_accuracy"))
        }
        if board.data not in drawn:
            drawn.add(board.data)
            yield from training(
                f"Training on {board.data}",
                TRAINING_CAPTION,
                trained,
                "accuracy",
                share=True,
            )


def frontier_figures(board: Board) -> Iterator[Illustration]:
    """Robust accuracy against training time, where at least two defended models have both; a figure a device."""
    for device, points in frontiers(board).items():
        title = f"What training time buys on {board.data}, {norm_name(board.norm)} ε = {board.ranked[1]}"
        caption = FRONTIER_CAPTION.format(f" on {device}" if device else "")
        yield both(title, caption, partial(draw_frontier, board, points))


def price_figures(content: Content) -> Iterator[Illustration]:
    """Robust accuracy against the gradients it took to find, one figure a model, the first few of every leaderboard.

    Nothing is drawn where there are not two attacks to choose from.
    """
    for board in content.boards:
        prices = [(row, gradients(row, content.results)) for row in board.rows]
        told = [
            (row, taken) for row, taken in prices if len({attack for _, attack in taken}) > 1 and any(taken.values())
        ]
        counts = [count for _, taken in told for count in taken.values()]
        for row, taken in told[:MOST_PRICES]:
            title = f"What gradients find on {board.data}, {norm_name(board.norm)}: {row.label}"
            yield both(title, "", partial(figures.price, board, row, taken, counts))


def curve(records: Sequence[Record], **splits: str) -> Splits:
    """The curves, by split, of the first record that has any of at least two epochs."""
    for record in records:
        held: Splits = [
            (split, record.curves[name]) for split, name in splits.items() if len(record.curves.get(name, ())) > 1
        ]
        if held:
            return held
    return []


def training(
    title: str, caption: str, lines: Mapping[str, Splits], unit: str, *, share: bool
) -> Iterator[Illustration]:
    """Curves by epoch, at most seven models a figure."""
    labels = list(lines)
    for start in range(0, len(labels), figures.ROWS_PER_PANEL):
        panel = {label: lines[label] for label in labels[start : start + figures.ROWS_PER_PANEL]}
        yield both(title, caption, partial(figures.curves, panel, unit=unit, share=share))


def both(title: str, caption: str, draw: Callable[..., bytes], *, wide: bool = False) -> Illustration:
    """The figure that ``draw(theme=...)`` draws, in both themes."""
    return Illustration(title, caption, draw(theme=LIGHT), draw(theme=DARK), wide)
