"""Whether the bounds of the likelihood are in the order that they must be in, and whether a model's own loss is one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.random_model import generators_kept
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.noise import KeyedNoise
from epsbench.harness.run.training.vae import evaluate_vae
from epsbench.models.vae import VAENetwork, bits_per_dimension

ERRORS = 5.0  # standard errors: one honest model in 3 million is further out
LEAST = 1e-4  # of the bits per dimension: differences below it are rounding
OWN_IMAGES = 128
# A loss of its own may be a tighter bound than any that is measured, such as one with more samples. It is lower by less
# than 1 % then; by more than 5 %, it is none.
OWN_LESS, OWN_IS_NONE = 0.01, 0.05
SAME = 1e-4  # two distortions that differ by less than this share are the same
RATE_LESS = 0.002  # of the bound: what the rate must lack at least
NAMES = {
    "test_bpd": "the ELBO", "importance_bpd": "the importance-weighted bound",
    "long_importance_bpd": "the long importance-weighted bound", "refined_bpd": "the bound with refined posteriors",
    "refined_importance_bpd": "the importance-weighted bound with refined posteriors",
}  # fmt: skip
ORDER = (
    ("test_bpd", "importance_bpd"), ("test_bpd", "long_importance_bpd"), ("test_bpd", "refined_bpd"),
    ("refined_bpd", "refined_importance_bpd"),
)  # fmt: skip
"""Bounds of which the first is not below the second, in bits per dimension."""


def audit_order(each: Mapping[str, Tensor]) -> Iterator[Finding]:
    """A finding for every two bounds of the same images that are not in the order they must have.

    ``each`` has the bounds of every image, float64 (n,), the first images of the test set. In expectation
    −ELBO ≥ −L_k ≥ −log p(x) for every image, posterior and k (Burda et al., 2016, theorem 1), so for the encoder's
    posteriors and for refined ones. Refinement starts at the encoder's posterior and keeps it where it is better, so
    −ELBO ≥ −refined ELBO. The importance-weighted bound with the encoder's posterior and the refined ELBO have no
    order: either may be tighter.
    """
    for high, low in ORDER:
        if high in each and low in each:
            n = min(len(each[high]), len(each[low]))
            below = _clearly_below(each[high][:n], each[low][:n])
            if below is not None:
                yield _out_of_order(NAMES[high], NAMES[low], below)


def audit_own_loss(
    vae: VAENetwork, parts: VAENetwork, test: Examples, each: Mapping[str, Tensor], seed: int
) -> Iterator[Finding]:
    """Findings about a model's own `elbo`, on the first test images.

    Nothing that is compared across models is computed by it. But training minimises it, and the curves of the training
    show it. ``parts`` is the same model with the bound of its encoder, decoder and prior; ``each`` is as for
    `audit_order`.
    """
    images = test[slice(0, min(OWN_IMAGES, len(test)))]
    own = evaluate_vae(vae, images, seed, "float32").cpu()
    if not bool(own.isfinite().all()):
        yield finding("loss-is-no-bound", f"the model's own elbo() is not finite on {len(own)} test images")
        return
    true = evaluate_vae(parts, images, seed, "float32").cpu()
    tightest = _tightest(each, true.sum(1))
    rate = _clearly_below(own[:, 1], true[:, 1], 0.0)
    if (none := _clearly_below(own.sum(1), tightest, OWN_IS_NONE)) is not None:
        name = "its distortion" if vae.deterministic else "the tightest bound from encode(), the decoder and the prior"
        yield _out_of_order("the model's own elbo()", name, none)
    elif rate is not None and rate[1] - rate[0] > RATE_LESS * float(tightest.mean()) and _equal(own[:, 0], true[:, 0]):
        yield _out_of_order("the rate in the model's own elbo()", "KL(q(z|x) ‖ p(z)), with the same distortion,", rate)
    elif (less := _clearly_below(own.sum(1), tightest, OWN_LESS)) is not None:
        fact = f"the model's own elbo() is {less[0]:.4g} bits per dimension, and the tightest bound {less[1]:.4g}"
        yield finding("loss-is-no-bound", fact, **_evidence(less))
    elif (less := _clearly_below(_in_training(vae, images, seed), tightest, OWN_IS_NONE)) is not None:
        fact = (
            f"the model's own elbo() is {less[0]:.4g} bits per dimension in training mode, and the tightest bound "
            f"{less[1]:.4g}"
        )
        yield finding("loss-is-no-bound", fact, **_evidence(less))


def _in_training(vae: VAENetwork, images: Examples, seed: int) -> Tensor:
    """The model's own negative ELBO in training mode, in bits per dimension (n,): what the curve of training shows."""
    network = copy_of(vae).train()
    example = torch.arange(len(images), device=images.device)
    noise = KeyedNoise(seed, example, torch.zeros_like(example)).normal(vae.z_dim)
    with torch.no_grad(), generators_kept(images.device):
        distortion, rate = network.elbo(images.pixels(), noise)
    return bits_per_dimension((distortion + rate).double(), vae.shape).cpu()


def _tightest(each: Mapping[str, Tensor], elbo: Tensor) -> Tensor:
    """The lowest of the bounds that all of these images have, (n,)."""
    bounds = [bpd[: len(elbo)] for name, bpd in each.items() if name in NAMES and len(bpd) >= len(elbo)]
    return min(bounds, key=lambda bpd: float(bpd.mean()), default=elbo)


def _equal(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= SAME * b.abs()).all())


Below = tuple[float, float, float, int]
"""The mean that is too low, the other one, the standard error of their difference, and the number of images."""


def _clearly_below(a: Tensor, b: Tensor, share: float = LEAST) -> Below | None:
    """Means of ``a`` and ``b``, (n,), where the first is lower by ``share`` of the second and by five errors."""
    difference = b - a
    n = len(difference)
    error = float(difference.std()) / math.sqrt(n) if n > 1 else math.inf
    mean = float(difference.mean())
    if mean > ERRORS * error and mean > max(share * float(b.mean().abs()), LEAST * LEAST):
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
