"""Finds models that compute something else with gradients, in another batch, or as a copy.

Models that answer attacks otherwise than clean images show it on moved images only, so those are compared too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from epsbench.attacks.losses import at_class
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.gradient import cosines, largest
from epsbench.harness.run.attack.victim import DOUBT, Victim, rise
from epsbench.harness.run.audits import calls
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.calls import Call
from epsbench.harness.run.audits.points import ROUNDING as FLOAT32
from epsbench.harness.run.audits.points import changed, spread
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.machine.copies import copy_of

DIFFERS = 0.01  # of the spread of the logits; kernels for other batch sizes round differently, by far less
FEWEST = 2  # images; a single one may lie on an edge of a network that rounds inside
CLEAN, MOVED = 4, 12  # images of each group, for each kind of call
IMAGES = 12  # that are compared with the attacked form, of two kinds together
DIRECTIONS = 8  # images whose gradients are compared
# Of batches. The large one holds moved images again and again. Larger ones are those in which the engine judges: clean
# images, and the adversarial ones that are judged again in smaller batches.
SIZES, LARGE = (1, 2, 7), (65,)
SAME_WAY = 0.5  # cosine of two gradients; low precision turns them by far less
ROUNDING = 8.0  # what a low precision may change of the logits, in units of its doubt about them

# What differs from the judge's own call.
LEAF, INNER = "with gradients switched on", "for an image that is computed from others"
PLAIN = "with gradients on and an image without"
CHANNELS_LAST, SLICE, COPY = "with channels last in memory", "as part of more images", "computed by a copy"

_HALF = (torch.float16, torch.bfloat16)


def audit_same_function(probe: Probe, moved: Mapping[str, Tensor], original: nn.Module | None) -> Iterator[Finding]:
    """Compare calls of the judge's network at the ``moved`` images, by name; ``original`` is the user's own model.

    Several ways are tried together first. Where those logits are as expected, they are not tried one by one.
    """
    reported: set[str] = set()
    network = probe.judge.network
    twice = copy_of(copy_of(network))
    together, ways = _together(network, twice), _ways(network, twice, original)
    groups = _groups(probe, moved)
    for name, few, expected in groups:
        limit = DIFFERS * spread(expected)
        sizes = _in_batches(network, SIZES + LARGE if name == groups[-1][0] else SIZES)
        alike = {how for call, hows in together if _alike(call, few, expected, limit) for how in hows}
        for code, how, call in ways + sizes:
            if code in reported or how in alike:
                continue
            rows = changed(call(few), expected, limit)
            if rows >= min(FEWEST, len(few)):
                reported.add(code)
                fact = f"{how}, logits of {rows} of {len(few)} images differ ({name})"
                yield finding(code, fact, images=rows, of=len(few), where=name, call=how)


def _alike(call: Call, x: Tensor, expected: Tensor, limit: float) -> bool:
    """Whether a call gives the expected logits (N, classes) for all images (N, C, H, W)."""
    try:
        return not changed(call(x), expected, limit)
    # Such as .view of images that are not contiguous.
    except Exception:  # noqa: BLE001
        return False


def _in_batches(network: nn.Module, sizes: Sequence[int]) -> list[tuple[str, str, Call]]:
    return [("batch-dependent", f"in batches of {size}", calls.in_batches(network, size)) for size in sizes]


def _together(network: nn.Module, twice: nn.Module) -> list[tuple[Call, tuple[str, str]]]:
    """Calls that differ in two ways, and what these are. ``twice`` is a copy of a copy."""
    return [
        # The new tensor itself: an operation on it may lay its result out otherwise.
        (calls.with_gradients(network, lambda x: calls.channels_last(x).requires_grad_(True)), (LEAF, CHANNELS_LAST)),
        (calls.with_gradients(twice, calls.inner), (INNER, COPY)),
        (calls.with_gradients(network, calls.slice_of_more), (PLAIN, SLICE)),
    ]


def _ways(network: nn.Module, twice: nn.Module, original: nn.Module | None) -> list[tuple[str, str, Call]]:
    """Code of the finding, what is different, and the call."""
    ways: list[tuple[str, str, Call]] = [
        ("gradient-mode-changes-output", LEAF, calls.with_gradients(network, calls.leaf)),
        ("gradient-mode-changes-output", INNER, calls.with_gradients(network, calls.inner)),
        ("gradient-mode-changes-output", PLAIN, calls.with_gradients(network, calls.plain)),
        ("caller-changes-output", "in a thread of its own", calls.in_thread(network)),
        ("caller-changes-output", CHANNELS_LAST, calls.laid_out(network, calls.channels_last)),
        ("caller-changes-output", SLICE, calls.laid_out(network, calls.slice_of_more)),
        ("copy-differs-under-attack", COPY, calls.without_gradients(twice)),
    ]
    if original is not None and not any(each.dtype in _HALF for each in original.parameters()):
        ways.append(("copy-differs-under-attack", "computed by the model that was copied", calls.evaluated(original)))
        ways.append(("copy-differs-under-attack", "computed by a copy that saw no other image", calls.fresh(original)))
    return ways


def _groups(probe: Probe, moved: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    """What is asked about together: clean images, and images of all kinds that are moved, as many of each.

    Each group has a name, images (N, C, H, W), and the logits (N, classes) that are expected. Clean images are apart:
    a model may ask whether a whole batch has moved.
    """
    clean, *others = moved
    groups = [(clean, moved[clean][:CLEAN], probe.logits_at(moved[clean])[:CLEAN])]
    if others:
        each = MOVED // len(others)
        images = torch.cat([moved[name][:each] for name in others])
        groups.append((", ".join(others), images, torch.cat([probe.logits_at(moved[name])[:each] for name in others])))
    return groups


def audit_same_as_judged(probe: Probe, attacked: Attacked, moved: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Compare the logits of the attacked form with the judge's at the ``moved`` images, by name.

    Before the attack they were compared at clean images alone. A low precision may be off by a multiple of its doubt.
    """
    precision, count = attacked.victim.precision, IMAGES // min(2, len(moved))
    for name, x in moved.items():
        few, y = x[:count], probe.y[:count]
        expected = probe.logits_at(x)[:count]
        rounding = ROUNDING * DOUBT[precision]
        limit = max(DIFFERS, rounding) * spread(expected)
        for how, logits in (
            ("along with a gradient", attacked.logits_with_gradient(few, y)),
            ("without a gradient", attacked.logits(few)),
        ):
            known = logits.isfinite().all(1)  # what overflows in a low precision is no other model
            rows = changed(logits[known], expected[known], limit, max(FLOAT32, rounding))
            if rows >= max(FEWEST, len(few) / 4):
                fact = f"logits of {rows} of {len(few)} images differ between attacked form and judge, {how} ({name})"
                yield finding("copy-differs-under-attack", fact, images=rows, of=len(few), where=name, call=how)
                return


def audit_same_gradient(probe: Probe, victim: Victim) -> Iterator[Finding]:
    """Compare the gradient of the copy that is attacked with that of the judge's network, at the probed images."""
    few, y = probe.x[:DIRECTIONS], probe.y[:DIRECTIONS]
    expected = probe.gradient_of(rise, few, y)
    cosine = cosines(victim.slope(few, y), expected)
    differs = ~(cosine > SAME_WAY) & (largest(expected) > 0)
    if int(differs.sum()) <= len(few) / 2:
        return
    # Where the logits rise together, what is left of their difference's gradient is rounding.
    differs &= largest(expected) > FLOAT32 * largest(probe.gradient_of(at_class, few, y))
    rows = int(differs.sum())
    if rows > len(few) / 2:
        fact = f"on {rows} of {len(few)} images the attacked copy's gradient points elsewhere than the model's"
        yield finding("copy-differs-under-attack", fact, images=rows, of=len(few), call="the attacked copy's gradient")
