"""The report in a terminal: rich tables where it is one, the same tables without colour where it is not."""

from __future__ import annotations

import io
import os
import sys

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from harness.report.content import Content
from harness.report.table import Entry, Table

STATE_STYLES = {"failed": "bold red", "void": "bold magenta", "missing": "dim", "warning": "yellow"}
PLAIN_WIDTH = 120


def text(content: Content, *, width: int | None = None, colour: bool | None = None) -> str:
    """The report as text. ``width`` in columns and ``colour`` default to what standard output is.

    Names are drawn as they stand, never read as markup.
    """
    terminal = sys.stdout.isatty() if colour is None else colour
    columns = width or (os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else PLAIN_WIDTH)
    console = Console(file=io.StringIO(), width=columns, force_terminal=terminal, highlight=False, markup=False)
    if not terminal:
        console.no_color = True
    console.print(Text(content.title, style="bold"))
    console.print(Padding(Text(content.reading), (0, 0, 1, 0)))
    for table in content.tables:
        _print(console, table)
    written = console.file
    assert isinstance(written, io.StringIO)
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip().splitlines()) + "\n"


def _print(console: Console, table: Table) -> None:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in table.columns:
        drawn.add_column(Text(column.title), justify="right" if column.numeric else "left", overflow="fold")
    stacked = console.width < 40 + sum(14 if column.numeric else 10 for column in table.columns)
    for index, row in enumerate(table.rows):
        if index in table.starts and index > 0:
            drawn.add_section()
        drawn.add_row(*(_entry(entry, stacked=stacked) for entry in row))
    console.print(Text(table.title, style="bold cyan"))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(f"  {note}", style="yellow"))
    if table.caption:
        console.print(Text(table.caption, style="dim"))
    console.print()


def _entry(entry: Entry, *, stacked: bool) -> Text:
    drawn = Text(entry.text, style=STATE_STYLES.get(entry.state, ""))
    if entry.detail:
        drawn.append(("\n" if stacked else " ") + entry.detail, style="dim")
    return drawn
