"""Attacks for the smallest distance through epsbench and through the libraries that have them.

    python -m tests.benchmarks.smallest --images 64 --rounds 3 --threads 1

Everyone attacks the same images, which the model has right: the libraries with the steps of the papers, or fewer,
epsbench with those that it takes by default. The seconds include the verdicts, and epsbench's the preparation of the
model, too. The ratio is that to the fastest library of the same round; a second line an attack has the fewest steps, of
those tried, with which epsbench comes as near as the nearest library at its median.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from epsbench.attacks import FABT
from epsbench.attacks.base import Attack
from epsbench.attacks.cw import CW
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.fmn import FMN
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pdpgd import PDPGD
from epsbench.attacks.sigma_zero import SigmaZero
from epsbench.harness.run.machine.environment import describe
from epsbench.harness.run.machine.memory import keep_freed
from tests.benchmarks.contestants import make_engine
from tests.benchmarks.networks import Bench, Chosen, precisions

Library = Callable[[nn.Module, Tensor, Tensor], Tensor]
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)  # of the steps, tried for the second line


def adv_lib(name: str, **options: Any) -> Library:
    """An attack of adv-lib. Its logger, which needs a package that does not install everywhere, is replaced."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logger: Any = ModuleType("adv_lib.utils.visdom_logger")
        logger.VisdomLogger = object
        sys.modules.setdefault(logger.__name__, logger)
        import adv_lib.attacks

        return getattr(adv_lib.attacks, name)(model, x, y, **options).detach()

    return run


def foolbox(name: str, **options: Any) -> Library:
    """An attack of Foolbox."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        attack = getattr(foolbox.attacks, name)(**options)
        return attack.run(wrapped, x, foolbox.criteria.Misclassification(y))

    return run


@dataclass(frozen=True)
class Work:
    """An attack of ours, and the same attack of libraries, by the library's name."""

    attack: Attack
    libraries: dict[str, Library]


WORKS = {
    "ddn": Work(DDN(), {
        "adv-lib": adv_lib("ddn", steps=100, levels=None), "foolbox": foolbox("DDNAttack", steps=100),
    }),
    "fmn-linf": Work(FMN(norm=NORMS["linf"]), {
        "adv-lib": adv_lib("fmn", steps=100, norm=math.inf, α_init=10.0),
        "foolbox": foolbox("LInfFMNAttack", steps=100),
    }),
    "fmn-l2": Work(FMN(norm=NORMS["l2"]), {
        "adv-lib": adv_lib("fmn", steps=100, norm=2), "foolbox": foolbox("L2FMNAttack", steps=100),
    }),
    "fmn-l1": Work(FMN(norm=NORMS["l1"]), {
        "adv-lib": adv_lib("fmn", steps=100, norm=1), "foolbox": foolbox("L1FMNAttack", steps=100),
    }),
    "deepfool-l2": Work(DeepFool(norm=NORMS["l2"]), {
        "adv-lib": adv_lib("df", steps=50, norm=2), "foolbox": foolbox("L2DeepFoolAttack", steps=50),
    }),
    "deepfool-linf": Work(DeepFool(norm=NORMS["linf"]), {
        "adv-lib": adv_lib("df", steps=50, norm=math.inf), "foolbox": foolbox("LinfDeepFoolAttack", steps=50),
    }),
    "cw": Work(CW(), {
        "adv-lib": adv_lib("carlini_wagner_l2", max_iterations=100),
        "foolbox": foolbox("L2CarliniWagnerAttack", steps=100),
    }),
    # With the step size of their papers, 100 steps leave black and white pixels where they are.
    "cw-large-steps": Work(CW(), {
        "adv-lib": adv_lib("carlini_wagner_l2", max_iterations=100, learning_rate=0.1),
        "foolbox": foolbox("L2CarliniWagnerAttack", steps=100, stepsize=0.1),
    }),
    "pdpgd": Work(PDPGD(), {"adv-lib": adv_lib("pdpgd", norm=1, num_steps=500)}),
    "sigma-zero": Work(SigmaZero(), {"adv-lib": adv_lib("sigma_zero", num_steps=300)}),
    "fab-t": Work(FABT(goal="smallest", norm=NORMS["l2"]), {
        "adv-lib": adv_lib("fab", norm=2, n_iter=100, targeted_restarts=True),
    }),
}  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """The median distance, and the seconds it took."""

    median: float
    seconds: float


