"""Tables of sample quality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from epsbench.harness.report.drawing.table import Entry, Table
from epsbench.harness.report.generative.columns import HEAD, SPREAD, Measure, head, measured, plain, share, with_any
from epsbench.harness.report.generative.settings import Estimate, Setting
from epsbench.harness.report.results.cells import numbers
from epsbench.harness.report.results.units import ABSENT, and_list, decimals, percent, visible

QUALITY = (
    plain("frechet_distance", "Fréchet distance"),
    plain("frechet_distance_infinite", "Fréchet distance, n → ∞"),
    plain("likelihood_divergence", "likelihood divergence"),
    plain("likelihood_gap", "likelihood gap"),
    plain("kernel_distance", "kernel distance"),
    share("precision", "precision"),
    share("recall", "recall"),
    Measure("density", "density", decimals(3), decimals(3)),
    share("coverage", "coverage"),
    share("clipped_density", "clipped density"),
    share("clipped_coverage", "clipped coverage"),
    Measure("neighbour_distance", "distance to neighbour", decimals(2), decimals(2)),
)
EXPLAINED = {
    "frechet_distance_infinite": "The Fréchet distance for n → ∞ is extrapolated from smaller sets (Chong & Forsyth, "
    "2020).",
    "likelihood_divergence": "The likelihood divergence says how much worse samples explain test images than training "
    "images do, in hundredths of a nat a dimension. It also grows where a model memorises, and then the likelihood gap "
    "is far below that of the last row (Jiralerspong et al., 2023).",
    "clipped_density": "Clipped density and clipped coverage read as the share of samples that are good (Salvy et al., "
    "2026).",
}
"""What the caption says of measures that older records do not have."""
CAPTION = (
    "Samples from the prior are compared with images of the data set. Fréchet and kernel distance: lower is better. "
    "Precision is the share of samples that lie among the images; recall and coverage are shares of the images that "
    "the samples reach; density says how many images lie around a sample (Kynkäänniemi et al., 2019; Naeem et al., "
    "2020). Distance to neighbour is the median L2 distance, in pixels, of a sample to its nearest training image; a "
    "value far below that of the test images is a hint of memorised images. The last row compares test images with "
    "training images: the best that a model can reach."
)


def quality_tables(settings: Sequence[Setting]) -> list[Table]:
    """One table, with its floor, for every data set, number of images, and classifier whose features are used.

    The floor is the same metric of test images against training images.
    """
    groups: dict[tuple[str, str, int | None], list[Setting]] = defaultdict(list)
    for setting in with_any(settings, QUALITY):
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
    """The number of samples, and of images, that its numbers are from; None where it is not recorded."""
    estimates = (setting.metric(measure.metric) for measure in QUALITY)
    return next((estimate.n for estimate in estimates if estimate is not None), None)


def _evaluation(setting: Setting) -> Mapping[str, object]:
    """The evaluation of the first seed that has quality metrics."""
    records = [record for record in setting.measured if any(m.metric in record.metrics for m in QUALITY)]
    return records[0].evaluation if records else {}


def _digits(setting: Setting) -> str:
    """The first digits of the classifier's weight hash; empty where none is recorded."""
    return visible(str(_evaluation(setting).get("feature_weights_sha256", "")))[:8]


def _quality(title: str, digits: str, count: int | None, rows: Sequence[Setting]) -> Table:
    measures = measured(rows, QUALITY)
    floors = _floors(rows, measures)
    explained = [EXPLAINED[measure.metric] for measure in measures if measure.metric in EXPLAINED]
    lines = [(*head(setting), *(measure.entry(setting) for measure in measures)) for setting in rows]
    of = (
        f" Measured on {count:,} samples and as many images; with fewer, Fréchet distances are larger."
        if count is not None
        else ""
    )
    return Table(
        title,
        (*HEAD, *(measure.column for measure in measures)),
        (*lines, *floors),
        f"{' '.join([CAPTION, *explained])} {_features(rows, digits)}{of} {SPREAD}",
        starts=frozenset({len(lines)} if floors else ()),
    )


def _features(rows: Sequence[Setting], digits: str) -> str:
    """Which classifier's features are compared."""
    accuracies = set(numbers(map(_evaluation, rows), "feature_accuracy"))
    details = [f"weights {digits}"] if digits else []
    details += [f"test accuracy {and_list([percent(value) for value in sorted(accuracies)])}"] * bool(accuracies)
    in_brackets = f" ({', '.join(details)})" if details else ""
    return (
        f"The features are those of a small classifier trained here{in_brackets}; distances in other features cannot "
        "be compared with these."
    )


def _floors(rows: Sequence[Setting], measures: Sequence[Measure]) -> list[tuple[Entry, ...]]:
    """Test images against training images, one line for every number of grey levels."""
    lines: dict[str, tuple[Entry, ...]] = {}
    for setting in rows:
        estimates = [setting.metric(f"floor_{measure.metric}") for measure in measures]
        if any(estimates) and setting.levels not in lines:
            levels = f", {setting.levels} grey levels" if len({row.levels for row in rows}) > 1 else ""
            name = Entry(f"test images against training images{levels}")
            values = [_floor(measure, estimate) for measure, estimate in zip(measures, estimates, strict=True)]
            lines[setting.levels] = (name, *(Entry("") for _ in HEAD[1:]), *values)
    return list(lines.values())


def _floor(measure: Measure, estimate: Estimate | None) -> Entry:
    """The floor depends on the data alone. Over seeds it differs only by rounding, so its spread is left out."""
    if estimate is None:
        return Entry(ABSENT, state="missing")
    return measure.shown(estimate if estimate.seeds == 1 else replace(estimate, low=None, high=None, sd=None))
