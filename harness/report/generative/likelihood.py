"""Tables of likelihood bounds: bits per dimension, and how tight each bound is."""

from __future__ import annotations

from collections.abc import Sequence

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
from epsbench.harness.report.generative.settings import Likelihood, Setting, best, by_likelihood, title
from epsbench.harness.report.table import Entry, Table
from epsbench.harness.report.units import decimals

ELBO = (
    Measure("train_bpd", "train bpd"),
    Measure("validation_bpd", "validation bpd"),
    Measure("test_bpd", "test bpd"),
    Measure("rate_bpd", "rate"),
    Measure("distortion_bpd", "distortion"),
)
BPD_CAPTION = (
    "Bits per dimension from the evidence lower bound (ELBO): lower is better. Test bpd is rate (the KL of the latent "
    "code from its prior) plus distortion (the reconstruction)."
)
IWAE_CAPTION = (
    "IWAE-k is the importance-weighted bound with k samples (Burda et al., 2016): tighter, on the same test images; "
    "the gap is what it lies below the ELBO, image by image."
)
TIGHT_CAPTION = (
    "Each is an upper bound of the true bits per dimension: the lowest is the tightest. Importance weighting draws "
    "where the encoder points, Monte Carlo draws from the prior and must hit the right place by luck, which it does "
    "only while the latent is small; all images share these draws, so its interval, over images, leaves out their "
    "luck. The bounds of the first images stand beside the ELBO of the same images."
)
REFINED_CAPTION = (
    "A refined ELBO is the same bound of the same model, each image's posterior taken further by gradient steps of its "
    "own; the amortisation gap is what it lies below the ELBO of the same images: what the encoder, not the model, "
    "gives away (Cremer et al., 2018), or with few steps a part of that."
)


def bpd_tables(held: Sequence[Setting]) -> list[Table]:
    """One table for every likelihood, the best setting first. Bits per dimension of different likelihoods measure
    different things and never share a table; a model without a likelihood is in none."""
    return [_bpd(likelihood, best(group)) for likelihood, group in by_likelihood(held).items()]


def _bpd(likelihood: Likelihood, held: Sequence[Setting]) -> Table:
    tighter = [
        counting(Measure("importance_bpd", "IWAE{} bpd"), held, IMPORTANCE),
        counting(Measure("importance_gap_bpd", "gap to ELBO", decimals(4)), held, IMPORTANCE),
    ]
    tighter = measured(held, tighter)
    measures = [*ELBO, *tighter]
    return Table(
        f"VAE on {title(likelihood)}",
        (*HEAD, *(measure.column for measure in measures)),
        tuple((*head(setting), *_numbers(setting, measures)) for setting in held),
        " ".join([BPD_CAPTION, *([IWAE_CAPTION] if tighter else []), SPREAD]),
    )


def _numbers(setting: Setting, measures: Sequence[Measure]) -> list[Entry]:
    """Its numbers, or in the place of each the state that it is in."""
    if setting.held:
        return [measure.entry(setting) for measure in measures]
    state = setting.records[0].status
    return [Entry(state, state=state)] * len(measures)


def bounds_tables(held: Sequence[Setting]) -> list[Table]:
    """How tight the bounds are, one table for every likelihood that has more than the ELBO."""
    tables = [_bounds(likelihood, group) for likelihood, group in by_likelihood(held).items()]
    return [table for table in tables if table is not None]


def _bounds(likelihood: Likelihood, held: Sequence[Setting]) -> Table | None:
    beyond = [
        counting(Measure("importance_bpd", "IWAE{}"), held, IMPORTANCE),
        counting(Measure("prior_bpd", "Monte Carlo{}"), held, PRIOR),
        counting(Measure("long_elbo_bpd", "ELBO, first{}"), held, LONG_IMAGES),
        counting(Measure("long_importance_bpd", "IWAE{}, first{}"), held, LONG_IMPORTANCE, LONG_IMAGES),
        counting(Measure("refined_bpd", "ELBO refined by{}, first{}"), held, REFINED_STEPS, REFINED_IMAGES),
        counting(Measure("amortisation_gap_bpd", "amortisation gap, first{}", FINE), held, REFINED_IMAGES),
    ]
    wider = [setting for setting in held if any(setting.metric(measure.metric) for measure in beyond)]
    measures = [Measure("test_bpd", "ELBO"), *beyond]
    refined = any(setting.metric("refined_bpd") for setting in held)
    caption = " ".join([TIGHT_CAPTION, *([REFINED_CAPTION] if refined else [])])
    return metric_table(f"How tight the bounds are: {title(likelihood)}", wider, measures, caption)
