"""The report as text: in a terminal with colours, elsewhere the same without."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from epsbench.harness.report.drawing.table import Column, Entry, Table
from epsbench.harness.report.formats.document import Document
from epsbench.harness.report.formats.fitting import fitted
from epsbench.harness.report.results.units import some_of

STATE_STYLES = {"failed": "bold red", "void": "bold magenta", "missing": "dim", "warning": "yellow"}
PLAIN_WIDTH = 120


def text(document: Document, *, width: int | None = None, colour: bool | None = None) -> str:
    """The report as text. ``width`` in columns and ``colour`` default to those of standard output.

    Names are never interpreted as rich's markup.
    """
    terminal = sys.stdout.isatty() if colour is None else colour
    columns = width or (os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else PLAIN_WIDTH)
    console = Console(file=io.StringIO(), width=columns, force_terminal=terminal, highlight=False, markup=False)
    if not terminal:
        console.no_color = True
    console.print(Text(document.title, style="bold"))
    for paragraph in document.reading:
        console.print(Text(paragraph))
    console.print()
    for table in document.tables:
        _print(console, table)
    written = console.file
    assert isinstance(written, io.StringIO)
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip().splitlines()) + "\n"


def _print(console: Console, table: Table) -> None:
    layout = fitted(table, console.width, _minimum)
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    for index, width in zip(layout.columns, layout.widths, strict=True):
        column = table.columns[index]
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        drawn.add_column(Text(_loose(column.title)), justify=justify, overflow="fold", width=width)
    for row_index, row in enumerate(table.rows):
        if row_index in table.starts and row_index > 0:
            drawn.add_section()
        drawn.add_row(*(_drawn(row[index], table.columns[index], layout.split) for index in layout.columns))
    console.print(Text(table.title, style="bold cyan"))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(f"  {note}", style="yellow"))
    if layout.left_out:
        left_out = some_of([_with_value(table, title) for title in layout.left_out], most=20)
        console.print(
            Text(f"Columns left out, for lack of width: {left_out}. The HTML page has all of them.", style="dim")
        )
    if table.caption:
        console.print(Text(table.caption, style="dim"))
    console.print()


def _with_value(table: Table, title: str) -> str:
    """The title of a column that is left out, with its value where that is the same in every row."""
    index = [column.title for column in table.columns].index(title)
    values = {row[index].plain for row in table.rows} - {""}
    return f"{title} ({values.pop()} in every row)" if len(values) == 1 else title


def _minimum(table: Table, index: int, split: bool) -> tuple[int, int]:
    """The least width of a column that breaks no number and no text but at spaces, and the width it would like."""
    column = table.columns[index]
    texts = [_drawn(row[index], column, split).plain for row in table.rows]
    lines = [line for text in texts for line in text.splitlines()]
    title = _loose(column.title)
    kept = lines if column.numeric else [part for line in lines for part in line.split()]
    least = max((cell_len(part) for part in [*kept, *title.split()]), default=1)
    return least, max((cell_len(line) for line in [*lines, title]), default=1)


def _loose(label: str) -> str:
    """A label with a space before its parameters, where a line can break."""
    return re.sub(r"(?<=\S)\(", " (", label)


def _drawn(entry: Entry, column: Column, split: bool) -> Text:
    """An entry; ``split`` sets its interval below the value."""
    shown = _loose(entry.text) if column.label else entry.text
    drawn = Text(shown, style=STATE_STYLES.get(entry.state, ""))
    if entry.detail:
        drawn.append(f"\n{entry.detail}" if split else f" {entry.detail}", style="dim")
    return drawn
