"""Whether the parts of a model answer in a process that has not seen the test images as they did while measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.generative.apart import Answers, Apart
from epsbench.harness.run.generative.witness import Seen, Witness

# Answers differ if they are further apart than this, in nats for each pixel or latent dimension. Other batches and
# devices round differently: 1e-9 to 1e-6. A decoder that knows 1 % of what an image is moves it by 1e-3 and more.
VARIES = 1e-4
VARIES_DENSITY = 1e-3  # the same for the density of the prior, for each latent dimension
ROUNDS = 1e-4  # a mean may move by this share of itself, however narrow the posterior is
NAMES = {"encode": "encode()", "decode": "the decoder", "log_prob": "the prior's log_prob"}


def audit_same_answers(witness: Witness, apart: Apart) -> Iterator[Finding]:
    """Findings about parts that are no function of their input alone: `decode` of z, `log_prob` of z, `encode` of x.

    Rows that the measures asked about are asked again in another process: each alone, twice, and in other batches.
    """
    for part, distance in DISTANCES.items():
        if seen := _in_turn(witness.of(part)):
            rows = torch.stack([each.question for each in seen])
            yield from _compared(part, seen, apart.ask(part, rows), distance)


Distance = Callable[[Tensor, Tensor], Tensor]
"""Of two sets of answers (n, ...), in units of what is allowed: (n,). Infinite for answers that are not finite."""


def _compared(part: str, seen: Sequence[Seen], answers: Answers, distance: Distance) -> Iterator[Finding]:
    name, alone = NAMES[part], answers.alone
    between_passes = float(distance(answers.again, alone).max())
    between_batches = float(distance(answers.together[: len(alone)], alone).max())
    evidence = {"part": part, "rows": len(seen), "times_allowed": between_passes}
    if between_passes > 1:
        yield finding("not-deterministic", f"{name} gives two different answers to the same input", **evidence)
        return
    if between_batches > 1:
        fact = f"{name} gives another answer to an input in a batch than to the input alone"
        yield finding("batch-dependent", fact, **evidence | {"times_allowed": between_batches})
        return
    measured = torch.stack([each.answer.float().cpu() for each in seen])
    apart = distance(measured, answers.together)
    different = [each.measure for each, far in zip(seen, apart.tolist(), strict=True) if far > 1]
    if different:
        measures = sorted(set(different))
        evidence |= {"times_allowed": float(apart.max()), "different": len(different), "measures": measures}
        where = f"{len(different)} of {len(seen)} inputs ({', '.join(measures)})"
        if part == "encode":
            fact = f"encode() gave another posterior while it was measured than in a new process, for {where}"
            yield finding("answers-by-call-order", fact, **evidence)
        else:
            fact = f"{name} gave another answer while it was measured than in a process without the images, for {where}"
            yield finding("sees-the-image", fact, **evidence)


def _in_turn(seen: Sequence[Seen]) -> list[Seen]:
    """The answers, one of every measure in turn."""
    by_measure: dict[str, list[Seen]] = {}
    for each in seen:
        by_measure.setdefault(each.measure, []).append(each)
    return [each for turn in zip_longest(*by_measure.values()) for each in turn if each is not None]


def _images_apart(a: Tensor, b: Tensor) -> Tensor:
    """The larger KL divergence of the two, of logits (n, levels, pixels), for each pixel."""
    one, other = a.double().log_softmax(1), b.double().log_softmax(1)
    there, back = ((p.exp() * (p - q)).sum(1).mean(1) for p, q in ((one, other), (other, one)))
    return _or_infinite(torch.maximum(there, back) / VARIES)


def _posteriors_apart(a: Tensor, b: Tensor) -> Tensor:
    """How far means move in units of the deviation, and deviations in logarithm, of (n, 2, z_dim)."""
    (mean, log_std), (other_mean, other_log_std) = (x.double().unbind(1) for x in (a, b))
    scale = log_std.exp().square() + (ROUNDS * (1 + mean.abs())).square()
    apart = ((mean - other_mean).square() / scale + (log_std - other_log_std).square()).mean(1)
    return _or_infinite(apart / (100 * VARIES))


def _densities_apart(a: Tensor, b: Tensor) -> Tensor:
    """Of log-densities (n,)."""
    allowed = VARIES_DENSITY + ROUNDS * torch.maximum(a.abs(), b.abs())
    return _or_infinite((a.double() - b.double()).abs() / allowed)


def _or_infinite(values: Tensor) -> Tensor:
    return values.nan_to_num(math.inf, math.inf)


# Images come last: a part that remembers what is encoded must not have seen them in the other process either.
DISTANCES: dict[str, Distance] = {
    "decode": _images_apart, "log_prob": _densities_apart, "encode": _posteriors_apart,
}  # fmt: skip
