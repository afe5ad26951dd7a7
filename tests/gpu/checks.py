"""What is looked at on the device itself. Each check returns what it measured, and raises where it must not be so."""

from __future__ import annotations

import gc
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.attacks import APGD, FGSM, PGD, Square
from epsbench.attacks.base import Attack
from epsbench.attacks.ddn import DDN
from epsbench.attacks.norms import L2
from epsbench.harness.options import Options
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Record, read_records
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.augmentation import augmentation_of
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.speed.accelerate import Work, accelerate
from epsbench.harness.run.speed.batch_size import find_batch
from epsbench.harness.run.speed.prepare import prepare
from epsbench.harness.run.training.trained import trained
from tests.gpu.kept import Settings

EPS = Fraction(4, 255)
SAME_IN_LOW_PRECISION = 0.02  # of the images may have another verdict
SAME = 0.005

SUITE = """
[robustness]
data = "{data}"
precision = "float32"
limit = {limit}
training = {{ epochs = {epochs}, batch_size = 128, learning_rate = 4e-3 }}
[robustness.matrix]
model = {model}
attack = [
    "noise", "fgsm", {{ name = "pgd", steps = {steps}, random_start = true }}, {{ name = "apgd", steps = {steps} }},
]
eps = ["2/255", "8/255"]
[[robustness.include]]
attack = {{ name = "ddn", steps = {steps} }}
norm = "l2"
eps = 0.5
"""


def tiny_suite(settings: Settings) -> Path:
    """The suite whose model the checks attack: a ResNet-18 on CIFAR-10, or a small network on digits."""
    values = {"data": "cifar10", "limit": 4000, "epochs": 8, "model": '"resnet18"', "steps": 20}
    if settings.tiny:
        values = {"data": "digits", "limit": 120, "epochs": 6, "model": '"smallcnn"', "steps": 3}
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / f"checks-{values['data']}.toml"
    path.write_text(SUITE.format(**values), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Subject:
    """A trained network on the device, with the test images that it classifies correctly."""

    network: nn.Module
    data: Data
    targets: Targets
    device: torch.device

    def engine(self, precision: str = "float32", batch: int = 64, compiled: str = "off") -> Engine:
        victim = prepare(self.network, self.device, precision, *self.targets.batch(32))
        if compiled != "off":
            accelerate(victim, self.targets, batch, Work(10**9, 10**6), compiled)
        return Engine(victim, Judge(self.network, self.device), self.targets, batch, keep=8)


def subject(settings: Settings) -> Subject:
    suite = load_suite(str(tiny_suite(settings)))
    weights, device = settings.out / "weights", torch.device(settings.device)
    cell = plan(suite, settings.out / "checks").jobs[0].cells[0]
    context = Context(settings.out / "checks", weights, device, suite.name, suite.base, boards=False)
    data = context.data(cell.data, cell.limit)
    network, _ = trained(cell, data, context)
    x, y = data.test.pixels(), data.test.labels
    logits = Judge(network, device).logits(x, 256)
    right = (logits.argmax(1) == y).nonzero().flatten()
    return Subject(network, data, Targets(lambda at: x[right[at]], y[right], right, logits[right]), device)


def _fooled(engine: Engine, attack: Attack) -> Tensor:
    (outcome,) = engine.run(attack, [EPS], seed=0)
    return torch.from_numpy(outcome.fooled)


def _run(settings: Settings, name: str, device: str, **options: Any) -> dict[str, Record]:
    suite, results = load_suite(str(tiny_suite(settings))), settings.out / "checks" / name
    chosen = Options(quiet=True, device=device, weights=settings.out / "weights", **options)
    code = run_suite(suite, results, chosen)
    records = {record.id: record for record in read_records(results)}
    bad = [record.failure.message for record in records.values() if record.failure]
    assert code in (0, 1), code
    assert not bad, bad
    assert len(records) == len(suite.cells)
    return records


def verdicts(settings: Settings) -> dict[str, Any]:
    """The share of verdicts that differ from a CPU's, by attack."""
    here, cpu = _run(settings, "device", settings.device), _run(settings, "cpu", "cpu")
    differ = {}
    for identity, record in here.items():
        assert record.verdicts is not None
        other = cpu[identity].verdicts
        assert other is not None
        pairs = zip(record.verdicts.unpack(), other.unpack(), strict=True)
        share = max(float((ours != theirs).mean()) for ours, theirs in pairs)
        differ[f"{record.cell['attack']['name']} {record.cell['eps']}"] = share
    assert max(differ.values()) <= (SAME if settings.cuda else 0), differ
    return {"differ": differ}


def forms(settings: Settings) -> dict[str, Any]:
    """Verdicts and gradients a second of each precision and form, against the plain form in float32."""
    thing, attack = subject(settings), PGD(steps=3 if settings.tiny else 20)
    expected = _fooled(thing.engine(), attack)
    table = {}
    modes = ["off", "auto"] if settings.tiny else ["off", "auto", "on"]
    for precision in ("float32", "bf16"):
        for mode in modes:
            engine = thing.engine(precision, 64 if settings.tiny else 512, mode)
            began = time.perf_counter()
            fooled = _fooled(engine, attack)
            seconds = time.perf_counter() - began
            differ = float((fooled != expected).float().mean())
            findings = [each.code for each in engine.victim.findings]
            table[f"{precision} {mode}"] = {
                "form": engine.victim.form, "differ": differ, "gradients_per_second": engine.victim.backwards / seconds,
                "compile_seconds": engine.victim.compile_seconds, "findings": findings,
            }  # fmt: skip
            assert differ <= (SAME_IN_LOW_PRECISION if precision == "bf16" else SAME), table
            if settings.cuda and mode == "on":
                assert "compiled" in engine.victim.form, table
                assert "CUDA graph" in engine.victim.form, table
    return table


class Narrow(nn.Module):
    """A network that runs out of memory above a number of rows, of which some have a gradient."""

    def __init__(self, network: nn.Module, rows: int) -> None:
        super().__init__()
        self.network, self.rows = network, rows

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.rows:
            raise torch.OutOfMemoryError(f"no memory for {len(x)} rows")
        return self.network(x)


def out_of_memory(settings: Settings) -> dict[str, Any]:
    """Memory runs out while images are judged, while forms are timed, and while each kind of attack runs."""
    thing = subject(settings)
    attacks: dict[str, Attack] = {
        "fgsm": FGSM(), "pgd": PGD(steps=3, restarts=2, random_start=True), "apgd": APGD(steps=3),
        "square": Square(steps=5), "ddn": DDN(steps=3, norm=L2()),
    }  # fmt: skip
    expected = {name: _fooled(thing.engine(), attack) for name, attack in attacks.items()}
    sizes = {}
    for rows in (40, 9, 4):
        narrow = replace(thing, network=Narrow(thing.network, rows).eval())
        logits = Judge(narrow.network, thing.device).logits(thing.targets.pixels(slice(0, 64)), 64)  # type: ignore[arg-type]
        assert torch.equal(logits.argmax(1), thing.targets.labels[:64])
        victim = prepare(narrow.network, thing.device, "float32", *thing.targets.batch(min(rows, 32)))
        assert find_batch(victim, thing.targets, 10**6) <= max(rows, 16)
        for name, attack in attacks.items():
            engine = Engine(victim, Judge(narrow.network, thing.device), thing.targets, 64, keep=8)
            assert torch.equal(_fooled(engine, attack), expected[name]), (rows, name)
            sizes[f"{name}, {rows} rows"] = engine.batch
            assert engine.batch <= 64
    return {"batch_after": sizes}


def memory_limit(settings: Settings) -> dict[str, Any]:
    """With a quarter of a gibibyte more than is held, thousands of rows do not fit: fewer end at the same verdicts."""
    thing, attack = subject(settings), PGD(steps=10)
    expected = _fooled(thing.engine(batch=128), attack)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(thing.device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (256 << 20)) / total)
    try:
        engine = thing.engine(batch=len(thing.targets))
        differ = float((_fooled(engine, attack) != expected).float().mean())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert differ <= SAME
    assert engine.batch < len(thing.targets), "memory did not run out"
    return {"batch_before": len(thing.targets), "batch_after": engine.batch, "differ": differ}


