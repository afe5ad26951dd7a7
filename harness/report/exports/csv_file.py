"""The records as one CSV file, one line each, for spreadsheets and data frames."""

from __future__ import annotations

from pathlib import Path

from epsbench.harness.files import write_atomically
from epsbench.harness.report.formats.export import to_csv
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import plural


def write(results: Results, out: Path) -> str:
    """Write the file ``out``."""
    write_atomically(out, to_csv(results).encode())
    return f"{out}: {plural(len(results.current), 'record')}"
