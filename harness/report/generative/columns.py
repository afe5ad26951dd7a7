"""The columns of the generative tables: which metric stands there, and how its values are spelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from epsbench.harness.report.generative.settings import Estimate, Setting
from epsbench.harness.report.table import Column, Entry, Table
from epsbench.harness.report.units import ABSENT, bits, decimals, magnitude, percent

Spell = Callable[[float], str]
SPREAD = (
    "In brackets the 95 % interval over images; ± is the standard deviation over seeds, beside their mean, where "
    "there are several."
)
FINE = decimals(4)
HEAD = (Column("model", label=True), Column("z", True), Column("β", True), Column("seeds", True))


@dataclass(frozen=True)
class Count:
    """A number of samples, by its key in the evaluation: how a title says what all rows have (``shared``) or that they
    differ (``differing``), and how a row then says its own."""

    key: str
    shared: str
    own: str
    differing: str = ""


IMPORTANCE = Count("importance_samples", "-{:,}", "k = {:,}")
LONG_IMPORTANCE = Count("long_importance_samples", "-{:,}", "k = {:,}")
LONG_IMAGES = Count("long_images", " {:,}", "first {:,}", " images")
REFINED_STEPS = Count("refinement_steps", " {:,} steps", "{:,} steps", " steps")
REFINED_IMAGES = Count("refined_images", " {:,}", "first {:,}", " images")
PRIOR = Count("prior_samples", ", L = {:,}", "L = {:,}")


@dataclass(frozen=True)
class Measure:
    """A column of one metric. ``spread`` spells its standard deviation; ``counted`` shows its value beside how many
    there are: ``"12 of 20"``; each row tells its own ``counts``."""

    metric: str
    title: str
    spell: Spell = bits
    spread: Spell = FINE
    counted: bool = False
    counts: tuple[Count, ...] = ()

    @property
    def column(self) -> Column:
        return Column(self.title, True)

    def entry(self, setting: Setting) -> Entry:
        """What a setting has there; a dash where it was not measured."""
        estimate = setting.metric(self.metric)
        if estimate is None:
            return Entry(ABSENT, state="missing")
        told = self.told(estimate)
        own = [count.own.format(n) for count in self.counts if (n := setting.samples(count.key)) is not None]
        return replace(told, detail=", ".join(filter(None, [told.detail, *own])))

    def told(self, estimate: Estimate) -> Entry:
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
    return Measure(metric, title, decimals(2), decimals(2))


def share(metric: str, title: str) -> Measure:
    return Measure(metric, title, percent, lambda value: f"{100 * value:.1f}")


def plain(metric: str, title: str) -> Measure:
    """A measure of a size that is not known beforehand."""
    return Measure(metric, title, magnitude, magnitude)


def with_any(held: Iterable[Setting], measures: Iterable[Measure]) -> list[Setting]:
    """The settings that have at least one of these metrics."""
    wanted = {measure.metric for measure in measures}
    return [s for s in held if any(wanted & record.metrics.keys() for record in s.held)]


def measured(held: Sequence[Setting], measures: Iterable[Measure]) -> list[Measure]:
    """The measures that at least one of these settings has."""
    return [measure for measure in measures if with_any(held, [measure])]


def head(setting: Setting) -> tuple[Entry, ...]:
    """Which setting a row is, and how many of its seeds have numbers."""
    held, asked = len(setting.held), len(setting.records)
    return (
        Entry(setting.model),
        Entry(str(setting.z_dim)),
        Entry(f"{setting.beta:g}"),
        Entry(str(asked) if held == asked else f"{held} of {asked}"),
    )


def metric_table(
    title: str, held: Sequence[Setting], measures: Sequence[Measure], caption: str, notes: Sequence[str] = ()
) -> Table | None:
    """One row a setting, one column a measure; None where nothing was measured."""
    rows = with_any(held, measures)
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


def counting(measure: Measure, held: Iterable[Setting], *counts: Count) -> Measure:
    """The measure with its numbers of samples: in the braces of its title (``"IWAE-100"`` of ``"IWAE{}"``) where they
    are the same for all of these, else in each row."""
    rows = with_any(held, [measure])
    said, own = [], []
    for count in counts:
        numbers = {n for row in rows if (n := row.samples(count.key)) is not None}
        said.append(count.shared.format(*numbers) if len(numbers) == 1 else count.differing)
        own += [count] * (len(numbers) > 1)
    return replace(measure, title=measure.title.format(*said), counts=tuple(own))
