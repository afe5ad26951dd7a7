"""The table of what training and evaluating a generative model costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from epsbench.harness.plan.training_text import how_trained_record
from epsbench.harness.records import Record
from epsbench.harness.records.numbers import finite_number
from epsbench.harness.report.drawing.table import ASIDE, Column, Entry, Table, fold
from epsbench.harness.report.generative.columns import HEAD, head
from epsbench.harness.report.generative.settings import Setting
from epsbench.harness.report.results.cells import distinct_texts, finite
from epsbench.harness.report.results.units import ABSENT, duration, number

FOLDED = frozenset({"data", "trains", "precision", "device"})


def training_table(settings: Sequence[Setting]) -> Table | None:
    """One line a setting, means over seeds; None where nothing finished."""
    rows = [setting for setting in settings if setting.measured]
    if not rows:
        return None
    columns = (
        Column("data", weight=ASIDE),
        *HEAD,
        Column("trains", weight=ASIDE),
        *(Column(title, True) for title in ("parameters", "training", "images/s", "evaluation")),
        *(Column(title, weight=ASIDE) for title in ("precision", "device")),
    )
    lines = tuple((Entry(setting.data), *head(setting), *_costs(setting)) for setting in rows)
    caption = "Training time and images/s are those of the training loop alone; means over seeds."
    return fold(Table("What training a generative model costs", columns, lines, caption), FOLDED)


def _costs(setting: Setting) -> tuple[Entry, ...]:
    records = setting.measured
    return (
        Entry(how_trained_record(records[0].cell) or ABSENT),
        _mean([_number(record, "parameters") for record in records], number),
        _mean([_number(record, "seconds", "training_seconds") for record in records], duration),
        _mean([_number(record, "images_per_second", "training_images_per_second") for record in records], number),
        _mean([_evaluation_seconds(record) for record in records], duration),
        *(Entry(distinct_texts([record.cost for record in records], key)) for key in ("precision", "device")),
    )


def _mean(values: Sequence[float], spell: Callable[[float], str]) -> Entry:
    return Entry(spell(sum(values) / len(values))) if all(values) else Entry(ABSENT, state="missing")


def _number(record: Record, key: str, cost_key: str = "") -> float:
    return finite_number(record.training.get(key, record.cost.get(cost_key))) or 0.0


def _evaluation_seconds(record: Record) -> float:
    seconds = record.evaluation.get("seconds")
    return sum(finite(seconds, measure) for measure in seconds) if isinstance(seconds, Mapping) else 0.0
