"""AutoAttack and its parts through epsbench and through torchattacks: robust accuracy, seconds and their ratio.

    python -m tests.benchmarks.autoattack --images 200 --parts apgd-ce apgd-t square

Each part is run on the same images, all of which the model has right, at the suite's largest ε: the two take turns, and
the ratio is the median over rounds. ``whole`` is the ensemble, each part on what withstood those before it.
torchattacks gets 100 steps a part and the schedule of AutoAttack, at the batch size that suits it best.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn

from epsbench.attacks import Attack, AutoAttack
from epsbench.harness.run.machine.environment import describe
from epsbench.harness.run.machine.memory import keep_freed
from tests.benchmarks.contestants import make_engine
from tests.benchmarks.networks import Bench, Chosen

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


def timed(run: Callable[[], float]) -> tuple[float, float]:
    """Robust accuracy, and the seconds it took: on a CPU those of the processor, whatever else runs on the machine."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    robust = run()
    return robust, clock() - started


def compare(name: str, bench: Bench, eps: Fraction, rounds: int) -> list[dict[str, object]]:
    """One line a precision for a part, or for the whole."""
    attack = AutoAttack() if name == "whole" else PARTS[name]
    parts = list(PARTS) if name == "whole" else [name]
    batch = min(BATCHES, key=lambda size: timed(lambda: run_theirs(["apgd-ce"], bench, eps, size))[1])
    runs: dict[str, list[tuple[float, float]]] = {"theirs": [], "float32": [], "bf16": []}
    for _ in range(rounds):
        runs["theirs"].append(timed(lambda: run_theirs(parts, bench, eps, batch)))
        for precision in ("float32", "bf16"):
            runs[precision].append(timed(lambda p=precision: run_ours(attack, bench, eps, p)))  # type: ignore[misc]
    lines = []
    for precision in ("float32", "bf16"):
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
    given = parser.parse_args()
    device = torch.device(given.device)
    if given.threads:
        torch.set_num_threads(given.threads)
    keep_freed(device)
    weights = given.weights or Path("results") / Path(given.suite).stem / "weights"
    chosen = Chosen(given.suite, tuple(given.defenses), weights, given.images, 1, given.largest)
    lines: list[dict[str, object]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for bench in chosen.build(device):
            for part in given.parts:
                lines += compare(part, bench, bench.eps[-1], given.rounds)
    print(f"{given.images} images a network, {given.rounds} rounds, {describe(device)['device']['name']}")
    print(tabulate(lines, headers="keys", floatfmt=".3g"))


if __name__ == "__main__":
    main()
