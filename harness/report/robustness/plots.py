"""The numbers of a leaderboard's figures, for the page's script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from epsbench.harness.report.drawing.plot import Plot, Point, Series
from epsbench.harness.report.results.cells import AttackKey
from epsbench.harness.report.results.units import duration, norm_name, number
from epsbench.harness.report.robustness.frontier import Point as Trained
from epsbench.harness.report.robustness.frontier import pareto
from epsbench.harness.report.robustness.leaderboard import Board, Row
from epsbench.harness.report.robustness.scores import Score


def accuracy_plot(board: Board, rows: Sequence[Row]) -> Plot:
    """Accuracy against ε: for every model the worst case over attacks, and each attack."""
    series: list[Series] = []
    for colour, row in enumerate(rows):
        worst = [(eps, row.worst.get(eps)) for eps, _ in board.eps]
        series.append(Series(f"{row.label}, worst case", _points(row, worst), colour, strong=True))
        for index, attack in enumerate(board.labels, 1):
            scores = [(eps, row.attacks.get((eps, attack))) for eps, _ in board.eps]
            if len(points := _points(row, scores)) > 1:
                series.append(Series(f"{row.label}, {board.labels[attack]}", points, colour, dash=index))
    ticks = ((0.0, "0"), *((float(eps), spelled) for eps, spelled in board.eps if eps))
    return Plot(
        f"ε ({norm_name(board.norm)}, pixel units)", f"accuracy on {board.data}", tuple(series), ticks, percent=True
    )


def _points(row: Row, scores: Sequence[tuple[Fraction, Score | None]]) -> tuple[Point, ...]:
    """The measured points that are no mere bounds, after the clean accuracy at ε = 0."""
    known = [(eps, score) for eps, score in [(Fraction(0), row.clean), *scores] if score and not score.bound]
    return tuple(
        Point(float(eps), score.value, score.low, score.high) for eps, score in known if score.value is not None
    )


def price_plot(board: Board, row: Row, taken: Mapping[tuple[Fraction, AttackKey], float]) -> Plot:
    """Robust accuracy against gradients: a line an ε, a point an attack. Attacks without gradients have no place."""
    series = []
    for index, (eps, spelled) in enumerate(board.eps):
        scores = [(taken.get((eps, attack)), row.attacks[eps, attack], attack) for attack in board.attacks[eps]]
        points = sorted(
            (Point(count, score.value, score.low, score.high, f"{board.labels[attack]}, {number(count)} gradients")
             for count, score, attack in scores if count and score.value is not None),
            key=lambda point: point.x,
        )  # fmt: skip
        if points:
            series.append(Series(f"ε = {spelled}", tuple(points), index % 7))
    return Plot("gradients for an image", f"robust accuracy on {board.data}", tuple(series), percent=True, x_log=True)


def frontier_plot(board: Board, points: Sequence[Trained]) -> Plot:
    """Robust accuracy against seconds of training: a point a model, and the line of the best within a time."""
    series = [
        Series(
            point.label,
            (Point(point.seconds, point.accuracy, label=_spread(point)),),
            index % 7,
            line=False,
        )
        for index, point in enumerate(points)
    ]
    front = tuple(Point(point.seconds, point.accuracy, label=point.label) for point in pareto(points))
    where = f"worst case on {board.where}"
    return Plot("seconds of training", where, (*series, Series("frontier", front, 6, steps=True)), percent=True)


def _spread(point: Trained) -> str:
    """The training time of a model, with the standard deviations over seeds where there are several."""
    time = f"{duration(point.seconds)} of training"
    if not point.seconds_sd and not point.accuracy_sd:
        return time
    return f"{time} ±{duration(point.seconds_sd)}, ±{100 * point.accuracy_sd:.1f} points over seeds"
