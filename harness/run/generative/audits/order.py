"""Whether the bounds of the likelihood are in the order that they must be in, and whether a model's own loss is one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.training.vae import evaluate_vae
from epsbench.models.vae import VAENetwork

ERRORS = 5.0  # standard errors: one honest model in 3 million is further out
LEAST = 1e-4  # of the bits per dimension: differences below it are rounding
OWN_IMAGES = 256
OWN_LESS = 0.05  # of the bound: a loss of its own may be a tighter bound, by less than that
NAMES = {
    "test_bpd": "the ELBO", "importance_bpd": "the importance-weighted bound",
    "long_importance_bpd": "the long importance-weighted bound",
}  # fmt: skip


def audit_order(each: Mapping[str, Tensor]) -> Iterator[Finding]:
    """A finding if an ELBO is below an importance-weighted bound of the same images, in bits per dimension.

    ``each`` has the bounds of every image, float64 (n,), the first images of the test set. In expectation
    −ELBO ≥ −L_k ≥ −log p(x) for every image and k (Burda et al., 2016, theorem 1). No such order holds of the bound
    with refined posteriors: it may be tighter than L_k with the encoder's, and steps that overshoot make it looser
    than the ELBO.
    """
    elbo = each.get("test_bpd")
    for name in ("importance_bpd", "long_importance_bpd"):
        if elbo is not None and name in each:
            low = _clearly_below(elbo[: len(each[name])], each[name])
            if low is not None:
                yield _out_of_order(NAMES["test_bpd"], NAMES[name], low)


def audit_own_loss(vae: VAENetwork, test: Examples, each: Mapping[str, Tensor], seed: int) -> Iterator[Finding]:
    """Findings about a model's own `elbo`, on the first test images.

    Nothing that is compared across models is computed by it. But training minimises it, and the curves of the training
    show it. ``each`` is as for `audit_order`; of an autoencoder it has ``distortion_bpd``.
    """
    images = test[slice(0, min(OWN_IMAGES, len(test)))]
    own = evaluate_vae(vae, images, seed, "float32").sum(1).cpu()
    bound = each["distortion_bpd" if vae.deterministic else "test_bpd"][: len(own)]
    tightest = min(
        (values[: len(own)] for name, values in each.items() if name in NAMES and len(values) >= len(own)),
        key=lambda values: float(values.mean()), default=bound,
    )  # fmt: skip
    if not bool(own.isfinite().all()):
        yield finding("loss-is-no-bound", f"the model's own elbo() is {float(own.mean())} on {len(own)} test images")
        return
    below = _clearly_below(own, tightest, OWN_LESS)
    if below is not None:
        name = "its distortion" if vae.deterministic else "the tightest bound from encode(), the decoder and the prior"
        yield _out_of_order("the model's own elbo()", name, below)
    elif (less := _clearly_below(own, bound)) is not None:
        fact = f"the model's own elbo() is {less[0]:.4g} bits per dimension, and that of its parts {less[1]:.4g}"
        yield finding("loss-is-no-bound", fact, **_evidence(less))


Below = tuple[float, float, float, int]
"""The mean that is too low, the other one, the standard error of their difference, and the number of images."""


def _clearly_below(a: Tensor, b: Tensor, share: float = LEAST) -> Below | None:
    """Means of ``a`` and ``b``, (n,), where the first is lower by ``share`` of the second and by five errors."""
    difference = b - a
    n = len(difference)
    error = float(difference.std()) / math.sqrt(n) if n > 1 else math.inf
    mean = float(difference.mean())
    if mean > ERRORS * error and mean > share * max(float(b.mean().abs()), LEAST):
        return float(a.mean()), float(b.mean()), error, n
    return None


def _out_of_order(low: str, high: str, below: Below) -> Finding:
    fact = (
        f"{low} is {below[0]:.4g} bits per dimension on {below[3]:,} test images, and {high} is {below[1]:.4g} on the "
        "same images, which no honest bound can lie below"
    )
    return finding("bounds-out-of-order", fact, too_low=low, beside=high, **_evidence(below))


def _evidence(below: Below) -> dict[str, float]:
    return {"bpd": below[0], "bound_bpd": below[1], "standard_error": below[2], "images": below[3]}
