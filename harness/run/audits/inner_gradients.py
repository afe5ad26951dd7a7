"""Finds models that take gradients inside forward(): they optimise something for each image."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.probe import Probe

FEW = 2  # images of the pass that is watched


def audit_inner_gradients(probe: Probe) -> Iterator[Finding]:
    """Watch one pass through the model for backward passes, however they are called."""
    with backward_passes() as seen, torch.no_grad():
        probe.judge.function(probe.x[:FEW])
    if seen:
        fact = f"forward() takes {len(seen)} gradients on its way to the logits"
        yield finding("optimises-at-inference", fact, gradients=len(seen))


@contextmanager
def backward_passes() -> Iterator[list[str]]:
    """A list that gets an entry for each backward pass that this thread begins.

    `torch.autograd.grad`, `backward` and `torch.func.grad` all begin one in these two functions of `torch.autograd`,
    under whatever name a model knows them.
    """
    watched = _codes(torch.autograd.grad, torch.autograd.backward)
    seen: list[str] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in watched:
            seen.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def _codes(*functions: Callable[..., Any]) -> frozenset[CodeType]:
    return frozenset(function.__code__ for function in functions)
