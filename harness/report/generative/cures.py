"""The table that says how much of the amortisation gap a change of the training recipe closes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epsbench.harness.records.tables import canonical
from epsbench.harness.report.drawing.table import NEEDED, Column, Entry, Table
from epsbench.harness.report.generative.columns import FINE, REFINED_IMAGES, REFINED_STEPS, SPREAD, Measure, counting
from epsbench.harness.report.generative.settings import Estimate, Setting, alike_but_for
from epsbench.harness.report.results.units import ABSENT, percent, scalar

GAP = "amortisation_gap_bpd"
TITLE = "What recipes do to the amortisation gap"
CAPTION = (
    "The amortisation gap is what the encoder loses against refined posteriors of the same images (Cremer et al., "
    "2018). A recipe closes a share of the gap that the first row leaves; a negative share widens it. A recipe that "
    "changes the decoder moves the refined ELBO, too. The interval of a share takes both gaps as independent. They are "
    "measured on the same images, so it is rather too wide than too narrow."
)


def cure_tables(settings: Iterable[Setting]) -> list[Table]:
    """A table for settings that differ in their recipe alone, where one of them is the recipe that others add to."""
    measured = [setting for setting in settings if setting.metric(GAP) is not None]
    tables = (_table(group) for group in alike_but_for(measured, "training"))
    return [table for table in tables if table is not None]


def _table(settings: Sequence[Setting]) -> Table | None:
    recipes = {setting: _recipe(setting) for setting in settings}
    usual = _usual(list(recipes.values()))
    if usual is None or len(settings) < 2:
        return None
    base = next((setting for setting, recipe in recipes.items() if not _changed(recipe, usual)), None)
    if base is None:
        return None
    measures = (
        Measure("test_bpd", "test bpd"),
        counting(Measure("refined_bpd", "refined by{}, first{}"), settings, REFINED_STEPS, REFINED_IMAGES),
        Measure(GAP, "gap", FINE),
    )
    rows = [base, *sorted((each for each in settings if each is not base), key=_gap)]
    first = base.cell
    return Table(
        f"{TITLE}: {base.data}, {first['model']['name']}, z = {base.z_dim}, β = {base.beta:g}",
        (
            Column("recipe", label=True, weight=NEEDED),
            *(measure.column for measure in measures),
            Column("share of the gap closed", True),
        ),
        tuple(
            (
                Entry(_changes(recipes[row], usual) or "as it is"),
                *(measure.entry(row) for measure in measures),
                Entry(ABSENT) if row is base else _closed(row, base),
            )
            for row in rows
        ),
        f"{CAPTION} {SPREAD}",
    )


def _recipe(setting: Setting) -> Mapping[str, Any]:
    training = setting.cell.get("training")
    return training if isinstance(training, Mapping) else {}


def _usual(recipes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """For every key the value that most recipes have, None where they lack it.

    Of values that equally many have it is the one that is off. There is no usual recipe if none of them is.
    """
    usual = {}
    for key in dict.fromkeys(key for recipe in recipes for key in recipe):
        values = {canonical(recipe.get(key)): recipe.get(key) for recipe in recipes}
        counts = Counter(canonical(recipe.get(key)) for recipe in recipes)
        most = [value for text, value in values.items() if counts[text] == max(counts.values())]
        chosen = most if len(most) == 1 else [value for value in most if not value]
        if not chosen:
            return None
        usual[key] = chosen[0]
    return usual


def _changed(recipe: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """The keys in which a recipe is not as usual."""
    return [key for key, value in usual.items() if canonical(recipe.get(key)) != canonical(value)]


def _changes(recipe: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    return ", ".join(f"{scalar(key)} {scalar(recipe.get(key))}" for key in _changed(recipe, usual))


def _gap(setting: Setting) -> float:
    estimate = setting.metric(GAP)
    return math.inf if estimate is None else estimate.value


def _closed(setting: Setting, base: Setting) -> Entry:
    """The share closed, with an interval by the delta method for a ratio of two independent estimates."""
    gap, first = setting.metric(GAP), base.metric(GAP)
    if gap is None or first is None or first.value <= 0:
        return Entry(ABSENT, state="missing")
    ratio = gap.value / first.value
    half = math.hypot(_half_width(gap), ratio * _half_width(first)) / first.value
    low, high = (percent(1 - ratio + sign * half).removesuffix(" %") for sign in (-1, 1))
    return Entry(percent(1 - ratio), f"[{low}, {high}]")


def _half_width(estimate: Estimate) -> float:
    if estimate.low is None or estimate.high is None:
        return math.nan
    return (estimate.high - estimate.low) / 2
