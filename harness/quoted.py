"""Documents whose numbers come from records: ``python -m epsbench.harness.quoted TEMPLATE DOCUMENT``.

A template is Markdown with quotations such as ``{{mnist: robust_accuracy, defense=none, attack=pgd, eps=0.3}}``: a
folder of the reference results, a measure, and what the cells have in common. A value left empty stands for cells
without it. Each quotation becomes the mean over the seeds of these cells.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pandas as pd

from epsbench.harness import durations
from epsbench.harness.errors import InputError, did_you_mean

_QUOTATION = re.compile(r"\{\{([^{}]*)\}\}")
_SHARES = ("accuracy", "precision", "recall", "coverage", "clipped_density", "clipped_coverage", "success_rate")


def filled(template: str, results: Path) -> str:
    """The text with every quotation replaced by its number, from the folders in ``results``.

    Raises `InputError` that lists every quotation whose folder, measure or column is not known, that no cell fits, or
    that cells fit which differ in more than their seed.
    """
    problems: list[str] = []

    def number(match: re.Match[str]) -> str:
        try:
            return _quoted(match[1], results)
        except InputError as error:
            problems.extend(f"{match[0]}: {message}" for message in error.messages)
            return match[0]

    text = _QUOTATION.sub(number, template)
    if problems:
        raise InputError(problems)
    return text


def _quoted(quotation: str, results: Path) -> str:
    folder, colon, rest = quotation.partition(":")
    measure, *conditions = [part.strip() for part in rest.split(",")]
    if not colon or not measure:
        raise InputError("a quotation is {{folder: measure, column=value, ...}}")
    cells = _cells(results / folder.strip())
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals or column not in cells.columns:
            raise InputError(f"no column {column!r}{did_you_mean(column, list(cells.columns))}")
        cells = cells[cells[column].map(_spelled) == value]
    if cells.empty:
        raise InputError("no cell fits")
    if measure not in cells.columns:
        raise InputError(f"no measure {measure!r}{did_you_mean(measure, list(cells.columns))}")
    if len(cells) > 1 and ("seed" not in cells or cells["seed"].duplicated().any()):
        raise InputError(f"{len(cells)} cells fit that differ in more than their seed; say which")
    return shown(measure, float(cells[measure].mean()))


@cache
def _cells(folder: Path) -> pd.DataFrame:
    from epsbench.harness.frames import frame
    from epsbench.harness.records import read_records

    if not folder.is_dir():
        raise InputError(f"there is no folder {folder.name!r} of results")
    return frame(read_records(folder))


def shown(measure: str, value: float) -> str:
    """A number as a sentence has it: shares in percent, bits per dimension with three digits, seconds as a duration."""
    if measure.endswith(_SHARES):
        return f"{100 * value:.1f} %"
    if measure.endswith("seconds"):
        return durations.shown(value)
    return f"{value:.3f}" if measure.endswith("_bpd") else f"{value:,.0f}"


def _spelled(value: object) -> str:
    if value is None or value != value:  # what a cell has not
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def main(arguments: list[str]) -> int:
    """Write the document of a template. Returns 2 where a quotation is wrong, as the other verbs do."""
    template, document = map(Path, arguments)
    try:
        text = filled(template.read_text(encoding="utf-8"), Path("results/reference"))
    except InputError as error:
        print("\n".join(error.messages), file=sys.stderr)
        return 2
    document.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
