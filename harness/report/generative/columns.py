"""The columns of the generative tables: which metric a column shows, and how its values are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from epsbench.harness.report.drawing.table import ASIDE, NEEDED, Column, Entry, Table
from epsbench.harness.report.generative.settings import Estimate, Setting
from epsbench.harness.report.results.units import ABSENT, bits, decimals, magnitude, percent

Spell = Callable[[float], str]
SPREAD = (
    "Brackets hold the 95 % interval over images. Where there are several seeds, the mean and ± the standard deviation "
    "over seeds."
)
FINE = decimals(4)
HEAD = (
    Column("model", label=True, weight=NEEDED),
    Column("z", True, weight=NEEDED),
    Column("β", True, weight=NEEDED),
    Column("seeds", True, weight=ASIDE),
)


@dataclass(frozen=True)
class Count:
    """A number of samples of the evaluation, and how a table shows it."""

    key: str
    """Its key in the cell's evaluation."""
    shared: str
    """The text in the column's title where the number is the same in all rows."""
    own: str
    """The text in each row where the numbers differ."""
    differing: str = ""
    """The text in the column's title where the numbers differ."""


IMPORTANCE = Count("importance_samples", "-{:,}", "k = {:,}")
LONG_IMPORTANCE = Count("long_importance_samples", "-{:,}", "k = {:,}")
LONG_IMAGES = Count("long_images", " {:,}", "first {:,}", " images")
REFINED_STEPS = Count("refinement_steps", " {:,} steps", "{:,} steps", " steps")
REFINED_IMAGES = Count("refined_images", " {:,}", "first {:,}", " images")
PRIOR = Count("prior_samples", ", L = {:,}", "L = {:,}")


@dataclass(frozen=True)
class Measure:
    """A column of one metric."""

    metric: str
    """The name of the metric in a record."""
    title: str
    """The title of the column."""
    spell: Spell = bits
    """Writes its values and intervals."""
    spread: Spell = FINE
    """Writes its standard deviation."""
    counted: bool = False
    """Whether the value is a count out of ``n``, shown as ``"12 of 20"``."""
    counts: tuple[Count, ...] = ()
    """Numbers of samples that each row shows."""

    @property
    def column(self) -> Column:
        """The head of the column."""
        return Column(self.title, True)

    def entry(self, setting: Setting) -> Entry:
        """The entry of a setting; a dash where it was not measured."""
        estimate = setting.metric(self.metric)
        if estimate is None:
            return Entry(ABSENT, state="missing")
        entry = self.shown(estimate)
        own = [count.own.format(n) for count in self.counts if (n := setting.samples(count.key)) is not None]
        return replace(entry, detail=", ".join(filter(None, [entry.detail, *own])))

    def shown(self, estimate: Estimate) -> Entry:
        """An estimate as an entry, with its interval or its standard deviation."""
        total = f" of {estimate.n:,}" if self.counted and estimate.n is not None else ""
        return Entry(self.spell(estimate.value) + total, self._detail(estimate))

    def _detail(self, estimate: Estimate) -> str:
        if estimate.sd is not None:
            return f"±{self.spread(estimate.sd)}"
        if self.counted or estimate.low is None or estimate.high is None:
            return ""
        low, high = (self.spell(end).removesuffix(" %") for end in (estimate.low, estimate.high))
        return f"[{low}, {high}]"


def nats(metric: str, title: str) -> Measure:
    """A measure in nats."""
    return Measure(metric, title, decimals(2), decimals(2))


def share(metric: str, title: str) -> Measure:
    """A measure in [0, 1], shown in percent."""
    return Measure(metric, title, percent, lambda value: f"{100 * value:.1f}")


def plain(metric: str, title: str) -> Measure:
    """A measure whose order of magnitude varies."""
    return Measure(metric, title, magnitude, magnitude)


def with_any(settings: Iterable[Setting], measures: Iterable[Measure]) -> list[Setting]:
    """The settings that have at least one of these metrics."""
    wanted = {measure.metric for measure in measures}
    return [s for s in settings if any(wanted & record.metrics.keys() for record in s.measured)]


def measured(settings: Sequence[Setting], measures: Iterable[Measure]) -> list[Measure]:
    """The measures that at least one of these settings has."""
    return [measure for measure in measures if with_any(settings, [measure])]


def head(setting: Setting) -> tuple[Entry, ...]:
    """The first entries of a row: the setting, and how many of its seeds have numbers."""
    finished, all_seeds = len(setting.measured), len(setting.records)
    return (
        Entry(setting.model),
        Entry(str(setting.z_dim)),
        Entry(f"{setting.beta:g}"),
        Entry(str(all_seeds) if finished == all_seeds else f"{finished} of {all_seeds}"),
    )


def metric_table(
    title: str, settings: Sequence[Setting], measures: Sequence[Measure], caption: str, notes: Sequence[str] = ()
) -> Table | None:
    """One row a setting, one column a measure; None where nothing was measured."""
    rows = with_any(settings, measures)
    shown = measured(rows, measures)
    if not rows:
        return None
    return Table(
        title,
        (*HEAD, *(measure.column for measure in shown)),
        tuple((*head(setting), *(measure.entry(setting) for measure in shown)) for setting in rows),
        f"{caption} {SPREAD}",
        tuple(notes),
    )


def counting(measure: Measure, settings: Iterable[Setting], *counts: Count) -> Measure:
    """The measure with its numbers of samples.

    Where they are the same for all settings, they fill the braces of the title: ``"IWAE{}"`` becomes ``"IWAE-100"``.
    Otherwise each row shows its own.
    """
    rows = with_any(settings, [measure])
    in_title, own = [], []
    for count in counts:
        numbers = {n for row in rows if (n := row.samples(count.key)) is not None}
        in_title.append(count.shared.format(*numbers) if len(numbers) == 1 else count.differing)
        own += [count] * (len(numbers) > 1)
    return replace(measure, title=measure.title.format(*in_title), counts=tuple(own))
