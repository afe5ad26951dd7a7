"""What `epsbench.evaluate` costs beside its engine alone: processor seconds of both, and how much more the first takes.

    python -m tests.benchmarks.evaluate --cases conv6 smallcnn --images 1000 --rounds 3

Each round of a case is two fresh processes, one for each way, in turns. Each process makes two calls on the same
model: in the second, imports and what is remembered of the model are there already. The package's bytecode is written
before, as an installation does. The engine alone goes from the bare
model to the verdicts: the clean images are judged, the fast forms are tried, and images that are right are attacked.
Seconds are those of the processor, user and system, with those of child processes; torch is imported before.
"""

from __future__ import annotations

import argparse
import compileall
import multiprocessing
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.attacks.autoattack import AutoAttack
from epsbench.attacks.base import Attack
from epsbench.attacks.pgd import PGD
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.data.load import load_data
from epsbench.models.catalogue import ResNet18, SmallCNN
from tests.benchmarks.conv6 import Conv6

WAYS = ("evaluate", "engine")


@dataclass(frozen=True)
class Case:
    """A model on a data set, and how it is attacked."""

    data: str
    build: Callable[[], nn.Module]
    attack: Attack
    eps: str
    train: int
    """The number of images of its training: three epochs, each image moved at random and by one step of FGSM.

    0: the network stays as it is built, and its own answers are the labels.
    """


CASES = {
    "conv6": Case("cifar10", Conv6, PGD(steps=40), "2/255", 10_000),
    "resnet18": Case("cifar10", lambda: ResNet18(width=16).build(DATASETS["cifar10"]), PGD(steps=10), "2/255", 5_000),
    "resnet18-pool": Case(
        "cifar10", lambda: ResNet18(stem="pool").build(DATASETS["cifar10"]), PGD(steps=40), "1/1020", 0
    ),
    "smallcnn": Case("mnist", lambda: SmallCNN().build(DATASETS["mnist"]), PGD(steps=40), "0.2", 20_000),
    "smallcnn-autoattack": Case(
        "mnist", lambda: SmallCNN().build(DATASETS["mnist"]), AutoAttack(), "0.2", 20_000
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One process's work."""

    case: str
    way: str
    images: int
    threads: int
    weights: Path


def images_of(data: str, count: int, train: bool = False) -> tuple[Tensor, Tensor]:
    """The first images (count, C, H, W) in [0, 1] and labels of a split."""
    split = load_data(data, None, torch.device("cpu"))
    examples = split.train if train else split.test
    return examples.pixels(slice(0, count)), examples.labels[:count]


def trained(case: Case) -> nn.Module:
    """The case's network after a short training that makes it robust enough to attack."""
    torch.manual_seed(0)
    network = case.build()
    if not case.train:
        return network.eval()
    x, y = images_of(case.data, case.train, train=True)
    eps, epochs, batch = float(Fraction(case.eps)), 3, 100
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            start = (x[rows] + eps * (2 * torch.rand_like(x[rows]) - 1)).clamp(0, 1).requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(start), y[rows]), start)
            moved = x[rows] + (start.detach() + eps * gradient.sign() - x[rows]).clamp(-eps, eps)
            optimizer.zero_grad()
            F.cross_entropy(network(moved.clamp(0, 1)), y[rows]).backward()
            optimizer.step()
    return network.eval()


def spent() -> float:
    """Processor seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def by_evaluate(case: Case, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    import epsbench

    result = epsbench.evaluate(network, x, y, attack=case.attack, eps=case.eps)
    cost = result[0].record.cost
    return {
        "robust": float((result[0].robust).mean()), "audits": cost["audit_seconds"], "attack": cost["seconds"],
        "findings": len(result.findings),
    }  # fmt: skip


def by_engine(case: Case, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """From the bare model to the verdicts."""
    from tests.benchmarks.contestants import make_engine
    from tests.benchmarks.networks import Bench

    with torch.no_grad():
        right = (torch.cat([network(part) for part in x.split(256)]).argmax(1) == y).nonzero().flatten()
    eps = [Fraction(case.eps)]
    bench = Bench("", network, x[right], y[right], eps)
    engine = make_engine(bench, case.attack, "float32", 0)
    (outcome,) = engine.run(case.attack, eps, seed=0)
    return {"robust": float((~outcome.fooled).sum()) / len(y)}


def work(pipe: Connection, job: Job) -> None:
    """Two calls; sends what each took."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(job.threads)
    from epsbench.harness.run.machine.memory import keep_freed

    case = CASES[job.case]
    keep_freed(torch.device("cpu"))  # as a run does
    network = case.build()
    network.load_state_dict(torch.load(job.weights, weights_only=True))
    network.eval()
    x, y = images_of(case.data, job.images)
    if not case.train:
        with torch.no_grad():
            y = torch.cat([network(part) for part in x.split(64)]).argmax(1)
    way = {"evaluate": by_evaluate, "engine": by_engine}[job.way]
    calls = []
    for _ in range(2):
        before, began = spent(), time.perf_counter()
        seen = way(case, network, x, y)
        calls.append({**seen, "processor": spent() - before, "wall": time.perf_counter() - began})
    pipe.send(calls)


def run(job: Job) -> list[dict[str, float]]:
    """`work` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, job))
    process.start()
    there.close()
    calls = here.recv()
    process.join()
    return calls


def write_bytecode() -> None:
    root = Path(__file__).parents[2]
    for folder in ("attacks", "harness", "models", "tests/benchmarks"):
        compileall.compile_dir(root / folder, quiet=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="a folder that keeps the trained weights; default: none")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    write_bytecode()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.cases:
            folder = given.weights or Path(temporary)
            folder.mkdir(exist_ok=True)
            weights = folder / f"{name.removesuffix('-autoattack')}.pt"
            if not weights.is_file():
                torch.save(trained(CASES[name]).state_dict(), weights)
            job = Job(name, "", given.images, given.threads, weights)
            rounds = [{way: run(replace(job, way=way)) for way in WAYS} for _ in range(given.rounds)]
            rows += [_row(name, call, rounds) for call in range(2)]
            print(tabulate(rows[-2:], headers="keys", floatfmt=".3g"), flush=True)
    print(tabulate(rows, headers="keys", floatfmt=".3g"))


def _row(name: str, call: int, rounds: list[dict[str, list[dict[str, float]]]]) -> dict[str, object]:
    def median(way: str, key: str) -> float:
        return statistics.median(each[way][call][key] for each in rounds)

    ratios = [each["evaluate"][call]["processor"] / each["engine"][call]["processor"] - 1 for each in rounds]
    return {
        "case": name, "call": ("first", "second")[call],
        "robust": median("evaluate", "robust"), "engine_robust": median("engine", "robust"),
        "engine_s": median("engine", "processor"), "evaluate_s": median("evaluate", "processor"),
        "more_s": median("evaluate", "processor") - median("engine", "processor"),
        "more": statistics.median(ratios), "least": min(ratios), "most": max(ratios),
        "attack_s": median("evaluate", "attack"), "audits_s": median("evaluate", "audits"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
