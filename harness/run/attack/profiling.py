"""A profiler trace of an attack, from a short run of its own; no recorded number comes from it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, tensorboard_trace_handler

from epsbench.attacks.base import Attack
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.run.attack.engine import Engine

_LONGEST_NAME = 120  # bytes, well below what file systems allow
_BATCHES = 2  # of rows, so that the trace shows slots being refilled


def profile_attack(engine: Engine, attack: Attack, cell: RobustnessCell, results: Path) -> Path:
    """Write ``RESULTS/profiles/<model, defense, attack>/*.pt.trace.json``, for TensorBoard and Perfetto."""
    rows = min(len(engine.targets), _BATCHES * engine.batch)
    source = f"-from-{cell.source.trained_label()}" if cell.source else ""
    text = f"{cell.model.name}-{cell.defense.name}-{cell.attack.label()}-{cell.norm}{source}"
    label = _folder_name(text)
    folder = results / "profiles" / label
    targets = engine.targets.subset(torch.arange(rows, device=engine.targets.labels.device))
    if any(each.name == "restarts" and each.init for each in fields(attack)):
        attack = replace(attack, restarts=1)  # type: ignore[call-arg]
    activities = [ProfilerActivity.CPU]
    if engine.victim.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    short = Engine(engine.victim, engine.judge, targets, engine.batch, poll=engine.poll)
    ready = tensorboard_trace_handler(str(folder))
    # There is one cycle, so all its events are kept in any case. torch 2.11 warns unless it is asked for that.
    with profile(activities=activities, on_trace_ready=ready, profile_memory=True, acc_events=True):
        with record_function(f"epsbench:{cell.attack.label()}"):
            list(short.run(attack, [cell.eps], seed=cell.seed, early_stop=False))
        if engine.victim.device.type == "cuda":
            torch.cuda.synchronize()
    return folder


def _folder_name(text: str) -> str:
    """A folder's name made of some text; of a long one its beginning, with a digest of the whole."""
    plain = re.sub(r"[^\w.=-]+", "_", text, flags=re.ASCII)
    if len(plain) <= _LONGEST_NAME:
        return plain
    return f"{plain[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
