"""Tables of likelihood bounds: bits per dimension, and how tight each bound is."""

from __future__ import annotations

from collections.abc import Sequence

from epsbench.harness.report.drawing.table import Entry, Table
from epsbench.harness.report.generative.columns import (
    FINE,
    HEAD,
    IMPORTANCE,
    LONG_IMAGES,
    LONG_IMPORTANCE,
    PRIOR,
    REFINED_IMAGES,
    REFINED_STEPS,
    SPREAD,
    Measure,
    counting,
    head,
    measured,
    metric_table,
)
from epsbench.harness.report.generative.settings import Likelihood, Setting, best, by_likelihood, likelihood_title

ELBO = (
    Measure("train_bpd", "train bpd"),
    Measure("validation_bpd", "validation bpd"),
    Measure("test_bpd", "test bpd"),
    Measure("rate_bpd", "rate"),
    Measure("distortion_bpd", "distortion"),
)
BPD_CAPTION = (
    "Bits per dimension from the evidence lower bound (ELBO): lower is better. Test bpd is the sum of the rate (the KL "
    "divergence of the latent code from its prior) and the distortion (the reconstruction error)."
)
WITHOUT_CAPTION = (
    "A cell that failed or is void has no number here and takes no part in any comparison; the table of findings says "
    "why."
)
IWAE_CAPTION = (
    "IWAE-k is the importance-weighted bound with k samples (Burda et al., 2016), which is tighter, on the same test "
    "images; the gap is the ELBO minus this bound, image by image."
)
TIGHT_CAPTION = (
    "Each is an upper bound of the true bits per dimension: the lowest is the tightest. Importance weighting draws "
    "codes from the encoder. Monte Carlo draws them from the prior, and few of those fit an image unless the latent "
    "space is small. All images share these draws, so the interval, which is over images, does not include their "
    "randomness. Bounds on the first images are to be compared with the ELBO of the same images."
)
REFINED_CAPTION = (
    "For a refined ELBO, gradient steps improve the posterior of each image; the model stays the same. The "
    "amortisation gap is the ELBO of the same images minus the refined one: the loss that is due to the encoder and "
    "not to the model (Cremer et al., 2018). With few steps it is only a part of that loss."
)


def bpd_tables(settings: Sequence[Setting]) -> list[Table]:
    """One table for every likelihood, the best setting first.

    Bits per dimension of different likelihoods cannot be compared and never share a table; a model without a
    likelihood is in no table.
    """
    return [_bpd(likelihood, best(group)) for likelihood, group in by_likelihood(settings).items()]


def _bpd(likelihood: Likelihood, settings: Sequence[Setting]) -> Table:
    tighter = [
        counting(Measure("importance_bpd", "IWAE{} bpd"), settings, IMPORTANCE),
        counting(Measure("importance_gap_bpd", "gap to ELBO", FINE), settings, IMPORTANCE),
    ]
    tighter = measured(settings, tighter)
    measures = [*ELBO, *tighter]
    without = [WITHOUT_CAPTION] if any(len(s.measured) < len(s.records) for s in settings) else []
    return Table(
        f"VAE on {likelihood_title(likelihood)}",
        (*HEAD, *(measure.column for measure in measures)),
        tuple((*head(setting), *_numbers(setting, measures)) for setting in settings),
        " ".join([BPD_CAPTION, *([IWAE_CAPTION] if tighter else []), SPREAD, *without]),
    )


def _numbers(setting: Setting, measures: Sequence[Measure]) -> list[Entry]:
    """The setting's numbers; where no seed has any that count, its state in place of each, as in a leaderboard."""
    if setting.measured:
        return [measure.entry(setting) for measure in measures]
    states = [record.status for record in setting.records]
    state = next((state for state in ("failed", "void") if state in states), states[0])
    return [Entry(state, state=state)] * len(measures)


def bounds_tables(settings: Sequence[Setting]) -> list[Table]:
    """How tight the bounds are: one table for every likelihood with more bounds than the ELBO."""
    tables = [_bounds(likelihood, group) for likelihood, group in by_likelihood(settings).items()]
    return [table for table in tables if table is not None]


def _bounds(likelihood: Likelihood, settings: Sequence[Setting]) -> Table | None:
    beyond = [
        counting(Measure("importance_bpd", "IWAE{}"), settings, IMPORTANCE),
        counting(Measure("prior_bpd", "Monte Carlo{}"), settings, PRIOR),
        counting(Measure("long_elbo_bpd", "ELBO, first{}"), settings, LONG_IMAGES),
        counting(Measure("long_importance_bpd", "IWAE{}, first{}"), settings, LONG_IMPORTANCE, LONG_IMAGES),
        counting(Measure("refined_bpd", "ELBO refined by{}, first{}"), settings, REFINED_STEPS, REFINED_IMAGES),
        counting(Measure("amortisation_gap_bpd", "amortisation gap, first{}", FINE), settings, REFINED_IMAGES),
    ]
    wider = [setting for setting in settings if any(setting.metric(measure.metric) for measure in beyond)]
    measures = [Measure("test_bpd", "ELBO"), *beyond]
    refined = any(setting.metric("refined_bpd") for setting in settings)
    caption = " ".join([TIGHT_CAPTION, *([REFINED_CAPTION] if refined else [])])
    return metric_table(f"How tight the bounds are: {likelihood_title(likelihood)}", wider, measures, caption)
