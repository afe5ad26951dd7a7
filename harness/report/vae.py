"""The VAE's side of a report: bits per dimension, and which pictures to show."""

from __future__ import annotations

from collections import defaultdict

from harness.records import Metric, Record
from harness.report.results import Results, canonical
from harness.report.table import Column, Entry, Table, bits_entry
from harness.report.units import ABSENT, duration, number, scalar
from harness.statistics import mean_interval

BPD_COLUMNS = {
    "train_bpd": "train bpd",
    "validation_bpd": "validation bpd",
    "test_bpd": "test bpd",
    "rate_bpd": "rate",
    "distortion_bpd": "distortion",
}


def vae_tables(results: Results) -> list[Table]:
    """One table for every likelihood: data set and number of grey levels. Bits per dimension of different
    likelihoods measure different things and never share a table."""
    likelihoods: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in results.generation:
        levels = record.cell["model"].get("levels")
        likelihoods[scalar(record.cell["data"]), scalar(levels) if levels is not None else ""].append(record)
    return [_table(data, levels, records, results) for (data, levels), records in likelihoods.items()]


def _table(data: str, levels: str, records: list[Record], results: Results) -> Table:
    ways: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        ways[canonical({key: value for key, value in record.cell.items() if key != "seed"})].append(record)
    rows = [_row(group, results) for group in sorted(ways.values(), key=_test_bpd)]
    columns = (
        Column("model"),
        Column("z_dim", True),
        Column("beta", True),
        Column("seeds", True),
        *(Column(title, True) for title in BPD_COLUMNS.values()),
        Column("training", True),
        Column("images/s", True),
    )
    title = f"VAE on {data}" + (f", {levels} grey levels" if levels else "")
    caption = (
        "Bits per dimension from the evidence lower bound: lower is better. Test bpd is rate (the KL of the latent) "
        "plus distortion (the reconstruction). 95 % intervals over test images, or over seeds where there are several."
    )
    return Table(title, columns, tuple(rows), caption)


def _test_bpd(group: list[Record]) -> float:
    values = [
        record.metrics["test_bpd"].value for record in group if record.status == "ok" and "test_bpd" in record.metrics
    ]
    return min(values, default=float("inf"))


def _row(group: list[Record], results: Results) -> tuple[Entry, ...]:
    cell = group[0].cell
    held = [record for record in group if record.status == "ok"]
    head = (
        Entry(results.names.label("model", cell["model"])),
        Entry(scalar(cell["z_dim"])),
        Entry(scalar(cell["beta"])),
        Entry(str(len(group)) if len(held) == len(group) else f"{len(held)} of {len(group)}"),
    )
    if not held:
        state = group[0].status
        return (*head, *(Entry(state, state=state) for _ in BPD_COLUMNS), Entry(ABSENT), Entry(ABSENT))
    seconds = [_training(record, "seconds", "training_seconds") for record in held]
    speeds = [_training(record, "images_per_second", "training_images_per_second") for record in held]
    return (
        *head,
        *(bits_entry(_over_seeds(held, metric)) for metric in BPD_COLUMNS),
        Entry(duration(sum(seconds) / len(seconds)) if all(seconds) else ABSENT),
        Entry(number(sum(speeds) / len(speeds)) if all(speeds) else ABSENT),
    )


def _over_seeds(records: list[Record], name: str) -> Metric | None:
    metrics = [record.metrics[name] for record in records if name in record.metrics]
    if len(metrics) < 2:
        return metrics[0] if metrics else None
    mean, low, high = mean_interval([metric.value for metric in metrics])
    return Metric(value=mean, low=low, high=high, n=metrics[0].n)


def _training(record: Record, key: str, cost_key: str) -> float:
    value = record.training.get(key, record.cost.get(cost_key))
    return float(value) if isinstance(value, int | float) else 0.0
