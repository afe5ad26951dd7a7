"""`epsbench describe CELL`: a paragraph for the methods section, and BibTeX of what the cell uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.files import write_atomically
from epsbench.harness.latex import DEFINITION, escape
from epsbench.harness.records import read_record
from epsbench.harness.report.exports.citing.bibliography import bibtex
from epsbench.harness.report.exports.citing.paragraph import Sentence, sentences, works
from epsbench.harness.report.exports.citing.works import unknown_names
from epsbench.harness.report.results.checking import check_cell
from epsbench.harness.report.results.units import visible


def describe(cell: str, results: Path | None, *, latex: bool = False, bib: Path | None = None) -> str:
    """The methods paragraph of a cell and, below it or in the file ``bib``, the works it cites.

    ``cell`` is the file of a record, or the beginning of an id in the folder ``results`` (default: any folder below
    ``results/``). Raises `InputError` for a cell that is not there or not unique, and for a file that cannot be
    written.
    """
    path = find_cell(cell, results)
    record = read_record(path)
    if problems := check_cell(path.parents[1], record):
        raise InputError(problems)
    text = _latex(sentences(record)) if latex else _text(sentences(record))
    entries = bibtex(works(record))
    if own := [visible(name) for name in unknown_names(record.cell)]:
        remark = f"No work is known for {', '.join(own)}; describe and cite it yourself."
        text += f"\n% {escape(remark)}\n" if latex else f"\n\n{remark}"
    if bib is None:
        return (
            f"{text}\n\n{entries}"
            if not latex
            else f"{text}\n\n% BibTeX, or with --bib in a file of its own:\n\n{_commented(entries)}"
        )
    try:
        write_atomically(bib, entries.encode())
    except OSError as error:
        raise InputError(f"{bib}: cannot be written ({error.strerror or error}); choose another --bib") from error
    return text


def find_cell(cell: str, results: Path | None) -> Path:
    """The file of the record that a user means."""
    if cell.endswith(".json"):
        return Path(cell)
    if not cell or not set(cell) <= set("0123456789abcdef"):
        raise InputError(
            f"{cell}: no id of a cell; give an id or its beginning, as reports print it, or a record's file"
        )
    pattern = f"cells/{cell}*.json" if results is not None else f"**/cells/{cell}*.json"
    where = results if results is not None else Path("results")
    matching = sorted(where.glob(pattern))
    if not matching:
        raise InputError(f"{cell}: no such cell in {where}; name the results folder with --out")
    if len({path.name for path in matching}) > 1:
        raise InputError(f"{cell}: the beginning of {len(matching)} ids in {where}; give more of it")
    return matching[0]


def _joined(given: Sequence[Sentence], text: Callable[[str], str], cite: Callable[[Sequence[str]], str]) -> str:
    return " ".join(f"{text(each.text)}{cite(each.cites)}." for each in given)


def _text(given: Sequence[Sentence]) -> str:
    return _joined(given, str, lambda keys: f" [{', '.join(keys)}]" if keys else "")


def _latex(given: Sequence[Sentence]) -> str:
    paragraph = _joined(given, escape, lambda keys: f"~\\cite{{{','.join(keys)}}}" if keys else "")
    return f"{DEFINITION}\n{paragraph}"


def _commented(entries: str) -> str:
    return "\n".join(_lines(entries))


def _lines(entries: str) -> Iterator[str]:
    for line in entries.splitlines():
        yield f"% {line}"
