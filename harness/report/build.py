"""A report on results folders, in any format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.files import write_atomically
from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness.distances import only_at


def _text(content: Content) -> str:
    from epsbench.harness.report.formats.text import text

    return text(content)


def _markdown(content: Content) -> str:
    from epsbench.harness.report.formats.markdown import markdown

    return markdown(content)


def _csv(content: Content) -> str:
    from epsbench.harness.report.formats.export import to_csv

    return to_csv(content.results)


def _json(content: Content) -> str:
    from epsbench.harness.report.formats.export import to_json

    return to_json(content.results)


def _html(content: Content) -> str:
    from epsbench.harness.report.formats.html import html
    from epsbench.harness.report.glossary import hint
    from epsbench.harness.report.page import page_parts

    return html(page_parts(content), hint)


def _latex(content: Content) -> str:
    from epsbench.harness.report.formats.latex.document import latex

    return latex(content.boards, content.tables[len(content.boards) :])


FORMATS: dict[str, Callable[[Content], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
    "html": _html,
    "latex": _latex,
}
"""Every format by its name; a format's libraries are imported only when it is used."""


def report(
    results: Path | Sequence[Path],
    fmt: str = "text",
    output: Path | None = None,
    out: Path | None = None,
    figures: Path | None = None,
    at_eps: Sequence[Fraction] = (),
    beside: bool = True,
) -> str:
    """The report on a results folder, or on several as one.

    With ``output`` it is also written to that file. Without ``output``, format text also writes ``report.html`` and
    ``report.md`` into the folder ``out`` and ends with their paths. ``out`` defaults to the results folder; where there
    are several, or not ``beside`` the records, nothing is written without ``out``. The figures are also written into
    the folder ``figures``, as PDF and as pgfplots data.

    With ``at_eps`` the report is on these radii alone. Attacks that looked for the smallest distance answer any of
    them; nothing is computed, and nothing is written beside the results unless ``out`` says where.

    Raises `InputError` for an unknown format, for a folder that is missing, empty or holds a bad record, for an
    ``output`` or ``out`` that cannot be written, and for an ``out`` together with ``output`` or with another format
    than text.
    """
    if fmt not in FORMATS:
        raise InputError(f"format: unknown format {fmt!r}{did_you_mean(fmt, FORMATS)}")
    if out is not None and (output is not None or fmt != "text"):
        raise InputError(
            "--out: names the folder of report.html and report.md; leave out either --out, or --format and --output"
        )
    folders = [results] if isinstance(results, Path) else list(results)
    loaded = load_results(*folders)
    content = Content(only_at(loaded, at_eps) if at_eps else loaded)
    if figures is not None:
        from epsbench.harness.report.exports.figures import write_figures

        write_figures(content, figures)
    text = FORMATS[fmt](content)
    place = out or (folders[0] if beside and len(folders) == 1 and not at_eps else None)
    if output is not None:
        _write(output, text, "--output")
    elif fmt == "text" and place is not None:
        write = _beside if out is None else _asked_for
        text += "\n" + "".join(write(place / name, FORMATS[kind](content)) for name, kind in BESIDE.items())
    return text


BESIDE = {"report.html": "html", "report.md": "markdown"}


def _beside(path: Path, text: str) -> str:
    """Write a report beside the records and return a line that names it; where it cannot be written, the line says why.

    The report is printed in any case, and the records may be in a folder that is only to be read.
    """
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        return f"{path}: not written ({error.strerror or error})\n"
    return f"{path}\n"


def _asked_for(path: Path, text: str) -> str:
    """As `_beside`, in the folder that ``--out`` names. Raises `InputError` where it cannot be written."""
    _write(path, text, "--out")
    return f"{path}\n"


def _write(path: Path, text: str, option: str) -> None:
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another {option}") from error
