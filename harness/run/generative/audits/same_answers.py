"""Whether the parts of a model answer in a process that has not seen the test images as they did while measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.generative.apart import Answers, Apart, ModelRaises
from epsbench.harness.run.generative.witness import Seen, Witness

# Answers differ if they are further apart than this, in nats for each pixel or latent dimension. Other batches and
# devices round differently, by 1e-9 or so. A decoder that raises the logit of the right grey level by 0.02 moves it by
# more, and saves about 0.02 bits per dimension.
VARIES = 1e-5
VARIES_POSTERIOR = 1e-2  # the same for the posterior, in squared deviations for each latent dimension
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
            try:
                answers = apart.ask(part, rows)
            except ModelRaises as error:
                if part == "encode":
                    raise
                apart.ask(part, rows, after_blank=True)  # raises too where the image is not what is missing
                fact = f"{NAMES[part]} raises before an image has been encoded, and not after ({error})"
                yield finding("sees-the-image", fact, part=part, rows=len(seen))
                continue
            if part != "encode" and max(_own_differences(answers, distance)) > 1:
                answers = apart.ask(part, rows, after_blank=True)
            yield from _compared(part, seen, answers, distance)


Distance = Callable[[Tensor, Tensor], Tensor]
"""Of two sets of answers (n, ...), in units of what is allowed: (n,). Infinite for answers that are not finite."""


def _compared(part: str, seen: Sequence[Seen], answers: Answers, distance: Distance) -> Iterator[Finding]:
    name = NAMES[part]
    between_passes, between_batches = _own_differences(answers, distance)
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


def _own_differences(answers: Answers, distance: Distance) -> tuple[float, float]:
    """How far answers to rows alone are from those of a second pass, and from those in batches."""
    alone = answers.alone
    others = answers.again, answers.together[: len(alone)]
    return float(distance(others[0], alone).max()), float(distance(others[1], alone).max())


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
    return _or_infinite(apart / VARIES_POSTERIOR)


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
