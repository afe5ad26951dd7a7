"""The accuracy of every model on corrupted images: the mean over all corruptions, and each kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.drawing.table import NEEDED, Column, Entry, Table, fold
from epsbench.harness.report.results.apart import SETTING, settings_by_cell
from epsbench.harness.report.results.cells import way
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import ABSENT, data_name, norm_name, percent

CAPTION = (
    "Accuracy on corrupted test images, without an attack, and below it under an attack where the suite has one. "
    "Mean: over the kinds of the table, of each over its severities and seeds. The images are generated, keyed by "
    "image: compare them with each other, not with published numbers of CIFAR-10-C or ImageNet-C."
)


def corruption_tables(results: Results) -> list[Table]:
    """One table for every data set with corrupted images, the model with the highest mean first."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in results.corrupted:
        if record.status == "ok":
            groups[data_name(record.cell["data"])].append(record)
    return [_table(data, records, results) for data, records in groups.items()]


def _table(data: str, records: Sequence[Record], results: Results) -> Table:
    kinds = list(dict.fromkeys(record.cell["corruption"]["name"] for record in records))
    severities = sorted({record.cell["corruption"]["severity"] for record in records})
    setting = settings_by_cell(records, ("augmentation", "subset", "start"))  # the model's name has these
    ways: dict[tuple[str, str], list[Record]] = defaultdict(list)
    several = len({record.cell["norm"] for record in records if record.cell["attack"]["name"] != "none"}) > 1
    for record in records:
        cell, attack = record.cell, record.cell["attack"]["name"]
        norm = f" {norm_name(cell['norm'])}" if several else ""
        under = "" if attack == "none" else f"{results.names.attack(cell)}{norm} ε {cell['eps']}"
        ways[canonical(way(cell)), under].append(record)
    lines = []
    for (_, under), group in ways.items():
        scores = {kind: _accuracy(group, kind, under) for kind in kinds}
        known = [score for score in scores.values() if score is not None]
        model = results.names.model(group[0].cell), setting(group[0].cell)
        lines.append((fmean(known) if len(known) == len(kinds) else None, model, under, scores))
    best = {model: max(line[0] or 0.0 for line in lines if line[1] == model) for model in {line[1] for line in lines}}
    lines.sort(key=lambda line: (-best[line[1]], line[1], line[0] is None, -(line[0] or 0.0)))
    head = (
        Column("model", label=True),
        Column(SETTING, weight=NEEDED),
        Column("attack", label=True),
        Column("mean", True),
    )
    rows = tuple(
        (*map(Entry, model), Entry(under or "none"), _entry(mean), *(_entry(scores[kind]) for kind in kinds))
        for mean, model, under, scores in lines
    )
    levels = f"severity {', '.join(map(str, severities))}"
    columns = (*head, *(Column(kind, True) for kind in kinds))
    return fold(Table(f"Corrupted images of {data} ({levels})", columns, rows, CAPTION), {SETTING})


def _accuracy(records: Sequence[Record], kind: str, under: str) -> float | None:
    """The mean accuracy on one kind; None where it was not measured."""
    metric = "robust_accuracy" if under else "clean_accuracy"
    values = [record.metrics[metric].value for record in records if record.cell["corruption"]["name"] == kind]
    return fmean(values) if values else None


def _entry(value: float | None) -> Entry:
    return Entry(ABSENT) if value is None else Entry(percent(value))
