"""The figures that a page shows of classifiers, and what to look for in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from epsbench.harness.report.drawing.illustration import Illustration, both, curve, training, with_count
from epsbench.harness.report.results.units import distinct, norm_name
from epsbench.harness.report.robustness import figures
from epsbench.harness.report.robustness.cost import gradients
from epsbench.harness.report.robustness.frontier import draw as draw_frontier
from epsbench.harness.report.robustness.frontier import frontiers
from epsbench.harness.report.robustness.leaderboard import Board
from epsbench.harness.report.robustness.part_figures import draw_parts, ensembles
from epsbench.harness.report.robustness.plots import accuracy_plot, frontier_plot, price_plot
from epsbench.harness.report.robustness.tradeoff import draw_tradeoff, tradeoff_rows

ACCURACY_CAPTION = (
    "A colour is a model, a marker with its stroke an attack, a band the 95 % interval; the thick line is the worst "
    "case over attacks, image by image. Noise should cost a model little accuracy, and a gradient attack should reach "
    "zero as ε grows. A curve that levels off above chance (the dotted line) is a hint of masked gradients."
)
PRICE_CAPTION = (
    "A point is an attack at one ε; a line joins the attacks at one ε. Where a line is flat, one gradient finds as "
    "many adversarial images as many gradients do. Where it falls, a cheap attack makes the model look more robust "
    "than it is. Where it falls from near the top to the bottom, the model resists only a single step. If fooled "
    "images are not attacked further, attacks on a weak model take fewer gradients and their points lie further left."
)
FRONTIER_CAPTION = (
    "A point is a way of training: its worst case over attacks against its training time{}, means over seeds with "
    "bars of one standard deviation. The stepped line is the frontier: the best robust accuracy within a training "
    "time. For a point below it, another model is at least as robust and trains no longer. Look for where the line "
    "stops rising, and for points far below it."
)
TRADEOFF_CAPTION = (
    "A point is a model, with bars of the 95 % intervals. On the dashed line an attack would cost nothing. Look for "
    "models that give up clean accuracy and gain no robust accuracy: they lie left of another model, and not above it."
)
PARTS_CAPTION = (
    "Each part attacks the images that withstood the parts before it; the band is the 95 % interval. A line that is "
    "flat behind the first part: the later parts find nothing more. A late fall, at an attack without gradients, is a "
    "hint of masked gradients."
)
MOST_PRICES = 6
TRAINING_CAPTION = (
    "Accuracy by epoch on clean images. A training curve above its validation curve shows overfitting. In adversarial "
    "training, the training curve is the accuracy on the images trained on. Where there are several seeds, the first "
    "is drawn."
)


def robustness_figures(boards: Sequence[Board]) -> Iterator[Illustration]:
    """For every leaderboard: accuracy against ε, robust accuracy against training time, accuracy by epoch."""
    drawn: set[str] = set()
    for board in boards:
        if board.eps[-1][0] > 0:
            for rows in figures.panels(board):
                yield both(
                    f"Accuracy against ε on {board.data}, {norm_name(board.norm)}",
                    with_count(ACCURACY_CAPTION, len(figures.drawable(board))),
                    partial(figures.accuracy, board, rows),
                    plot=accuracy_plot(board, rows),
                    data=board.data,
                    norm=board.norm,
                )
        yield from _tradeoff_and_parts(board)
        yield from frontier_figures(board)
        trained = {
            label: lines
            for row, label in zip(board.rows, distinct([row.label for row in board.rows]), strict=True)
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
                data=board.data,
            )


def _tradeoff_and_parts(board: Board) -> Iterator[Illustration]:
    """Natural against robust accuracy, and what each part of an ensemble adds."""
    where = f"on {board.data}, {norm_name(board.norm)} ε = {board.ranked[1]}"
    if rows := tradeoff_rows(board):
        yield both(f"Clean against robust accuracy {where}", TRADEOFF_CAPTION, partial(draw_tradeoff, board, rows))
    for attack, records in ensembles(board):
        title = f"What each part of {board.labels[attack]} adds {where}"
        yield both(title, PARTS_CAPTION, partial(draw_parts, board, attack, records))


def frontier_figures(board: Board) -> Iterator[Illustration]:
    """Robust accuracy against training time, one figure a device that trained at least two defended models."""
    for device, points in frontiers(board).items():
        title = f"Robust accuracy against training time on {board.data}, {norm_name(board.norm)} ε = {board.ranked[1]}"
        caption = FRONTIER_CAPTION.format(f" on {device}" if device else "")
        draw, plot = partial(draw_frontier, board, points), frontier_plot(board, points)
        yield both(title, caption, draw, plot=plot, data=board.data, norm=board.norm)


def price_figures(boards: Sequence[Board]) -> Iterator[Illustration]:
    """Robust accuracy against gradients, one figure a model, for the first few models of every leaderboard.

    Models with fewer than two attacks are left out.
    """
    for board in boards:
        prices = [(row, gradients(row)) for row in board.rows]
        drawn = [
            (row, taken) for row, taken in prices if len({attack for _, attack in taken}) > 1 and any(taken.values())
        ]
        counts = [count for _, taken in drawn for count in taken.values()]
        for row, taken in drawn[:MOST_PRICES]:
            title = f"Robust accuracy against gradients on {board.data}, {norm_name(board.norm)}: {row.label}"
            draw, plot = partial(figures.price, board, row, taken, counts), price_plot(board, row, taken)
            yield both(title, "", draw, plot=plot, data=board.data, norm=board.norm)
