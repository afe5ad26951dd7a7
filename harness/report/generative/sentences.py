"""Sentences about the generative models. They repeat numbers of the tables and add none."""

from __future__ import annotations

from collections.abc import Sequence

from epsbench.harness.report.generative.columns import IMPORTANCE, Measure, counting
from epsbench.harness.report.generative.settings import (
    Estimate,
    Setting,
    best,
    by_likelihood,
    families,
    likelihood_title,
)
from epsbench.harness.report.results.units import and_list, bits, decimals, number
from epsbench.harness.statistics import ends

COLLAPSED_RATE = 0.1
"""Nats: a latent code with a smaller rate carries no information on its image."""


def generative_sentences(settings: Sequence[Setting]) -> list[list[str]]:
    """Sentences by paragraph, for every likelihood: the best model, its bounds, and where a posterior collapsed."""
    paragraphs = []
    for likelihood, group in by_likelihood(settings).items():
        first = best(group)[0]
        sentences = [*_best(first, group), *_gap(first), *_refined(first), *_active(first)]
        if sentences:
            paragraphs.append([f"VAE on {likelihood_title(likelihood)}:", *sentences])
        paragraphs += [sentences for sentences in (_prior(group), _collapse(group)) if sentences]
    return paragraphs


def _best(setting: Setting, group: Sequence[Setting]) -> list[str]:
    test = setting.metric("test_bpd")
    if test is None:
        return []
    compared = sum(each.metric("test_bpd") is not None for each in group)
    among = f"the best of {compared} settings, " if compared > 1 else ""
    seeds = f" (mean ± standard deviation over {test.seeds} seeds)" if test.seeds > 1 else ""
    value = Measure("test_bpd", "").shown(test).plain
    return [f"{among}{setting.name} reaches {value} bits per dimension on the test set{seeds}."]


def _gap(setting: Setting) -> list[str]:
    gap = setting.metric("importance_gap_bpd")
    if gap is None:
        return []
    name = counting(Measure("importance_gap_bpd", "IWAE{}"), [setting], IMPORTANCE).title
    return [f"{name} tightens that bound by {_with_interval(gap)}."]


def _refined(setting: Setting) -> list[str]:
    """How much better the bound is with the posterior of each image refined."""
    refined, gap = setting.metric("refined_bpd"), setting.metric("amortisation_gap_bpd")
    if refined is None or gap is None or gap.value <= 0:
        return []
    steps = setting.samples("refinement_steps")
    by = f" by {steps:,} steps" if steps else ""
    test = setting.metric("test_bpd")
    whole = test is not None and refined.n == test.n
    images = " on the test set" if whole else f" on the first {refined.n:,} test images"
    value = Measure("refined_bpd", "").shown(refined).plain
    return [
        f"With the posterior of each image refined{by}, the ELBO is {value} bits per dimension{images}: the encoder "
        f"loses at least {_with_interval(gap)}."
    ]


def _with_interval(estimate: Estimate) -> str:
    spell = decimals(4)
    if estimate.low is None or estimate.high is None:
        return spell(estimate.value)
    return f"{spell(estimate.value)} [{spell(estimate.low)}, {spell(estimate.high)}]"


def _active(setting: Setting) -> list[str]:
    active = setting.metric("active_units")
    if active is None:
        return []
    return [f"{number(active.value)} of its {setting.z_dim} latent dimensions {_be(active.value)} active."]


def _be(count: float) -> str:
    return "is" if count == 1 else "are"


def _prior(group: Sequence[Setting]) -> list[str]:
    """How far Monte Carlo from the prior is from the ELBO as the latent space grows."""
    for family in families(group, "z_dim"):
        known = [
            (setting, elbo, prior)
            for setting in family
            if (elbo := setting.metric("test_bpd")) and (prior := setting.metric("prior_bpd"))
        ]
        if len(known) < 2:
            continue
        places = [_place(prior.value - elbo.value, setting.z_dim) for setting, elbo, prior in known]
        drawn = {count for setting, _, _ in known if (count := setting.samples("prior_samples"))}
        samples = f"With {drawn.pop():,} samples, " if len(drawn) == 1 else ""
        gaps = [prior.value - elbo.value for _, elbo, prior in known]
        largest, elbo, prior = known[-1]
        apart = ends(prior.value, prior.low, prior.high)[0] > ends(elbo.value, elbo.low, elbo.high)[1]
        why = ": it fails as the latent space grows" if apart and gaps[-1] > gaps[0] else ""
        # With one seed the interval is over images, and leaves out the draws, which all images share.
        over = (
            " (the 95 % intervals over images, which share the draws, do not overlap)"
            if why and prior.seeds == 1
            else ""
        )
        gap = largest.metric("importance_gap_bpd")
        why += ", and importance sampling does not" if why and gap is not None and gap.value >= 0 else ""
        sentence = f"{samples}Monte Carlo from the prior lies {and_list(places)}{why}{over}."
        return [sentence[0].upper() + sentence[1:]]
    return []


def _place(gap: float, z_dim: int) -> str:
    """``"0.310 above the ELBO at z = 20"``."""
    return f"{bits(abs(gap))} {'above' if gap > 0 else 'below'} the ELBO at z = {z_dim}"


def _collapse(group: Sequence[Setting]) -> list[str]:
    """Models whose code carries no information (full collapse), and those with most units inactive (partial)."""
    full = [setting.name for setting in group if collapse(setting) == "full"]
    partial = [setting for setting in group if collapse(setting) == "partial"]
    carries = "code of {} carries" if len(full) == 1 else "codes of {} carry"
    sentences = (
        [f"Posterior collapse: the latent {carries.format(and_list(full))} no information on the image."]
        if full
        else []
    )
    if partial:
        counts = [_alive(setting) for setting in partial]
        sentences.append(f"Partial posterior collapse: {and_list(counts)}.")
    return sentences


def collapse(setting: Setting) -> str:
    """``"full"`` where no unit is active or the rate is below 0.1 nats, ``"partial"`` where fewer than half of the
    units are active, else empty. A unit is active when the variance of its posterior mean is above 0.01."""
    active = setting.metric("active_units")
    rate = setting.metric("kl_closed_nats") or setting.metric("kl_monte_carlo_nats")
    if (active and active.value == 0) or (rate and rate.value < COLLAPSED_RATE):
        return "full"
    return "partial" if active and active.value < setting.z_dim / 2 else ""


def _alive(setting: Setting) -> str:
    active = setting.metric("active_units")
    count = active.value if active else 0.0
    return f"{number(count)} of {setting.z_dim} units {_be(count)} active in {setting.name}"