def polling(settings: Settings) -> dict[str, Any]:
    """How often the host waits for the device, a step."""
    thing, steps = subject(settings), 40
    engine = thing.engine(batch=256)
    attack = PGD(steps=steps)
    _fooled(engine, attack)  # kernels are chosen at the first call
    before = engine.victim.backwards
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _fooled(engine, attack)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(each.message) for each in caught)
    turns = (engine.victim.backwards - before) / engine.batch
    assert waits <= turns, f"the host waited {waits} times in about {turns:.0f} steps"
    return {"waits": waits, "steps": turns, "poll": engine.poll}


def memory_growth(settings: Settings) -> dict[str, Any]:
    """Memory after every tenth of many attacks; the last may hold no more than the first, but for the allocator's."""
    thing, count = subject(settings), 10 if settings.tiny else 100
    used = []
    for number in range(count):
        _fooled(thing.engine(batch=64), PGD(steps=2, random_start=True))
        if number % max(1, count // 10) == 0:
            gc.collect()
            used.append(_used(thing.device))
    slack = 1 << 20 if settings.cuda else 64 << 20  # a process's memory moves in larger steps than a device's
    assert used[-1] - used[2] <= slack, used
    return {"bytes": used}


def _used(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def streaming(settings: Settings) -> dict[str, Any]:
    """Images a second that are picked, augmented and made floats on the device, and that the network trains on."""
    thing, batch = subject(settings), 128
    train, augment = thing.data.train, augmentation_of("crop-flip", settings.out)
    generator = torch.Generator(device=thing.device).manual_seed(0)
    network = thing.network.train()

    def pick() -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(train), (batch,), device=thing.device, generator=generator)
        return augment(train.pixels(rows), generator), train.labels[rows]

    x, y = pick()

    def step() -> None:
        network.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()

    picks, steps = _rate(pick, thing.device, settings), _rate(step, thing.device, settings)
    return {"picked_per_second": batch * picks, "trained_per_second": batch * steps, "share_of_data": steps / picks}


def _rate(call: Callable[[], object], device: torch.device, settings: Settings) -> float:
    """Calls a second."""
    call()
    seconds, calls = 0.2 if settings.tiny else 3.0, 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()
        calls += 1
        if device.type == "cuda" and calls % 16 == 0:
            torch.cuda.synchronize(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return calls / (time.perf_counter() - began)


def devices(settings: Settings) -> dict[str, Any]:
    """The records of one device, by all of them together."""
    count = max(2, torch.cuda.device_count()) if not settings.cuda else torch.cuda.device_count()
    if count < 2:
        return {"devices": count}
    alone = _run(settings, "alone", settings.device, threads=1, batch_size=16)
    shared = _run(settings, "shared", settings.device, threads=1, batch_size=16, devices=count)
    for identity, record in shared.items():
        assert record.verdicts == alone[identity].verdicts, record.cell
    return {"devices": count, "shards": {record.id: len(record.shards) for record in shared.values()}}
