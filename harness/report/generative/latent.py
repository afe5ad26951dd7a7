"""Tables of the latent space, and of the variance of the encoder's gradient under three estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from epsbench.harness.report.drawing.table import Column, Entry, Table
from epsbench.harness.report.generative.columns import HEAD, Measure, head, metric_table, nats, plain, share, with_any
from epsbench.harness.report.generative.settings import Setting, by_data
from epsbench.harness.report.results.units import ABSENT, decimals, magnitude, number, scalar


@dataclass(frozen=True)
class Capped(Measure):
    """A measure that is only a bound where the mutual information is close to the most that can be estimated."""

    sign: str = ""
    """The mark of such a bound."""

    def entry(self, setting: Setting) -> Entry:
        entry = super().entry(setting)
        return replace(entry, text=f"{self.sign} {entry.text}") if not entry.state and capped(setting) else entry


def capped(setting: Setting) -> bool:
    """Whether its mutual information is within 1 nat of ln n, the largest estimate that n images allow."""
    information = setting.metric("mutual_information_nats")
    if information is None or not information.n:
        return False
    return information.value > math.log(information.n) - 1


LATENT = (
    nats("kl_closed_nats", "rate, closed form"),
    nats("kl_monte_carlo_nats", "rate, Monte Carlo"),
    Capped("mutual_information_nats", "mutual information", decimals(2), decimals(2), sign="≥"),
    Capped("marginal_kl_nats", "marginal KL", decimals(2), decimals(2), sign="≤"),
    Measure("active_units", "active units", number, number, counted=True),
    share("probe_accuracy", "linear probe"),
)
LATENT_CAPTION = (
    "Nats an image. The rate is the mean KL divergence of the code from the prior, in closed form and by Monte Carlo; "
    "the interval of the second should contain the first. The rate is the sum of the mutual information of image and "
    "code and of the marginal KL, that of all codes together from the prior (Hoffman and Johnson, 2016). The marginal "
    "KL shows how far samples from the prior are from the codes of images. From n test images the mutual information "
    "is estimated as at most ln n (9.21 nats for 10,000): within 1 nat of that it is a lower bound, marked ≥, and the "
    "marginal KL is an upper bound, marked ≤. A unit is active when the variance of its posterior mean over the test "
    "images is above 0.01. The probe is the test accuracy of a linear classifier of the posterior mean."
)
ESTIMATORS = (
    plain("reparameterised_gradient_variance", "reparameterised"),
    plain("score_gradient_variance", "score function"),
    plain("score_baseline_gradient_variance", "score function, baseline"),
)
ESTIMATORS_CAPTION = (
    "The variance (trace of the covariance, nats squared) of three unbiased estimators of the encoder's gradient, "
    "over draws of the noise for one batch. Brackets hold the ratio to the reparameterised estimator: another "
    "estimator needs that many times the samples for the same variance. Reparameterised: with z = μ + σ·ε the "
    "gradient passes through the decoder, which gives its direction. The score function only uses how good each draw "
    "was."
)


def latent_tables(settings: Sequence[Setting]) -> list[Table]:
    """The latent space: one table for every data set."""
    tables = [
        metric_table(f"The latent space on {data}", group, LATENT, LATENT_CAPTION, _disagreeing(group))
        for data, group in by_data(settings).items()
    ]
    return [table for table in tables if table is not None]


def _disagreeing(settings: Sequence[Setting]) -> list[str]:
    """Notes on records where the closed form of the rate lies outside the interval of its Monte Carlo estimate."""
    notes = []
    for setting in settings:
        for record in setting.measured:
            closed, drawn = (record.metrics.get(name) for name in ("kl_closed_nats", "kl_monte_carlo_nats"))
            if closed is None or drawn is None or drawn.low is None or drawn.high is None:
                continue
            if not drawn.low <= closed.value <= drawn.high:
                why = "the closed form of the rate lies outside the interval of its Monte Carlo estimate"
                notes.append(f"{setting.name}, seed {scalar(record.cell['seed'])}: {why}")
    return notes


def estimator_tables(settings: Sequence[Setting]) -> list[Table]:
    """The variance of the encoder's gradient under three estimators, one table for every data set."""
    tables = []
    for data, group in by_data(settings).items():
        if rows := with_any(group, ESTIMATORS):
            columns = (*HEAD, *(Column(measure.title, True) for measure in ESTIMATORS))
            caption = f"{ESTIMATORS_CAPTION} Over several seeds, the mean."
            lines = tuple((*head(setting), *_compared(setting)) for setting in rows)
            tables.append(Table(f"Gradient estimators on {data}", columns, lines, caption))
    return tables


def _compared(setting: Setting) -> list[Entry]:
    reference = setting.metric(ESTIMATORS[0].metric)
    entries = []
    for measure in ESTIMATORS:
        estimate = setting.metric(measure.metric)
        if estimate is None:
            entries.append(Entry(ABSENT, state="missing"))
        elif measure is ESTIMATORS[0] or reference is None or reference.value <= 0:
            entries.append(Entry(magnitude(estimate.value)))
        else:
            entries.append(Entry(magnitude(estimate.value), f"({magnitude(estimate.value / reference.value)} ×)"))
    return entries