def timed(run: Callable[[], Tensor]) -> Timed:
    """``run`` gives distances (n,). On a CPU the seconds are the processor's, whatever else runs on the machine."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    distances = run()
    return Timed(float(distances.median()), clock() - started)


def theirs(library: Library, work: Work, bench: Bench) -> Tensor:
    """The distance of every image, ∞ where the library's image does not fool."""
    images = library(bench.model, bench.x, bench.y)
    with torch.no_grad():
        fools = bench.model(images).argmax(1) != bench.y
    return work.attack.norm.size(images - bench.x).where(fools, torch.inf)


def ours(attack: Attack, bench: Bench, precision: str) -> Tensor:
    """From the bare model to the distances."""
    one = Bench(bench.name, bench.model, bench.x, bench.y, [Fraction(1)])
    (outcome,) = make_engine(one, attack, precision, 0).run(attack, [Fraction(1)], seed=0)
    return torch.from_numpy(outcome.distances)


def fewest_steps(work: Work, bench: Bench, median: float) -> Attack:
    """Our attack with the fewest steps of those tried that comes as near as this median distance."""
    steps = work.attack.budget()
    for share in SHARES:
        shorter = replace(work.attack, steps=math.ceil(share * steps))
        if float(ours(shorter, bench, "float32").median()) <= median:
            return shorter
    return work.attack


def compare(name: str, bench: Bench, rounds: int, only: str = "", shorter: bool = True) -> list[dict[str, object]]:
    """A line a precision, and another for the fewest steps with which epsbench is as near, where ``shorter``.

    ``only`` is the library to compare with; the default is all.
    """
    work = WORKS[name]
    if only:
        work = replace(work, libraries={only: work.libraries[only]})
    runs = {library: [timed(partial(theirs, run, work, bench))] for library, run in work.libraries.items()}
    nearest = min(each[0].median for each in runs.values())
    kinds = [work.attack, *([fewest_steps(work, bench, nearest * 1.001)] if shorter else [])]
    own: dict[tuple[Attack, str], list[Timed]] = {
        (k, precision): [] for k in kinds for precision in precisions(bench.x.device)
    }
    for _ in range(rounds):
        for library, run in work.libraries.items():
            runs[library].append(timed(partial(theirs, run, work, bench)))
        for (attack, precision), times in own.items():
            times.append(timed(partial(ours, attack, bench, precision)))
    later = {library: times[1:] for library, times in runs.items()}  # the first were a warm-up
    lines = []
    for (attack, precision), times in own.items():
        ratios = [min(each[i].seconds for each in later.values()) / times[i].seconds for i in range(rounds)]
        fastest = min(later, key=lambda library: statistics.median(t.seconds for t in later[library]))
        lines.append(
            {"attack": name, "steps": attack.budget(), "precision": precision, "median": times[-1].median,
             **{f"{library} median": each[-1].median for library, each in later.items()},
             "seconds": statistics.median(t.seconds for t in times), "fastest": fastest,
             "its seconds": statistics.median(t.seconds for t in later[fastest]),
             "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        )  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attacks", nargs="+", default=list(WORKS), choices=list(WORKS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--suite", default="mnist", help="whose network is attacked")
    parser.add_argument("--defenses", nargs="+", default=["pgd-batch"], help="which of its networks")
    parser.add_argument("--threads", type=int, help="as many threads; default: as torch chooses")
    parser.add_argument("--weights", type=Path, help="where the trained networks are; default results/SUITE/weights")
    parser.add_argument("--library", default="", help="the only library to compare with; default: all")
    parser.add_argument("--as-they-are", action="store_true", help="look for no smaller number of steps")
    given = parser.parse_args()
    device = torch.device(given.device)
    if given.threads:
        torch.set_num_threads(given.threads)
    keep_freed(device)
    weights = given.weights or Path("results") / Path(given.suite).stem / "weights"
    lines: list[dict[str, object]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for bench in Chosen(given.suite, tuple(given.defenses), weights, given.images, 1).build(device):
            for name in given.attacks:
                new = compare(name, bench, given.rounds, given.library, not given.as_they_are)
                lines += new
                print(
                    tabulate([{"network": bench.name} | each for each in new], headers="keys", floatfmt=".3g"),
                    flush=True,
                )
    print(f"{given.images} images a network, {given.rounds} rounds, {describe(device)['device']['name']}")
    print(tabulate(lines, headers="keys", floatfmt=".3g"))


if __name__ == "__main__":
    main()
