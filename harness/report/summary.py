"""A gate's verdicts as Markdown at the end of a file: what GitHub Actions shows of a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.report.junit import Case, Outcome
from epsbench.harness.report.markdown import escape

MOST_ROWS = 200  # GitHub refuses a summary of more than 1 MiB
LONGEST = 2_000
ICONS: dict[Outcome, str] = {"failure": "❌", "error": "⚠️", "passed": "✅"}


def summary(title: str, cases: Sequence[Case]) -> str:
    """A headline and a table, what failed first; of very many cases the last are only counted."""
    ordered = [case for outcome in ICONS for case in cases if case.outcome == outcome]
    rows = [f"| {ICONS[case.outcome]} | {escape(case.message[:LONGEST])} |" for case in ordered[:MOST_ROWS]]
    rest = [f"{len(cases) - MOST_ROWS:,} more are not shown."] if len(cases) > MOST_ROWS else []
    return "\n\n".join([f"### {escape(title)}", "\n".join(["| | |", "| --- | --- |", *rows]), *rest]) + "\n"


def append_summary(path: Path, title: str, cases: Sequence[Case]) -> None:
    """Append to the file, which other steps write to as well. Raises `InputError` when it cannot be written."""
    try:
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(summary(title, cases) + "\n")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); correct or unset GITHUB_STEP_SUMMARY"
        ) from error
