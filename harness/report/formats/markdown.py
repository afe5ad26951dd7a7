"""The report as Markdown, for a pull request or a wiki."""

from __future__ import annotations

import re

from tabulate import tabulate

from epsbench.harness.report.drawing.table import Entry, Table
from epsbench.harness.report.formats.document import Document


def markdown(document: Document) -> str:
    """Title, opening paragraphs and every table in GitHub's Markdown; names are escaped."""
    parts = [f"# {escape(document.title)}", *map(escape, document.reading)]
    parts += [_table(table) for table in document.tables]
    parts += [
        f"<details>\n<summary>{escape(table.title)}</summary>\n\n{_body(table)}\n\n</details>"
        for table in document.details
    ]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text on one line, escaped so that neither Markdown nor the HTML inside it interprets anything."""
    shown = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", " ".join(text.split()))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _table(table: Table) -> str:
    return f"## {escape(table.title)}\n\n{_body(table)}"


def _body(table: Table) -> str:
    drawn = tabulate(
        [[_entry(entry) for entry in row] for row in table.rows],
        headers=[escape(column.title) for column in table.columns],
        tablefmt="pipe",
        colalign=["right" if column.numeric else "left" for column in table.columns] if table.rows else None,
        disable_numparse=True,
    )
    notes = "\n".join(f"- {escape(note)}" for note in table.notes)
    return "\n\n".join(part for part in (drawn, notes, escape(table.caption)) if part)


def _entry(entry: Entry) -> str:
    shown = escape(entry.plain)
    return f"**{shown}**" if entry.state in ("failed", "void") else shown
