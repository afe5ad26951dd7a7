"""``epsbench audit``: the audits of a model on its own, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from epsbench.harness.errors import FAILURES, InputError, first_line
from epsbench.harness.findings import Finding, voids
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.names import registry
from epsbench.harness.plan.names.data import read_data
from epsbench.harness.plan.one_word import Entry, parsed
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.audits.auditor import Auditor
from epsbench.harness.run.audits.fresh_process import recipe_of_name
from epsbench.harness.run.audits.gradients import zero_gradients
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.environment import choose_device
from epsbench.harness.run.speed.prepare import prepare
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.trial import Use, refusal
from epsbench.models.base import Architecture, DataShape

IMAGES = 128
# By kind of device. A CPU is left out of fp16, which takes it fifty times as long.
PRECISIONS = {"cpu": ("float32", "bf16"), "cuda": ("float32", "bf16", "fp16")}


def audit_alone(
    model: Entry,
    data: str,
    *,
    precision: str = "auto",
    device: str | None = None,
    data_root: Path | None = None,
) -> tuple[int, str]:
    """The exit code (1 where a finding voids the model's numbers, else 0) and the findings as text.

    ``model`` is named as in a suite, and ``data`` in one word, relative to the current folder. The text lists the share
    of zero gradients in every precision that suits the device, and findings for ``precision`` only.

    Raises `InputError` when the model, its weights or the data cannot be used.
    """
    here, chosen = Path.cwd(), choose_device(device)
    context = Context(here, here, chosen, suite="", base=here, data_root=data_root)
    everything = context.data(read_data(parsed(data), here), None)
    examples, description = everything.test, everything.description
    named = registry.name_with_parameters("model", model, context.base)
    label, build = named.label(), _builder(named, description, context)
    if problem := refusal(label, build, everything, Use(batch=IMAGES)):
        raise InputError(problem)
    rows = torch.arange(min(IMAGES, len(examples)), device=context.device)
    x, y = examples.pixels(rows), examples.labels[rows]
    try:
        network = build().eval()
        judge = Judge(network, context.device)
        logits = judge.logits(x, len(x))
        recipe = recipe_of_name(named, description, context)
        auditor = Auditor(Probe(judge, x, y, len(x)), description, network, everything, recipe)
        findings = [*context.precision_findings(precision), *auditor.model(logits, y)]
        if not voids(findings):
            findings += _in_every_precision(auditor, network, context.precision(precision))
    except InputError:
        raise
    # The model is the user's code and may raise anything, or even try to exit.
    except FAILURES as error:
        reason = first_line(error) if str(error) else type(error).__name__
        raise InputError(f"model {label!r} cannot be audited on {data}: {reason}") from error
    right = int((logits.argmax(1) == y).sum())
    head = f"{label} on {len(x)} test images of {data}: {right} right"
    shares = [f"  gradients of exactly 0 in {name}: {share:.1%}" for name, share in auditor.shares.items()]
    lines = [f"{finding.severity:>7}  {finding.code}: {finding.message}" for finding in findings] or ["no findings"]
    return (1 if voids(findings) else 0), "\n".join([head, *shares, *lines])


def _builder(model: Named, shape: DataShape, context: Context) -> Callable[[], nn.Module]:
    """A function that builds the model, on the device. Raises `InputError` for what is no model."""
    architecture = registry.make("model", model, context.base)
    if not isinstance(architecture, Architecture):
        raise InputError(f"model {model.label()!r} is no classifier, and only classifiers can be audited")

    def build() -> nn.Module:
        architecture.check(shape)
        network: nn.Module = seeded(lambda: architecture.build(shape), 0)
        return network.to(context.device)

    return build


def _in_every_precision(auditor: Auditor, network: nn.Module, attacked: str) -> list[Finding]:
    """Findings about forms and precisions that the model cannot run in, and about gradients that precision loses."""
    probe = auditor.probe
    victim = prepare(network, probe.judge.device, attacked, probe.x[:64], probe.y[:64])
    findings = [*victim.findings, *auditor.in_depth(victim)]
    if not auditor.shares:  # it has no gradient, which a finding says
        return findings
    for precision in dict.fromkeys((*PRECISIONS[probe.judge.device.type], victim.precision)):
        with suppress(RuntimeError):  # it cannot run in that precision, which is then not the chosen one
            auditor.precision(victim, precision)
    return [*findings, *zero_gradients(auditor.shares, victim.precision)]
