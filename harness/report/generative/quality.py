"""Tables of sample quality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from epsbench.harness.report.generative.columns import HEAD, SPREAD, Measure, head, measured, plain, share, with_any
from epsbench.harness.report.generative.settings import Estimate, Setting
from epsbench.harness.report.table import Entry, Table
from epsbench.harness.report.units import ABSENT, decimals, enumerate_words, percent, visible

QUALITY = (
    plain("frechet_distance", "Fréchet distance"),
    plain("kernel_distance", "kernel distance"),
    share("precision", "precision"),
    share("recall", "recall"),
    Measure("density", "density", decimals(3), decimals(3)),
    share("coverage", "coverage"),
    Measure("neighbour_distance", "distance to neighbour", decimals(2), decimals(2)),
)
CAPTION = (
    "Samples from the prior against images of the data set. Distances: lower is better. Precision: how many samples "
    "lie among the images; recall and coverage: how much of the images the samples reach; density: how crowded the "
    "images are where samples fall (Kynkäänniemi et al., 2019; Naeem et al., 2020). Distance to neighbour: the median "
    "L2 distance, in pixels, of a sample to its nearest training image; one far below that of the test images would "
    "hint at memory. The last row measures test images against training images: no model can be asked for better."
)


def quality_tables(held: Sequence[Setting]) -> list[Table]:
    """How good samples are: one table, with the floor, for every data set, classifier whose features measure it, and
    number of images."""
    groups: dict[tuple[str, str, int | None], list[Setting]] = defaultdict(list)
    for setting in with_any(held, QUALITY):
        groups[setting.data, _digits(setting), _count(setting)].append(setting)
    tables = []
    for (data, digits, count), rows in groups.items():
        named = f", features {digits}" if len({key[1] for key in groups if key[0] == data}) > 1 else ""
        named += (
            f", n = {count:,}" if count is not None and len({key[2] for key in groups if key[0] == data}) > 1 else ""
        )
        tables.append(_quality(f"Sample quality on {data}{named}", digits, count, rows))
    return tables


def _count(setting: Setting) -> int | None:
    """How many samples, and as many images, its numbers are of; None where none is recorded."""
    found = (setting.metric(measure.metric) for measure in QUALITY)
    return next((estimate.n for estimate in found if estimate is not None), None)


def _evaluation(setting: Setting) -> Mapping[str, object]:
    """The free-form facts of the first seed that has quality metrics."""
    records = [record for record in setting.held if any(m.metric in record.metrics for m in QUALITY)]
    return records[0].evaluation if records else {}


def _digits(setting: Setting) -> str:
    """The first digits of the classifier's weight hash; empty where none is recorded."""
    return visible(str(_evaluation(setting).get("feature_weights_sha256", "")))[:8]


def _quality(title: str, digits: str, count: int | None, rows: Sequence[Setting]) -> Table:
    measures = measured(rows, QUALITY)
    floors = _floors(rows, measures)
    lines = [(*head(setting), *(measure.entry(setting) for measure in measures)) for setting in rows]
    of = (
        f" Measured on {count:,} samples and as many images: Fréchet distances of fewer are larger."
        if count is not None
        else ""
    )
    return Table(
        title,
        (*HEAD, *(measure.column for measure in measures)),
        (*lines, *floors),
        f"{CAPTION} {_features(rows, digits)}{of} {SPREAD}",
        starts=frozenset({len(lines)} if floors else ()),
    )


def _features(rows: Sequence[Setting], digits: str) -> str:
    """Whose features the distances are of."""
    accuracies = {value for row in rows if isinstance(value := _evaluation(row).get("feature_accuracy"), int | float)}
    details = [f"weights {digits}"] if digits else []
    details += [f"test accuracy {enumerate_words([percent(value) for value in sorted(accuracies)])}"] * bool(accuracies)
    told = f" ({', '.join(details)})" if details else ""
    return (
        f"Features are those of a small classifier trained here{told}: not comparable with distances of other features."
    )


def _floors(rows: Sequence[Setting], measures: Sequence[Measure]) -> list[tuple[Entry, ...]]:
    """Test images against training images, one line for every number of grey levels."""
    lines: dict[str, tuple[Entry, ...]] = {}
    for setting in rows:
        found = [setting.metric(f"floor_{measure.metric}") for measure in measures]
        if any(found) and setting.levels not in lines:
            levels = f", {setting.levels} grey levels" if len({row.levels for row in rows}) > 1 else ""
            name = Entry(f"test images against training images{levels}")
            values = [_floor(measure, estimate) for measure, estimate in zip(measures, found, strict=True)]
            lines[setting.levels] = (name, *(Entry("") for _ in HEAD[1:]), *values)
    return list(lines.values())


def _floor(measure: Measure, estimate: Estimate | None) -> Entry:
    """The floor is the data's and no seed's: over seeds only rounding moves it, which is no spread to show."""
    if estimate is None:
        return Entry(ABSENT, state="missing")
    return measure.told(estimate if estimate.seeds == 1 else replace(estimate, low=None, high=None, sd=None))
