"""`epsbench publish`: writes the site, and again whenever a record is added."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from epsbench.harness.errors import InputError
from epsbench.harness.files import write_atomically
from epsbench.harness.report.content import Content
from epsbench.harness.report.drawing.images import data_uri
from epsbench.harness.report.formats.html import html
from epsbench.harness.report.glossary import hint
from epsbench.harness.report.page import page_parts
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.results.units import and_list, distinct, visible
from epsbench.harness.report.site.history import PATH as HISTORY
from epsbench.harness.report.site.history import history_page
from epsbench.harness.report.site.pages import ATTACKS, Cell, Page, Section, content_pages, page_path

HERE = Path(__file__).parent
STYLE = "style.css"
FOLDERS = "reports.html"
POLICY = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"


def publish(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the site over these results folders into the folder ``out``; returns its files.

    Pages link to each other relatively and need no server of their own. Files of an earlier site that no longer belong
    to it are deleted from ``models`` and ``attacks``. Raises `InputError` for folders as a report does, and where a
    file cannot be written.
    """
    content = Content(load_results(*folders))
    names = distinct([visible(str(folder)) for folder in folders])
    reports = {
        page_path("reports", name): (name, content if len(folders) == 1 else Content(load_results(folder)))
        for name, folder in zip(names, folders, strict=True)
    }
    pages = [*content_pages(content, reports), history_page(folders), _reports(reports)]
    files = {page.path: _rendered(page).encode() for page in pages}
    files[STYLE] = (HERE / STYLE).read_bytes()
    for path, (_, alone) in reports.items():
        files[path] = html(page_parts(alone), hint).encode()
    _write(files, out)
    return [out / name for name in files]


def watch(folders: Sequence[Path], out: Path, seconds: float, say: Callable[[str], None]) -> None:
    """Publish, and again after each time that records changed, looking every so many seconds, until interrupted.

    Folders that a run has not written to yet are left out and waited for.
    """
    before: object = None
    while True:
        now = _state(folders)
        if now != before:
            ready = [folder for folder in folders if _records(folder)]
            waiting = and_list([str(folder) for folder in folders if folder not in ready])
            if ready:
                say(f"{out / 'index.html'}: {len(publish(ready, out))} files")
            if waiting:
                say(f"waiting: no records yet in {waiting}")
            before = now
        time.sleep(seconds)


def _state(folders: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every record."""
    state = []
    for folder in folders:
        for path in _records(folder):
            with suppress(FileNotFoundError):  # a run has replaced or deleted it in this moment
                stat = path.stat()
                state.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(state)


def _records(folder: Path) -> list[Path]:
    return sorted((folder / "cells").glob("*.json"))


def _reports(reports: Mapping[str, tuple[str, Content]]) -> Page:
    rows = tuple((Cell(name, link=path), Cell(alone.title)) for path, (name, alone) in reports.items())
    lead = ("The full report on each results folder, with figures and pictures.",)
    return Page(FOLDERS, "Reports", lead, sections=(Section("Results folders", ("report", "suites"), rows),))


def _rendered(page: Page) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    links = (("index.html", "Leaderboards"), (ATTACKS, "Attacks"), (HISTORY, "History"), (FOLDERS, "Reports"))
    environment.filters["data_uri"] = data_uri
    return environment.get_template("page.html.jinja").render(page=page, policy=POLICY, links=links, style=STYLE)


def _write(files: Mapping[str, bytes], out: Path) -> None:
    """Write what differs from the files that are there, so that their times say when they changed."""
    try:
        for name, content in files.items():
            path = out / name
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
        for folder in ("models", "attacks", "reports"):
            for path in (out / folder).glob("*.html"):
                if f"{folder}/{path.name}" not in files:
                    path.unlink()
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
