"""The works to cite for what a cell measures, and for the checks behind its findings, by their keys."""

from __future__ import annotations

CALIBRATION = ("guo2017calibration",)
SOFTWARE = ("paszke2019pytorch",)

BOUND, QUALITY = ("kingma2014auto",), ("kynkaanniemi2019improved",)
IMPORTANCE, REFINED = ("burda2016importance",), ("cremer2018inference",)
SPREAD, CLIPPED = ("naeem2020reliable",), ("salvy2026enhanced",)
RATE, LIKELIHOOD = ("hoffman2016elbo",), ("jiralerspong2023feature",)
SHARE = ("wilson1927probable",)
MEASURES: dict[str, tuple[str, ...]] = {
    "clean_accuracy": SHARE,
    "robust_accuracy": SHARE,
    "attack_success_rate": SHARE,
    "train_bpd": BOUND,
    "validation_bpd": BOUND,
    "test_bpd": BOUND,
    "rate_bpd": BOUND,
    "distortion_bpd": BOUND,
    "importance_bpd": IMPORTANCE,
    "importance_gap_bpd": IMPORTANCE,
    "long_importance_bpd": IMPORTANCE,
    "long_elbo_bpd": BOUND,
    "refined_bpd": REFINED,
    "amortisation_gap_bpd": REFINED,
    "prior_bpd": (),
    "kl_closed_nats": BOUND,
    "kl_monte_carlo_nats": BOUND,
    "mutual_information_nats": RATE,
    "marginal_kl_nats": RATE,
    "active_units": IMPORTANCE,
    "probe_accuracy": SHARE,
    "reparameterised_gradient_variance": BOUND,
    "score_gradient_variance": ("williams1992simple",),
    "score_baseline_gradient_variance": ("williams1992simple",),
    "frechet_distance": ("heusel2017gans",),
    "frechet_distance_infinite": ("chong2020effectively",),
    "kernel_distance": ("binkowski2018demystifying",),
    "precision": QUALITY,
    "recall": QUALITY,
    "density": SPREAD,
    "coverage": SPREAD,
    "clipped_density": CLIPPED,
    "clipped_coverage": CLIPPED,
    "likelihood_divergence": LIKELIHOOD,
    "likelihood_gap": LIKELIHOOD,
    "neighbour_distance": (),
}
"""Measure → keys. A measure of real images, ``floor_…``, has those of the measure of samples."""
MASKING = ("athalye2018obfuscated",)
AUDITS: dict[str, tuple[str, ...]] = {
    "zero-gradient": MASKING,
    "shattered": MASKING,
    "masked": MASKING,
    "decoy-gradient": MASKING,
    "one-step-beats-many": MASKING,
    "noise-beats-gradient": MASKING,
    "black-box-beats-gradient": MASKING,
    "black-box-finds-more": MASKING,
    "score-search-beats-gradient": (*MASKING, "andriushchenko2020square"),
    "margin-beats-cross-entropy": ("carlini2017towards",),
    "attack-misses-constructed-example": ("zimmermann2022increasing",),
    "catastrophic-overfitting": ("wong2020fast",),
    "bounds-out-of-order": IMPORTANCE,
}
"""Code of a finding → the works that its check follows."""
OUR_OWN = frozenset({
    # the model
    "not-finite", "probabilities", "not-deterministic", "unsettled-votes", "not-random", "batch-dependent",
    "gradient-mode-changes-output", "copy-differs-under-attack", "answers-by-call-order", "caller-changes-output",
    "verdict-not-repeated", "differs-in-fresh-process", "off-grid", "discontinuous", "knows-test-images", "train-mode",
    "normalised-twice", "not-normalised", "other-preprocessing", "adapted-to-few-classes", "not-differentiable",
    "writes-input", "optimises-at-inference", "at-chance", "no-better-than-one-class",
    "shared-images", "few-classes",
    # a generative model
    "loss-is-no-bound", "not-normalised-likelihood", "prior-draws-differ", "sees-the-image", "trained-on-test-images",
    "memorised-images", "degenerate-posterior", "decoder-gradient", "constant-dimensions", "likelihood-at-floor",
    # gradients, the attack, cells against each other
    "gradient-not-finite", "precision-masked", "stuck-at-bounds", "no-op", "unmoved", "beyond-ball", "not-pixels",
    "unkeyed-noise", "outside-ball", "outside-box", "no-ascent", "unconverged", "one-step-short", "lost-iterate",
    "misses-other-images", "weaker-than-peers", "eps-not-monotone",
    # outputs and speed
    "audit-failed", "output-failed", "not-folded", "not-prepared", "not-mixed", "not-traced", "not-compiled",
    "not-graphed", "attacked-alone",
})  # fmt: skip
"""Codes of the other findings: their checks follow no work."""


def works_of_measure(name: str) -> tuple[str, ...]:
    """The keys for a measure, or for the same measure of real images in place of samples."""
    return MEASURES.get(name.removeprefix("floor_"), ())
