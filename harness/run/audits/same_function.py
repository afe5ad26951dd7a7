"""Finds models that compute something else with gradients, in another batch, or as a copy.

Models that answer attacks otherwise than clean images show it on moved images only, so those are compared too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.points import changed, spread
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.memory import in_chunks

DIFFERS = 0.01  # of the spread of the logits; kernels for other batch sizes round differently, by far less
FEWEST = 2  # images; a single one may lie on an edge of a network that rounds inside
IMAGES = 16  # for each kind of call
SIZES = (1, 2, 3, 7, 33, 128)  # of batches
SAME_WAY = 0.5  # cosine of two gradients; low precision turns them by far less

Call = Callable[[Tensor], Tensor]


def audit_same_function(probe: Probe, moved: Mapping[str, Tensor], original: nn.Module | None) -> Iterator[Finding]:
    """Compare calls of the judge's network at the ``moved`` images, by name; ``original`` is the user's own model."""
    network = probe.judge.network
    twice = copy_of(copy_of(network))
    calls: list[tuple[str, str, Call]] = [
        ("gradient-mode-changes-output", "with gradients switched on", _with_gradients(network, _leaf)),
        ("gradient-mode-changes-output", "for an image that is computed from others", _with_gradients(network, _inner)),
        ("gradient-mode-changes-output", "with gradients on and an image without", _with_gradients(network, _plain)),
        *(("batch-dependent", f"in batches of {size}", _in_batches(network, size)) for size in SIZES),
        ("copy-differs-under-attack", "computed by a copy", _without_gradients(twice)),
    ]
    if original is not None and not any(each.dtype in _HALF for each in original.parameters()):
        calls.append(("copy-differs-under-attack", "computed by the model that was copied", _evaluated(original)))
        calls.append(("copy-differs-under-attack", "computed by a copy that saw no other image", _fresh(original)))
    reported: set[str] = set()
    for name, x in moved.items():
        few = x[:IMAGES]
        expected = probe.logits(x)[:IMAGES]
        limit = DIFFERS * spread(expected)
        for code, how, call in calls:
            if code in reported:
                continue
            rows = changed(call(few), expected, limit)
            if rows >= min(FEWEST, len(few)):
                reported.add(code)
                fact = f"{how}, logits of {rows} of {len(few)} images differ ({name})"
                yield finding(code, fact, images=rows, of=len(few), where=name, call=how)


def audit_same_gradient(probe: Probe, victim: Victim) -> Iterator[Finding]:
    """Compare the gradient of the copy that is attacked with that of the judge's network, at the probed images."""
    few, y = probe.x[:IMAGES], probe.y[:IMAGES]
    expected = probe.gradient_of(_rise, few, y)
    cosine = F.cosine_similarity(victim.slope(few, y).flatten(1), expected.flatten(1))
    known = expected.flatten(1).abs().amax(1) > 0
    rows = int((known & ~(cosine > SAME_WAY)).sum())
    if rows > len(few) / 2:
        fact = f"on {rows} of {len(few)} images the attacked copy's gradient points elsewhere than the model's"
        yield finding("copy-differs-under-attack", fact, images=rows, of=len(few), call="the attacked copy's gradient")


def _rise(logits: Tensor, y: Tensor) -> Tensor:
    """As `epsbench.harness.run.attack.victim.Victim.slope` has it."""
    return logits.gather(1, y[:, None]).squeeze(1) - logits.mean(1)


_HALF = (torch.float16, torch.bfloat16)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_(True)


def _inner(x: Tensor) -> Tensor:
    return _leaf(x) * 1.0


def _plain(x: Tensor) -> Tensor:
    return x.detach().clone()


def _with_gradients(network: nn.Module, made: Callable[[Tensor], Tensor]) -> Call:
    def call(x: Tensor) -> Tensor:
        with torch.enable_grad():
            return network(made(x)).detach().float()

    return call


def _without_gradients(network: nn.Module) -> Call:
    def call(x: Tensor) -> Tensor:
        with torch.no_grad():
            return network(x).float()

    return call


def _in_batches(network: nn.Module, size: int) -> Call:
    """In batches of exactly ``size``; images are repeated where there are fewer."""

    def call(x: Tensor) -> Tensor:
        few = _without_gradients(network)
        if size >= len(x):
            at = torch.arange(size, device=x.device) % len(x)
            return few(x[at])[: len(x)]
        whole = len(x) // size * size
        rest = few(x[-size:])[size - (len(x) - whole) :]
        return torch.cat([in_chunks(lambda rows: few(x[rows]), whole, size), rest])

    return call


def _fresh(model: nn.Module) -> Call:
    """Each call with a copy of its own, so that none remembers an earlier call, not even one of ``model`` itself."""
    untouched = copy_of(model)

    def call(x: Tensor) -> Tensor:
        return _evaluated(copy_of(untouched))(x)

    return call


def _evaluated(model: nn.Module) -> Call:
    """Calls the user's model in evaluation mode and puts its mode back."""

    def call(x: Tensor) -> Tensor:
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            return _without_gradients(model)(x)
        finally:
            for module, training in modes:
                module.training = training

    return call
