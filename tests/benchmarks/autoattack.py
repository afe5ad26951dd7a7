"""AutoAttack and its parts through epsbench and through torchattacks: robust accuracy, seconds and their ratio.

    python -m tests.benchmarks.autoattack --images 200 --parts apgd-ce apgd-t square

Each part is run on the same images, all of which the model has right, at the suite's largest ε: the two take turns, and
the ratio is the median over rounds. ``whole`` is the ensemble, each part on what withstood those before it.
torchattacks gets 100 steps a part and the schedule of AutoAttack, at the batch size that suits it best.

With one thread, seconds are those of the processor, whatever else runs on the machine. With more they are those of the
clock, and the machine must be quiet. ``--devices 2`` compares two processes of epsbench, with a thread each and half
of the images, with two threads of torchattacks:

    python -m tests.benchmarks.autoattack --images 1000 --parts whole --devices 2
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn

from epsbench.attacks import Attack, AutoAttack
from epsbench.harness.run.machine.environment import describe
from epsbench.harness.run.machine.memory import keep_freed
from tests.benchmarks.contestants import make_engine
from tests.benchmarks.networks import Bench, Chosen, precisions

PARTS = dict(AutoAttack().members(10))
BATCHES = (64, 256)


def theirs(part: str, model: nn.Module, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    """torchattacks' own form of a part."""
    import torchattacks

    if part == "apgd-ce":
        return torchattacks.APGD(model, eps=eps, steps=100, loss="ce")
    if part == "apgd-t":
        return torchattacks.APGDT(model, eps=eps, steps=100, n_classes=10)
    if part == "fab-t":
        return torchattacks.FAB(model, eps=eps, steps=100, multi_targeted=True, n_classes=10)
    square = torchattacks.Square(model, eps=eps, n_queries=5_000)
    square.rescale_schedule = False
    return square


def run_theirs(parts: list[str], bench: Bench, eps: Fraction, batch: int) -> float:
    """Robust accuracy after these parts, each on what withstood those before it."""
    left_x, left_y = bench.x, bench.y
    for part in parts:
        attack, stands = theirs(part, bench.model, float(eps)), []
        for x, y in zip(left_x.split(batch), left_y.split(batch), strict=True):
            images = attack(x, y)
            inside = (images - x).flatten(1).abs().amax(1) <= float(eps) + 1e-6
            with torch.no_grad():
                stands.append((bench.model(images).argmax(1) == y) | ~inside)
        keep = torch.cat(stands)
        left_x, left_y = left_x[keep], left_y[keep]
        if not len(left_y):
            break
    return len(left_y) / len(bench.y)


def run_ours(attack: Attack, bench: Bench, eps: Fraction, precision: str) -> float:
    """From the bare model to the verdicts."""
    one = Bench(bench.name, bench.model, bench.x, bench.y, [eps])
    (outcome,) = make_engine(one, attack, precision, 0).run(attack, [eps], seed=0)
    return 1 - float(outcome.fooled.mean())


def run_shared(pool: Executor, processes: int, attack: Attack, bench: Bench, eps: Fraction, precision: str) -> float:
    """As `run_ours`, by several processes: each attacks every so many of the images."""
    shares = [replace(bench, x=bench.x[first::processes], y=bench.y[first::processes]) for first in range(processes)]
    work = [pool.submit(run_ours, attack, share, eps, precision) for share in shares]
    robust = [future.result() * len(share.y) for future, share in zip(work, shares, strict=True)]
    return sum(robust) / len(bench.y)


def one_of_several() -> None:
    """Prepare a process that attacks beside others."""
    torch.set_num_threads(1)
    keep_freed(torch.device("cpu"))
    warnings.simplefilter("ignore")


def timed(run: Callable[[], float]) -> tuple[float, float]:
    """Robust accuracy, and the seconds it took: those of the processor where one thread of a CPU computes."""
    alone = not torch.cuda.is_available() and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    started = clock()
    robust = run()
    return robust, clock() - started


def compare(
    name: str, bench: Bench, eps: Fraction, rounds: int, pool: Executor | None = None, processes: int = 1
) -> list[dict[str, object]]:
    """One line a precision for a part, or for the whole; epsbench in the ``processes`` of the pool, if there is one."""

    def ours(precision: str) -> float:
        if pool is None:
            return run_ours(attack, bench, eps, precision)
        return run_shared(pool, processes, attack, bench, eps, precision)

    attack = AutoAttack() if name == "whole" else PARTS[name]
    parts = list(PARTS) if name == "whole" else [name]
    batch = min(BATCHES, key=lambda size: timed(lambda: run_theirs(["apgd-ce"], bench, eps, size))[1])
    compared = precisions(bench.x.device)
    runs: dict[str, list[tuple[float, float]]] = {each: [] for each in ("theirs", *compared)}
    for _ in range(rounds):
        runs["theirs"].append(timed(lambda: run_theirs(parts, bench, eps, batch)))
        for precision in compared:
            runs[precision].append(timed(lambda p=precision: ours(p)))  # type: ignore[misc]
    lines = []
    for precision in compared:
        ratios = [a[1] / b[1] for a, b in zip(runs["theirs"], runs[precision], strict=True)]
        lines.append(
            {"model": bench.name, "eps": str(eps), "attack": name, "precision": precision,
             "robust": runs[precision][-1][0], "torchattacks": runs["theirs"][-1][0],
             "seconds": statistics.median(s for _, s in runs[precision]),
             "torchattacks s": statistics.median(s for _, s in runs["theirs"]),
             "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        )  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=[*PARTS, "whole"], choices=[*PARTS, "whole"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--suite", default="mnist", help="whose networks are attacked, at its largest ε")
    parser.add_argument("--defenses", nargs="+", default=["pgd-batch"], help="which of them")
    parser.add_argument("--largest", type=Fraction, help="at this ε instead, such as 2/255")
    parser.add_argument("--threads", type=int, help="as many threads; default: as torch chooses")
    parser.add_argument("--weights", type=Path, help="where the trained networks are; default results/SUITE/weights")
    parser.add_argument("--devices", type=int, default=1, help="so many processes of epsbench on a CPU; see above")
    given = parser.parse_args()
    device = torch.device(given.device)
    if given.devices > 1 and (given.threads or device.type != "cpu"):
        parser.error("--devices is for a CPU, and gives torchattacks as many threads: leave --threads out")
    if given.threads or given.devices > 1:
        torch.set_num_threads(given.threads or given.devices)
    keep_freed(device)
    weights = given.weights or Path("results") / Path(given.suite).stem / "weights"
    chosen = Chosen(given.suite, tuple(given.defenses), weights, given.images, 1, given.largest)
    lines: list[dict[str, object]] = []
    spawn, pool = multiprocessing.get_context("spawn"), nullcontext()
    if given.devices > 1:
        pool = ProcessPoolExecutor(given.devices, mp_context=spawn, initializer=one_of_several)
    with warnings.catch_warnings(), pool as processes:
        warnings.simplefilter("ignore")
        for bench in chosen.build(device):
            if processes is not None:  # both start and import before any is timed
                small = replace(bench, x=bench.x[:8], y=bench.y[:8])
                run_shared(processes, given.devices, PARTS["apgd-ce"], small, bench.eps[-1], "float32")
            for part in given.parts:
                lines += compare(part, bench, bench.eps[-1], given.rounds, processes, given.devices)
    print(f"{given.images} images a network, {given.rounds} rounds, {describe(device)['device']['name']}")
    print(tabulate(lines, headers="keys", floatfmt=".3g"))


if __name__ == "__main__":
    main()
