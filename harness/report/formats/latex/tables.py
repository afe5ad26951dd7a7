"""Tables with booktabs: what all of a report's tables have in common, and those of texts and numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from epsbench.harness.latex import escape
from epsbench.harness.report.drawing.table import Entry, Table

WIDE = 6
"""Columns above which a table is scaled to the width of the line."""
LONG = 40
"""Rows above which a table may break across pages."""
LONGEST_NAME = 40
"""Letters of the longest name that stands on one line."""
ROWS = " \\\\"


def name_column(names: Sequence[str]) -> str:
    """A column for names: as wide as they are, or a paragraph where one is long."""
    if max(map(len, names), default=0) <= LONGEST_NAME:
        return "l"
    return r">{\raggedright\arraybackslash}p{6cm}"


def head(text: str, span: int = 1) -> str:
    """A centred head over some columns; parameters stand below the name."""
    lines = [escape(part) for part in re.split(r"(?=\()|(?<=,) ", text)]
    stacked = lines[0] if len(lines) == 1 else f"\\shortstack{{{ROWS.strip().join(lines)}}}"
    return f"\\multicolumn{{{span}}}{{c}}{{{stacked}}}"


def label_of(*parts: str) -> str:
    """A label for ``\\ref``: ``"tab:robust-mnist-linf-8-255"``."""
    return "tab:" + "-".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") or "x" for part in parts)[:80]


def floating(caption: str, label: str, columns: str, lines: Sequence[str], count: int) -> str:
    """A floating table; ``lines`` are those between top and bottom rule, of ``count`` columns."""
    tabular = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
    if count > WIDE:
        tabular = [r"\resizebox{\linewidth}{!}{%", *tabular[:-1], r"\end{tabular}}"]
    top = [
        r"\begin{table}[htbp]",
        r"\centering\small\setlength{\belowcaptionskip}{4pt}",
        f"\\caption{{{caption}}}",
        f"\\label{{{label}}}",
    ]
    return "\n".join([*top, *tabular, r"\end{table}"])


def plain_table(table: Table) -> str:
    """A table of texts: numbers to the right, each with its interval."""
    columns = "".join(
        "r" if column.numeric else name_column([row[index].plain for row in table.rows])
        for index, column in enumerate(table.columns)
    )
    heads = " & ".join(head(column.title) for column in table.columns) + ROWS
    lines: list[str] = []
    for index, row in enumerate(table.rows):
        lines += [r"\addlinespace"] if index in table.starts and index else []
        lines.append(" & ".join(map(_entry, row)) + ROWS)
    notes = [f"{note[:1].upper()}{note[1:]}." for note in table.notes]
    caption = " ".join(escape(text) for text in (f"{table.title}.", table.caption, *notes) if text)
    label = label_of(table.title)
    if len(table.rows) <= LONG:
        return floating(caption, label, columns, [heads, r"\midrule", *lines], len(table.columns))
    top = [r"{\footnotesize", f"\\begin{{longtable}}{{{columns}}}", f"\\caption{{{caption}}}\\label{{{label}}}\\\\"]
    rules = [r"\toprule", heads, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"]
    return "\n".join([*top, *rules, *lines, r"\end{longtable}", "}"])


def _entry(entry: Entry) -> str:
    shown = escape(entry.plain, breakable=len(entry.plain) > LONGEST_NAME)
    return f"\\textbf{{{shown}}}" if entry.state in ("failed", "void") else shown
