"""The generative tables of a report, in the order of reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from epsbench.harness.report.generative.latent import estimator_tables, latent_tables
from epsbench.harness.report.generative.likelihood import bounds_tables, bpd_tables
from epsbench.harness.report.generative.quality import quality_tables
from epsbench.harness.report.generative.settings import Setting
from epsbench.harness.report.generative.training import training_table
from epsbench.harness.report.table import Table


@dataclass(frozen=True)
class GenerativeTables:
    """Tables by what they are about; a list is empty where nothing of its kind was measured."""

    likelihood: list[Table] = field(default_factory=list)
    latent: list[Table] = field(default_factory=list)
    quality: list[Table] = field(default_factory=list)
    estimators: list[Table] = field(default_factory=list)
    training: list[Table] = field(default_factory=list)

    @property
    def all(self) -> list[Table]:
        return [*self.likelihood, *self.latent, *self.quality, *self.estimators, *self.training]


def generative_tables(held: Sequence[Setting]) -> GenerativeTables:
    """Every table of these settings."""
    took = training_table(held)
    return GenerativeTables(
        [*bpd_tables(held), *bounds_tables(held)],
        latent_tables(held),
        quality_tables(held),
        estimator_tables(held),
        [took] if took is not None else [],
    )
