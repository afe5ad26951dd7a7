"""Memory: chunks that shrink, a peak that is the network's own, and no growth from attack to attack."""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from epsbench.attacks.pgd import PGD
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import in_chunks, is_out_of_memory, keep_freed, peak_bytes, release, reset_peak
from epsbench.harness.run.speed.program.program import Program

CPU = torch.device("cpu")
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux alone")
glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has these settings")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("most", [1, 3, 8, 100])
def test_chunks_cover_everything_once_however_small_they_become(most):
    calls = []

    def rows(part: slice) -> torch.Tensor:
        if part.stop - part.start > most:
            raise torch.OutOfMemoryError
        calls.append(part.stop - part.start)
        return torch.arange(part.start, part.stop)

    assert in_chunks(rows, 21, 16).tolist() == list(range(21))
    assert max(calls) <= most


def test_chunks_of_nothing_and_errors_that_are_no_lack_of_memory():
    assert in_chunks(lambda part: torch.zeros(part.stop - part.start), 0, 4).tolist() == []
    with pytest.raises(RuntimeError, match="planted"):
        in_chunks(lambda part: (_ for _ in ()).throw(RuntimeError("planted")), 8, 4)


def wide() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.Tanh(), nn.Conv2d(32, 32, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()


def rows_of(model: nn.Module, n: int) -> Targets:
    x = torch.rand(n, 3, 32, 32)
    with torch.no_grad():
        y = torch.cat([model(part).argmax(1) for part in x.split(64)])
    return Targets(lambda at: x[at], y, torch.arange(n))


def resident() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def _peaks(form: str) -> tuple[int, int]:
    """Peak bytes of a bare gradient of 256 rows, and of an attack in batches of as many.

    Every block of 64 KiB or more is a mapping of its own here, so that what is resident is what is alive: where the
    heap of a process that has done other things happens to have holes is not the engine's doing.
    """
    assert ctypes.CDLL(None).mallopt(-3, 2**16)
    model, batch = wide(), 256
    targets = rows_of(model, 2 * batch)
    victim = Victim(frozen_copy(model, CPU), CPU, "float32", "plain")
    x, y = targets.pixels(torch.arange(batch)), targets.labels[:batch]
    if form == "program":
        victim.program = Program(victim.bare_logits, x[:5], y[:5])
    attack = PGD(steps=3, random_start=True)

    def measured(call: Callable[[], object]) -> int:
        call()  # kernels and allocator pools are there from now on
        reset_peak(CPU)
        before = resident()
        call()
        return peak_bytes(CPU) - before

    bare = measured(lambda: victim.bare_gradient(x, y))
    engine = Engine(victim, Judge(model, CPU), targets, batch)
    return bare, measured(lambda: list(engine.run(attack, [Fraction(1, 1000)], seed=0)))


@linux
@glibc
@pytest.mark.parametrize("form", ["plain", "program"])
def test_the_peak_is_the_networks_own_and_the_rows(form):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        bare, whole = pool.apply(_peaks, [form])
    data = 4 * 256 * 3 * 32 * 32 * 4  # x and x_adv in slots, waiting and refilled
    assert bare > 96 * 2**20  # three activations of 32 MiB at least
    assert whole <= 1.3 * bare + data, f"{whole / 2**20:.0f} MiB against {bare / 2**20:.0f} MiB bare"


@linux
def test_memory_is_flat_over_a_hundred_attacks(network, digits):
    x, y = digits
    targets = Targets.of(x, y)
    judge = Judge(network, CPU)
    sizes = []
    for _ in range(100):
        victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
        small = Targets(targets.pixels, targets.labels[:64], targets.index[:64])
        list(Engine(victim, judge, small, 32, keep=8).run(PGD(steps=2), [Fraction(1, 10)], seed=0))
        sizes.append(resident())
    assert sizes[-1] - sizes[20] < 4 * 2**20


def _temporaries() -> tuple[int, int, int]:
    """How many pages ten rounds of temporaries request; the resident bytes after them, and after `release`."""
    assert keep_freed(CPU)

    def round_of() -> None:
        blocks = [torch.ones(30 * 2**18) for _ in range(4)]
        del blocks

    for _ in range(3):
        round_of()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        round_of()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    kept = resident()
    release()
    return faults, kept, resident()


@linux
@glibc
def test_freed_memory_is_kept_until_it_is_released():
    # In a process of its own: what is set cannot be unset. Left alone, glibc mostly asks for all 307,200 pages again,
    # but now and then for none, by where its heap happens to end: nothing to compare with.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        faults, kept, left = pool.apply(_temporaries)
    assert faults < 3000
    assert kept - left > 100 * 2**20


def test_elsewhere_than_on_a_cpu_nothing_is_set(monkeypatch):
    monkeypatch.setattr("epsbench.harness.run.machine.memory.ctypes.CDLL", lambda name: pytest.fail("asked"))
    assert keep_freed(torch.device("cuda")) is False


def test_a_system_without_glibc_goes_on_as_before(monkeypatch):
    monkeypatch.setattr("epsbench.harness.run.machine.memory.ctypes.CDLL", lambda name: object())
    assert keep_freed(CPU) is False
    release()


def test_chunks_do_not_outlive_their_turn():
    alive: list[weakref.ref] = []

    def rows(where: slice) -> torch.Tensor:
        assert not any(ref() is not None for ref in alive)
        part = torch.arange(where.start, where.stop, dtype=torch.float64)[:, None] * torch.ones(2)
        alive.append(weakref.ref(part))
        return part

    whole = in_chunks(rows, 10, 3)
    assert torch.equal(whole, torch.arange(10.0, dtype=torch.float64)[:, None] * torch.ones(2))
    assert len(alive) == 4
    assert in_chunks(lambda where: torch.zeros(0, 5), 0, 3).shape == (0, 5)
