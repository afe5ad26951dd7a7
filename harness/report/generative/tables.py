"""The generative tables of a report, in the order of reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from epsbench.harness.report.drawing.table import Table
from epsbench.harness.report.generative.cures import cure_tables
from epsbench.harness.report.generative.latent import estimator_tables, latent_tables
from epsbench.harness.report.generative.likelihood import bounds_tables, bpd_tables
from epsbench.harness.report.generative.quality import quality_tables
from epsbench.harness.report.generative.settings import Setting
from epsbench.harness.report.generative.training import training_table


@dataclass(frozen=True)
class GenerativeTables:
    """Tables by subject; a list is empty where nothing of its kind was measured."""

    likelihood: list[Table] = field(default_factory=list)
    """Bits per dimension, how tight each bound is, and what recipes do to the amortisation gap."""
    latent: list[Table] = field(default_factory=list)
    """The latent space."""
    quality: list[Table] = field(default_factory=list)
    """Sample quality."""
    estimators: list[Table] = field(default_factory=list)
    """The variance of gradient estimators."""
    training: list[Table] = field(default_factory=list)
    """The cost of training and evaluation."""

    @property
    def all(self) -> list[Table]:
        """The tables in the order of the report."""
        return [*self.likelihood, *self.latent, *self.quality, *self.estimators, *self.training]


def generative_tables(settings: Sequence[Setting]) -> GenerativeTables:
    """Every table of these settings."""
    training = training_table(settings)
    return GenerativeTables(
        [*bpd_tables(settings), *bounds_tables(settings), *cure_tables(settings)],
        latent_tables(settings),
        quality_tables(settings),
        estimator_tables(settings),
        [training] if training is not None else [],
    )
