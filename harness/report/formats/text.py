"""The report as text: in a terminal with colours, elsewhere the same without."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from epsbench.harness.report.drawing.table import Column, Entry, Table
from epsbench.harness.report.formats.document import Document

STATE_STYLES = {"failed": "bold red", "void": "bold magenta", "missing": "dim", "warning": "yellow"}
PLAIN_WIDTH = 120
LONGEST_UNBROKEN = 16  # columns that a name takes at most without a break


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
    fitting = next((way for way in BREAKS if _fits(table, way, console.width)), None)
    break_details = fitting or BREAKS[-1]
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in table.columns:
        # Numbers wrap only where nothing fits: half an interval would look like another number.
        kept = column.numeric and fitting is not None
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        drawn.add_column(Text(_loose(column.title)), justify=justify, overflow="fold", no_wrap=kept)
    for index, row in enumerate(table.rows):
        if index in table.starts and index > 0:
            drawn.add_section()
        drawn.add_row(*(_drawn(entry, column, break_details) for entry, column in zip(row, table.columns, strict=True)))
    console.print(Text(table.title, style="bold cyan"))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(f"  {note}", style="yellow"))
    if table.caption:
        console.print(Text(table.caption, style="dim"))
    console.print()


def _inline(detail: str) -> str:
    return f" {detail}"


def _below(detail: str) -> str:
    return f"\n{detail}"


def _split(detail: str) -> str:
    return "\n" + detail.replace(" ", "\n")


BREAKS: tuple[Callable[[str], str], ...] = (_inline, _below, _split)
"""Where an interval stands: beside its number, below it, or below it in two lines. The first that fits is used."""


def _fits(table: Table, break_details: Callable[[str], str], width: int) -> bool:
    """Whether a table fits without a break inside a number; texts may break at spaces."""
    needed = 0
    for index, column in enumerate(table.columns):
        entries = [_drawn(row[index], column, break_details).plain for row in table.rows]
        lines = [*entries, _loose(column.title)] if column.numeric else _unbroken([*entries, column.title])
        needed += 3 + max((cell_len(line) for text in lines for line in text.splitlines()), default=0)
    return needed <= width


def _unbroken(texts: list[str]) -> list[str]:
    """The parts of texts between spaces."""
    return [part[:LONGEST_UNBROKEN] for text in texts for part in text.split()]


def _loose(label: str) -> str:
    """A label with a space before its parameters, where a line can break."""
    return re.sub(r"(?<=\S)\(", " (", label)


def _drawn(entry: Entry, column: Column, break_details: Callable[[str], str]) -> Text:
    shown = _loose(entry.text) if column.label else entry.text
    drawn = Text(shown, style=STATE_STYLES.get(entry.state, ""))
    if entry.detail:
        drawn.append(break_details(entry.detail), style="dim")
    return drawn
