"""Curves as data files, and plots of them with pgfplots, so that a paper can set them in its own style."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from epsbench.harness.latex import DEFINITION, escape
from epsbench.harness.report.drawing.illustration import curve
from epsbench.harness.report.drawing.style import LIGHT
from epsbench.harness.report.results.units import distinct, norm_name
from epsbench.harness.report.robustness.figures import drawable
from epsbench.harness.report.robustness.leaderboard import Board
from epsbench.harness.report.robustness.scores import Score

USES = r"% In the preamble: \usepackage{pgfplots}\usepgfplotslibrary{fillbetween}\pgfplotsset{compat=1.17}"
MISSING = "nan"
Columns = Mapping[str, Sequence[float | None]]


def accuracy_plots(board: Board) -> dict[str, bytes]:
    """Accuracy over ε, clean accuracy at 0: a data file, and a plot of each model's worst case with its band."""
    rows = drawable(board)
    places = [Fraction(0), *(eps for eps, _ in board.eps)]
    if len(places) < 2 or not rows:
        return {}
    columns: dict[str, list[float | None]] = {"eps": [float(eps) for eps in places]}
    notes = []
    for number, row in enumerate(rows, 1):
        scores = [row.clean, *(row.worst.get(eps) for eps, _ in board.eps)]
        columns |= _of_scores(f"worst{number}", scores)
        notes.append(f"# worst{number}: {_line(row.label)}, worst case over attacks")
        for index, (attack, label) in enumerate(board.labels.items(), 1):
            under = [row.clean, *(row.attacks.get((eps, attack)) for eps, _ in board.eps)]
            columns |= _of_scores(f"attack{number}.{index}", under)
            notes.append(f"# attack{number}.{index}: {_line(row.label)} under {_line(label)}")
    name = f"accuracy-{file_name(board)}"
    plots = [_band(f"{name}.dat", f"worst{number}", number) for number in range(1, len(rows) + 1)]
    labels = [row.label for row in rows]
    options = {
        "xlabel": f"$\\varepsilon$ ({escape(norm_name(board.norm))})", "ylabel": r"accuracy (\%)", "ymin": "0",
        "ymax": "100", "xmin": "0", "xticklabel style": "/pgf/number format/fixed",
    }  # fmt: skip
    return {f"{name}.dat": _data(columns, notes), f"{name}.tex": _axis(options, plots, labels)}


def training_plots(board: Board) -> dict[str, bytes]:
    """Validation accuracy by epoch: a data file and a plot; empty where no model has such a curve."""
    curves = {
        label: lines[0][1]
        for row, label in zip(board.rows, distinct([row.label for row in board.rows]), strict=True)
        if (lines := curve(row.records, validation="validation_accuracy"))
    }
    if not curves:
        return {}
    longest = max(map(len, curves.values()))
    columns: dict[str, list[float | None]] = {"epoch": [float(epoch) for epoch in range(1, longest + 1)]}
    for number, values in enumerate(curves.values(), 1):
        columns[f"model{number}"] = [100 * value for value in values] + [None] * (longest - len(values))
    notes = [f"# model{number}: {_line(label)}" for number, label in enumerate(curves, 1)]
    name = f"training-{file_name(board)}"
    plots = [
        f"\\addplot[{_colour(number)}, thick] table[x=epoch, y=model{number}] {{{name}.dat}};"
        for number in range(1, len(curves) + 1)
    ]
    options = {"xlabel": "epoch", "ylabel": r"validation accuracy (\%)"}
    return {f"{name}.dat": _data(columns, notes), f"{name}.tex": _axis(options, plots, list(curves))}


def file_name(board: Board) -> str:
    """A board's data set and norm as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", f"{board.data} {board.norm}".lower()).strip("-")[:60] or "data"


def _of_scores(name: str, scores: Sequence[Score | None]) -> dict[str, list[float | None]]:
    """Value, lower and upper end in percent; a score that is only a bound is left out."""
    known = [score if score is not None and not score.bound else Score("missing") for score in scores]
    ends = {"": "value", ".low": "low", ".high": "high"}
    return {name + end: [_percent(getattr(score, field)) for score in known] for end, field in ends.items()}


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _line(text: str) -> str:
    return " ".join(text.split())


def _data(columns: Columns, notes: Sequence[str]) -> bytes:
    """Columns separated by spaces, with the notes as comments above."""
    rows = [
        " ".join(MISSING if value is None else f"{value:.6g}" for value in values)
        for values in zip(*columns.values(), strict=True)
    ]
    return ("\n".join([*notes, " ".join(columns), *rows]) + "\n").encode()


def _colour(number: int) -> str:
    return f"epsbench{(number - 1) % len(LIGHT.lines) + 1}"


def _band(file: str, name: str, number: int) -> str:
    """A line with its interval as a band; pgfplots leaves a gap where a value is missing."""
    colour = _colour(number)
    ends = "\n".join(
        f"\\addplot[draw=none, name path={name}{end}, forget plot] table[x=eps, y={name}.{end}] {{{file}}};"
        for end in ("low", "high")
    )
    fill = f"\\addplot[{colour}, opacity=0.18, forget plot] fill between[of={name}low and {name}high];"
    return f"{ends}\n{fill}\n\\addplot[{colour}, thick, mark=*, mark size=1.2pt] table[x=eps, y={name}] {{{file}}};"


def _axis(options: Mapping[str, str], plots: Sequence[str], labels: Sequence[str]) -> bytes:
    colours = [
        f"\\definecolor{{epsbench{index}}}{{HTML}}{{{colour[1:].upper()}}}"
        for index, colour in enumerate(LIGHT.lines, 1)
    ]
    wanted = {**options, "unbounded coords": "jump", "legend pos": "outer north east", "legend cell align": "left"}
    listed = ", ".join(f"{key}={{{value}}}" for key, value in wanted.items())
    legend = [f"\\addlegendentry{{{escape(label)}}}" for label in labels]
    drawn = [f"{plot}\n{entry}" for plot, entry in zip(plots, legend, strict=True)]
    lines = [USES, DEFINITION, *colours, r"\begin{tikzpicture}", f"\\begin{{axis}}[{listed}]", *drawn]
    return ("\n".join([*lines, r"\end{axis}", r"\end{tikzpicture}"]) + "\n").encode()
