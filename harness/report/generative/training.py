"""The table of what training and evaluating a generative model took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from epsbench.harness.records import Record
from epsbench.harness.report.generative.columns import HEAD, head
from epsbench.harness.report.generative.settings import Setting
from epsbench.harness.report.table import Column, Entry, Table, fold
from epsbench.harness.report.units import ABSENT, duration, number, scalar

FOLDED = frozenset({"data", "precision", "device"})


def training_table(held: Sequence[Setting]) -> Table | None:
    """What training and evaluating took: one line a setting, means over seeds; None where nothing finished."""
    rows = [setting for setting in held if setting.held]
    if not rows:
        return None
    columns = (
        Column("data"),
        *HEAD,
        *(Column(title, True) for title in ("epochs", "parameters", "training", "images/s", "evaluation")),
        *(Column(title) for title in ("precision", "device")),
    )
    lines = tuple((Entry(setting.data), *head(setting), *_took(setting)) for setting in rows)
    caption = "Training time and images/s of the training loop alone; means over seeds."
    return fold(Table("What training took", columns, lines, caption), FOLDED)


def _took(setting: Setting) -> tuple[Entry, ...]:
    records = setting.held
    return (
        _mean([_held(record, "epochs") for record in records], number),
        _mean([_held(record, "parameters") for record in records], number),
        _mean([_held(record, "seconds", "training_seconds") for record in records], duration),
        _mean([_held(record, "images_per_second", "training_images_per_second") for record in records], number),
        _mean([_evaluating(record) for record in records], duration),
        *(
            Entry("; ".join(dict.fromkeys(scalar(record.cost.get(key, ABSENT)) for record in records)))
            for key in ("precision", "device")
        ),
    )


def _mean(values: Sequence[float], spell: Callable[[float], str]) -> Entry:
    return Entry(spell(sum(values) / len(values))) if all(values) else Entry(ABSENT, state="missing")


def _held(record: Record, key: str, cost_key: str = "") -> float:
    value = record.training.get(key, record.cost.get(cost_key))
    return float(value) if isinstance(value, int | float) else 0.0


def _evaluating(record: Record) -> float:
    seconds = record.evaluation.get("seconds")
    held = seconds.values() if isinstance(seconds, Mapping) else ()
    return sum(float(value) for value in held if isinstance(value, int | float))
