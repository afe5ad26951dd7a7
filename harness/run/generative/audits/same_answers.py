"""Whether the parts of a model answer in a process that has not seen the test images as they did while measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.generative.apart import AT_ONCE, Answers, Apart, ModelRaises
from epsbench.harness.run.generative.witness import Seen, Witness

# Answers differ if they are further apart than this, in nats for each pixel or latent dimension. Other batches and
# devices round differently, by 1e-9 or so. A decoder that raises the logit of the right grey level by 0.02 moves it by
# more, and saves about 0.02 bits per dimension.
VARIES = 1e-5
VARIES_POSTERIOR = 1e-2  # the same for the posterior, in squared deviations for each latent dimension
VARIES_DENSITY = 1e-3  # the same for the density of the prior, for each latent dimension
ROUNDS = 1e-4  # a mean may move by this share of itself, however narrow the posterior is
REPEATED = 4  # of the differing rows, those that are asked in batches of the size that they were measured in
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
                yield _raises(part, rows, apart, error)
                continue
            if part != "encode" and max(_own_differences(answers, distance)[:2]) > 1:
                answers = apart.ask(part, rows, after_blank=True)
            yield from _compared(part, seen, answers, distance, apart)


def _raises(part: str, rows: Tensor, apart: Apart, error: ModelRaises) -> Finding:
    """What it means that a part raises in the other process, where it has answered in this one."""
    if part != "encode":
        with suppress(ModelRaises):
            apart.ask(part, rows, after_blank=True)
            fact = f"{NAMES[part]} raises before an image has been encoded, and not after ({error})"
            return finding("sees-the-image", fact, part=part, rows=len(rows))
    if not apart.same_device:
        raise error  # code that is made for a GPU raises on a CPU
    fact = f"{NAMES[part]} has answered while it was measured, and raises in a process of its own ({error})"
    return finding("caller-changes-output", fact, part=part, rows=len(rows))


Distance = Callable[[Tensor, Tensor], Tensor]
"""Of two sets of answers (n, ...), in units of what is allowed: (n,). Infinite for answers that are not finite."""


def _compared(part: str, seen: Sequence[Seen], answers: Answers, distance: Distance, apart: Apart) -> Iterator[Finding]:
    name = NAMES[part]
    between_passes, between_batches, between_modes = _own_differences(answers, distance)
    evidence = {"part": part, "rows": len(seen), "times_allowed": between_passes}
    if between_passes > 1:
        yield finding("not-deterministic", f"{name} gives two different answers to the same input", **evidence)
        return
    if between_batches > 1:
        fact = f"{name} gives another answer to an input in a batch than to the input alone"
        yield finding("batch-dependent", fact, **evidence | {"times_allowed": between_batches})
        return
    if between_modes > 1:
        fact = f"{name} gives another answer while gradients are computed than without them"
        yield finding("gradient-mode-changes-output", fact, **evidence | {"times_allowed": between_modes})
    measured = torch.stack([each.answer.float().cpu() for each in seen])
    # Like with like: the finding above is about the difference between answers with and without gradients.
    with_gradients = torch.tensor([each.how.gradients for each in seen])
    expected = torch.stack([answers.together, answers.differentiated])[with_gradients.long(), torch.arange(len(seen))]
    far = distance(measured, expected)
    different = [each for each, times in zip(seen, far.tolist(), strict=True) if times > 1]
    if different:
        measures = sorted({each.how.measure for each in different})
        evidence |= {"times_allowed": float(far.max()), "different": len(different), "measures": measures}
        where = f"{len(different)} of {len(seen)} inputs ({', '.join(measures)})"
        if _by_size(part, different, apart, distance):
            sizes = sorted({each.how.batch for each in different})
            fact = (
                f"{name} gives another answer in a batch of {sizes[0]:,} inputs than in one of {AT_ONCE}, for {where}"
            )
            yield finding("batch-dependent", fact, **evidence | {"batches": sizes})
        elif part == "encode":
            fact = f"encode() gave another posterior while it was measured than in a new process, for {where}"
            yield finding("answers-by-call-order", fact, **evidence)
        else:
            fact = f"{name} gave another answer while it was measured than in a process without the images, for {where}"
            yield finding("sees-the-image", fact, **evidence)


def _by_size(part: str, different: Sequence[Seen], apart: Apart, distance: Distance) -> bool:
    """Whether only the size of the batch explains the differences: in one of as many copies there are none."""
    for each in different[:REPEATED]:
        answer = apart.ask_in_batch(part, each.question[None], each.how.batch, each.how.gradients)
        if float(distance(each.answer[None].float().cpu(), answer)) > 1:
            return False
    return True


def _own_differences(answers: Answers, distance: Distance) -> tuple[float, float, float]:
    """How far answers are from each other.

    They are those of two passes, those to rows alone and in batches, and those without and with gradients.
    """
    alone = answers.alone
    pairs = (
        (answers.again, alone[: len(answers.again)]),
        (answers.together[: len(alone)], alone),
        (answers.differentiated, answers.together),
    )
    one, two, three = (float(distance(*pair).max()) for pair in pairs)
    return one, two, three


def _in_turn(seen: Sequence[Seen]) -> list[Seen]:
    """The answers, one of every measure in turn."""
    by_measure: dict[str, list[Seen]] = {}
    for each in seen:
        by_measure.setdefault(each.how.measure, []).append(each)
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
