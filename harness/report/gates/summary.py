"""Verdicts as Markdown, appended to a file: the job summary of GitHub Actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.report.formats.markdown import escape
from epsbench.harness.report.gates.junit import Case, Outcome

MOST_ROWS = 200  # GitHub refuses a summary of more than 1 MiB
LONGEST = 2_000
ICONS: dict[Outcome, str] = {"failure": "❌", "error": "⚠️", "passed": "✅"}


def summary(title: str, cases: Sequence[Case]) -> str:
    """A headline and a table, failures first; after 200 cases the rest is only counted."""
    ordered = [case for outcome in ICONS for case in cases if case.outcome == outcome]
    rows = [f"| {ICONS[case.outcome]} | {escape(case.message[:LONGEST])} |" for case in ordered[:MOST_ROWS]]
    rest = [f"{len(cases) - MOST_ROWS:,} more are not shown."] if len(cases) > MOST_ROWS else []
    return "\n\n".join([f"### {escape(title)}", "\n".join(["| | |", "| --- | --- |", *rows]), *rest]) + "\n"


def append_summary(path: Path, title: str, cases: Sequence[Case]) -> None:
    """Append to the file, to which other steps write too. Raises `InputError` when it cannot be written."""
    try:
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(summary(title, cases) + "\n")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); correct or unset GITHUB_STEP_SUMMARY"
        ) from error
