"""What each part of an ensemble of attacks adds, as a figure: robust accuracy after each part, a line a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from fractions import Fraction

from matplotlib.ticker import PercentFormatter

from epsbench.harness.records import Record
from epsbench.harness.report.drawing.curves import ROWS_PER_PANEL
from epsbench.harness.report.drawing.style import Theme, axis_titles, direct_labels, figure, svg, text
from epsbench.harness.report.results.cells import AttackKey, attack_key
from epsbench.harness.report.robustness.leaderboard import Board
from epsbench.harness.statistics import ends


def ensembles(board: Board) -> Iterator[tuple[AttackKey, Mapping[str, Record]]]:
    """Every attack with parts, and by the model's label its record at the ε of the ranks, of the first seed."""
    eps, _ = board.ranked
    by_attack: dict[AttackKey, dict[str, Record]] = defaultdict(dict)
    for row in board.rows:
        for record in row.records:
            if record.status == "ok" and record.parts and Fraction(record.cell["eps"]) == eps:
                by_attack[attack_key(record.cell)].setdefault(row.label, record)
    for attack, records in by_attack.items():
        yield attack, dict(list(records.items())[:ROWS_PER_PANEL])


def draw_parts(board: Board, attack: AttackKey, records: Mapping[str, Record], theme: Theme) -> bytes:
    """Clean accuracy, then the accuracy after each part, with bands of the 95 % intervals."""
    drawing, axes = figure(theme, height=4.0)
    names = list(dict.fromkeys(part.name for record in records.values() for part in record.parts))
    labels = []
    for (label, record), colour in zip(records.items(), theme.lines, strict=False):
        after = {part.name: part.robust_accuracy for part in record.parts}
        metrics = [record.metrics["clean_accuracy"], *(after[name] for name in names if name in after)]
        places = [0, *(index for index, name in enumerate(names, 1) if name in after)]
        values = [metric.value for metric in metrics]
        axes.plot(places, values, color=colour, marker="o", markersize=4.5, linewidth=1.8, clip_on=False)
        lows, highs = zip(*(ends(metric.value, metric.low, metric.high) for metric in metrics), strict=True)
        axes.fill_between(places, lows, highs, color=colour, alpha=0.16, linewidth=0)
        labels.append((values[-1], label, colour))
    axes.set_xlim(0, len(names))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks(range(len(names) + 1), ["clean", *map(text, names)])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis_titles(axes, theme, f"after each part of {board.labels[attack]}", f"accuracy on {board.where}")
    direct_labels(axes, labels, 0.065)
    return svg(drawing)
