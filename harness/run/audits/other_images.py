"""Finds attacks for the smallest distance that miss adversarial examples which are known: images of other classes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from epsbench.attacks.norms import Norm
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.targets import Targets

ROWS, OTHERS = 32, 64  # images with the largest distances, and images that they are compared with
NUMBERS = 2**20  # of all pixels that are compared with one image: fewer large images
FEWEST = 2  # images


def audit_other_images(norm: Norm, distances: np.ndarray, targets: Targets) -> Iterator[Finding]:
    """Whether other targets are nearer than what an attack returned for each, by its ``distances`` (n,).

    The model puts every target into its own class, so those of other classes are adversarial examples: an exact bound
    of the smallest distance, whatever the attack. It is far, but an attack that ends at no point at all is beyond it.
    """
    farthest = torch.from_numpy(np.argsort(-distances, kind="stable")[:ROWS]).to(targets.labels.device)
    rows = targets.pixels(farthest)
    others = min(OTHERS, max(1, NUMBERS // rows[0].numel()), len(targets))
    images, labels = targets.pixels(torch.arange(others, device=farthest.device)), targets.labels[:others]
    nearer = []
    for x, at in zip(rows.split(1), farthest.tolist(), strict=True):
        distance, apart = float(distances[at]), labels != targets.labels[at]
        if bool((norm.size(images[apart] - x) < distance * (1 - 1e-5)).any()):
            nearer.append(distance)
    if len(nearer) >= FEWEST:
        without = sum(map(math.isinf, nearer))
        fact = (
            f"for {len(nearer)} of {len(farthest)} images another test image, which the model puts into another class, "
            f"is nearer than what the attack found; for {without} of them it found nothing"
        )
        yield finding("misses-other-images", fact, images=len(nearer), of=len(farthest), without=without)
