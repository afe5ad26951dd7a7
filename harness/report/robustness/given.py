"""Which weights of a file were loaded, and how models of other libraries prepare images: one line a model."""

from __future__ import annotations

from epsbench.harness.report.drawing.table import NEEDED, Column, Entry, Table
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import ABSENT
from epsbench.models.preprocessing import preprocessing_text


def given_table(results: Results) -> Table | None:
    """What was loaded, and what happens to images before the model; None where no record says anything of it."""
    lines: dict[tuple[str, str, str], None] = {}
    for record in results.current:
        loaded, table = record.training.get("loaded", ""), record.training.get("preprocessing")
        if loaded or table:
            name = results.names.model(record.cell)
            lines[name, loaded or ABSENT, preprocessing_text(table) if table else ABSENT] = None
    if not lines:
        return None
    columns = (Column("model", label=True, weight=NEEDED), Column("weights", weight=NEEDED), Column("images"))
    rows = tuple(tuple(map(Entry, line)) for line in lines)
    caption = "Weights: which part of the file was loaded. Images: what the model does to pixels in [0, 1]."
    return Table("Models from files and libraries", columns, rows, caption)
