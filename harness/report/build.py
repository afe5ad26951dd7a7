"""From results folders to a report in the format asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.records import write_atomically
from epsbench.harness.report.content import Content
from epsbench.harness.report.results import load_results


def _text(content: Content) -> str:
    from epsbench.harness.report.text import text

    return text(content)


def _markdown(content: Content) -> str:
    from epsbench.harness.report.markdown import markdown

    return markdown(content)


def _csv(content: Content) -> str:
    from epsbench.harness.report.export import to_csv

    return to_csv(content.results)


def _json(content: Content) -> str:
    from epsbench.harness.report.export import to_json

    return to_json(content.results)


def _html(content: Content) -> str:
    from epsbench.harness.report.html import html

    return html(content)


FORMATS: dict[str, Callable[[Content], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
    "html": _html,
}
"""Every format, with its libraries loaded only when it is asked for."""


def report(
    results: Path | Sequence[Path], fmt: str = "text", output: Path | None = None, out: Path | None = None
) -> str:
    """The report on a results folder, or on several as one.

    With ``output`` it is also written there. Text without ``output``, the plain ``epsbench report RESULTS``, also
    writes ``report.html`` and ``report.md`` into the folder ``out`` and ends with their paths. ``out`` is the results
    folder itself where there is one; of several none is the place, and without ``out`` nothing is written.

    Raises `InputError` for an unknown format, for a folder that is missing, empty or holds a bad record, for an
    ``output`` that cannot be written, and for an ``out`` where no files go beside.
    """
    if fmt not in FORMATS:
        raise InputError(f"--format: unknown format {fmt!r}{did_you_mean(fmt, FORMATS)}")
    if out is not None and (output is not None or fmt != "text"):
        raise InputError("--out: is where report.html and report.md go; leave out --format and --output, or --out")
    folders = [results] if isinstance(results, Path) else list(results)
    content = Content(load_results(*folders))
    told = FORMATS[fmt](content)
    place = out or (folders[0] if len(folders) == 1 else None)
    if output is not None:
        _write(output, told)
    elif fmt == "text" and place is not None:
        told += "\n" + "".join(_beside(place / name, FORMATS[kind], content) for name, kind in BESIDE.items())
    return told


BESIDE = {"report.html": "html", "report.md": "markdown"}


def _beside(path: Path, render: Callable[[Content], str], content: Content) -> str:
    """Write a report into the results folder; one that is read-only is no reason to show nothing."""
    try:
        write_atomically(path, render(content).encode())
    except OSError as error:
        return f"{path}: not written ({error.strerror or error})\n"
    return f"{path}\n"


def _write(path: Path, told: str) -> None:
    try:
        write_atomically(path, told.encode())
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another --output") from error
