"""Whether a model knows the test images, or gives training images back as its samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.generative.neighbours import nearest
from epsbench.harness.run.generative.sampling import draw_levels, levels_of, mode_levels, whole_levels_of
from epsbench.models.vae import VAENetwork

ERRORS = 5.0
BETTER = 0.03  # of the bits per dimension: less may be due to the images of the split
MOST_LEAKED = 0.5  # a model that overfits loses less than half of that on images that it has not been trained on
SIMPLE_IMAGES, SIMPLE_LEVELS = 2000, 16
SAMPLES = 128
# A copy is nearer to an image than this share of the distance of real images; the share of copies that is a finding.
# The most likely images have no noise: of honest models they are 0.4 to 3 times as far as real images.
COPIES = {"samples": (0.5, 0.05), "most likely images": (0.25, 0.25)}
FEWEST = 32  # test images, and training images: distances of fewer say little


def audit_splits(each: Mapping[str, Tensor], data: Data) -> Iterator[Finding]:
    """A finding if test images are clearly easier for the model than training images, or than validation images.

    ``each`` has the ELBO of every image of the three splits, (n,). A split may simply be easier. So the difference that
    a model of independent pixels shows, as a share, is taken off.
    """
    if not {"train_bpd", "validation_bpd", "test_bpd"} <= each.keys():
        return
    means = {name: float(each[f"{name}_bpd"].mean()) for name in ("train", "validation", "test")}
    simple = _simple(data)
    for name in ("train", "validation"):
        easier, error = _easier(each["test_bpd"], each[f"{name}_bpd"])
        easier -= max(0.0, 1 - simple["test"] / simple[name])
        # A model that has seen the test images beside the training images overfits to both: validation alone is worse.
        overfits = means["validation"] - means["train"] > MOST_LEAKED * (means["validation"] - means["test"])
        if easier > BETTER + ERRORS * error and (name == "train" or overfits):
            fact = (
                f"the ELBO is {means['test']:.4g} bits per dimension on test images and {means[name]:.4g} on {name} "
                f"{'images' if name == 'validation' else 'images (it was trained on these)'}"
            )
            evidence = {f"{split}_bpd": value for split, value in means.items()}
            yield finding("trained-on-test-images", fact, easier=easier, standard_error=error, **evidence)
            return


def audit_copies(vae: VAENetwork, data: Data, seed: int) -> Iterator[Finding]:
    """Findings if samples are much nearer to training or test images than test images are to training images.

    Pixels that are drawn from p(x|z) may hide a copy in noise. So the most likely image of each code is looked at, too.
    """
    n = min(SAMPLES, len(data.test))
    if min(n, len(data.train)) < FEWEST:
        return
    train, test = (whole_levels_of(part, vae.levels) for part in (data.train, data.test))
    drawn = torch.cat([draw_levels(vae, SAMPLES, seed), mode_levels(vae, SAMPLES, seed)])
    # All at once: the training images are made to numbers only once.
    real, *to_train = nearest(torch.cat([test[:n], drawn]), train)[0].split([n, SAMPLES, SAMPLES])
    to_test = nearest(drawn, test)[0].split(SAMPLES)
    for code, distances, name in (
        ("trained-on-test-images", to_test, "test"),
        ("memorised-images", to_train, "training"),
    ):
        for kind, distance in zip(COPIES, distances, strict=True):
            near, most = COPIES[kind]
            threshold = near * float(real.median())
            copied, usual = (float((each < threshold).float().mean()) for each in (distance, real))
            if copied > most + usual:
                fact = (
                    f"{copied:.0%} of {kind} are nearer to a {name} image than {near:g} times the median distance from "
                    f"test to training images ({usual:.0%} of test images are to a training image)"
                )
                scale = vae.levels - 1
                medians = {"median_distance": float(distance.median()) / scale,
                           "median_distance_of_real": float(real.median()) / scale}  # fmt: skip
                yield finding(code, fact, copied=copied, copied_of_real=usual, samples=SAMPLES, **medians)
                break


def _easier(a: Tensor, b: Tensor) -> tuple[float, float]:
    """By what share the mean of ``a`` is below that of ``b``, and the standard error of that share."""
    scale = abs(float(b.mean()))
    if len(a) < 2 or len(b) < 2 or scale == 0:
        return 0.0, math.inf
    error = math.sqrt(float(a.var()) / len(a) + float(b.var()) / len(b))
    return float(b.mean() - a.mean()) / scale, error / scale


def _simple(data: Data) -> dict[str, float]:
    """Nats an image of each split under independent pixels with the frequencies of the training images."""
    levels = SIMPLE_LEVELS
    train = _few(data.train)
    counts = torch.stack([(train == level).sum(0) for level in range(levels)]) + 1.0
    nats = -(counts / counts.sum(0)).log()
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: float(nats.gather(0, _few(part)).sum((1, 2, 3)).mean()) for name, part in parts.items()}


def _few(part: Examples) -> Tensor:
    return levels_of(part, min(len(part), SIMPLE_IMAGES), SIMPLE_LEVELS).long()
