"""The same model, images, ε and steps through epsbench and through the libraries people use instead.

    python tests/benchmarks/peers.py curve --images 512 --rounds 3

One process, all contestants in turn within each round, medians and spread of the ratio to the fastest peer
of the same round; robust accuracies stand beside the times. Every time includes the verdicts, and epsbench's
includes folding and preparing the model. Peers run as their documentation shows: float32, eager, one ε at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from attacks.base import GradientAttack
from attacks.fgsm import FGSM
from attacks.pgd import PGD
from harness.run.classifiers import trained
from harness.run.context import Context
from harness.run.engine import Engine
from harness.run.environment import describe
from harness.run.ledger import Targets
from harness.run.tuning import accelerate, find_batch, measure_rates
from harness.run.victim import Judge, prepare
from harness.spec.cell import RobustnessCell
from harness.spec.datasets import DATASETS
from harness.spec.plan import plan
from harness.spec.suite import load_suite
from models.catalogue import ResNet18

Peer = Callable[[nn.Module, Tensor, Tensor, float, int, float], Tensor]


@dataclass
class Bench:
    """A model with images it gets right, shape (N, C, H, W) in [0, 1], and the ε that suit it, in pixel units."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    eps: list[Fraction]


def torchattacks_(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, size: float) -> Tensor:
    import torchattacks

    if steps == 1:
        return torchattacks.FGSM(model, eps=eps)(x, y)
    return torchattacks.PGD(model, eps=eps, alpha=size * eps, steps=steps, random_start=False)(x, y)


def foolbox_(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, size: float) -> Tensor:
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    attack = foolbox.attacks.LinfPGD(rel_stepsize=size, steps=steps, random_start=False)
    return attack(wrapped, x, y, epsilons=eps)[1]


def art_(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, size: float) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type=x.device.type
    )
    attack = ProjectedGradientDescentPyTorch(
        wrapped, eps=eps, eps_step=size * eps, max_iter=steps, batch_size=len(x), verbose=False
    )
    return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)


def cleverhans_(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, size: float) -> Tensor:
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    return projected_gradient_descent(
        model, x, eps, size * eps, steps, np.inf, 0.0, 1.0, y=y, rand_init=False, sanity_checks=False
    ).detach()


def adv_lib_(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, size: float) -> Tensor:
    from adv_lib.attacks import pgd_linf

    return pgd_linf(model, x, y, eps, steps=steps, random_init=False, relative_step_size=size)


PEERS: dict[str, Peer] = {
    "torchattacks": torchattacks_,
    "foolbox": foolbox_,
    "art": art_,
    "cleverhans": cleverhans_,
    "adv-lib": adv_lib_,
}


def run_peer(peer: Peer, bench: Bench, attack: GradientAttack, batch: int) -> list[float]:
    """Robust accuracy at each ε, as a user's loop over batches finds it."""
    size = getattr(attack, "relative_step_size", 1.0)
    robust = []
    for e in bench.eps:
        right = 0
        for x, y in zip(bench.x.split(batch), bench.y.split(batch), strict=True):
            x_adv = peer(bench.model, x, y, float(e), attack.steps, size)
            with torch.no_grad():
                right += int((bench.model(x_adv).argmax(1) == y).sum())
        robust.append(right / len(bench.y))
    return robust


def run_epsbench(
    bench: Bench, attack: GradientAttack, batch: int, precision: str, curve: str, compiled: str
) -> list[float]:
    """The same through the engine, from the bare model to the verdicts."""
    everyone = torch.arange(len(bench.y), device=bench.x.device)
    targets = Targets(lambda at: bench.x[at], bench.y, everyone)
    victim = prepare(bench.model, bench.x.device, precision, bench.x[:16], bench.y[:16])
    accelerate(victim, targets, batch, attack.steps * len(bench.eps) * len(bench.y), compiled)
    engine = Engine(victim, Judge(bench.model, bench.x.device), targets, batch)
    return [1 - float(outcome.fooled.mean()) for outcome in engine.run(attack, bench.eps, seed=0, curve=curve)]


def suite_models(device: torch.device, images: int, name: str, defenses: list[str], weights: Path) -> list[Bench]:
    """A suite's first network of each of these defenses, trained here when ``weights`` lacks it; its largest ε."""
    suite = load_suite(name)
    context = Context(Path("results") / suite.name, weights, device, suite.name, suite.base, boards=False)
    cells: dict[str, RobustnessCell] = {}
    largest = Fraction(0)
    for job in plan(suite, context.results).jobs:
        for cell in job.cells:
            if isinstance(cell, RobustnessCell) and cell.norm == "linf" and cell.subset == "all":
                cells.setdefault(cell.defense.name, cell)
                largest = max(largest, cell.eps)
    benches = []
    for defense in defenses:
        if defense not in cells:
            raise SystemExit(f"--defenses: {name} trains no {defense!r} on whole data; it has {', '.join(cells)}")
        cell = cells[defense]
        data = context.data(cell.data, cell.limit)
        model, _ = trained(cell, data, context)
        x, y = data.test.pixels(slice(0, 4 * images)), data.test.labels[: 4 * images]
        benches.append(_right(f"{name} {defense}", model, x, y, images, largest))
    return benches


def resnet(device: torch.device, images: int, width: int, count: int) -> list[Bench]:
    """An untrained ResNet-18 on 32×32 images, labelled as it sees them: at a tiny ε few fall, as on a robust model."""
    torch.manual_seed(0)
    model = ResNet18(width=width).build(DATASETS["cifar10"]).to(device).eval()
    x = torch.rand(images, 3, 32, 32, device=device)
    with torch.no_grad():
        y = torch.cat([model(part).argmax(1) for part in x.split(64)])
    return [Bench(f"resnet18, width {width}", model, x, y, [Fraction(k, 8160) for k in range(1, count + 1)])]


def _right(name: str, model: nn.Module, x: Tensor, y: Tensor, images: int, largest: Fraction) -> Bench:
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().flatten()[:images]
    eight = [largest * k / 8 for k in range(1, 9)]
    return Bench(name, model.eval(), x[right], y[right], eight)


@dataclass(frozen=True)
class Work:
    """One row of the table of what must be reached."""

    attack: GradientAttack
    curves: tuple[str, ...] = ("each",)


WORKS = {
    "one-eps": Work(PGD(steps=40, relative_step_size=0.1)),
    "curve": Work(PGD(steps=40, relative_step_size=0.1), ("each", "nested", "bisect")),
    "fgsm": Work(FGSM()),
}


def compare(
    work: Work, benches: list[Bench], rounds: int, batch: int, peers: list[str], compiled: str
) -> dict[str, object]:
    """Time everyone in turn, ``rounds`` times; the first, unreported round of one batch warms everyone up."""
    contestants: dict[str, Callable[[Bench], list[float]]] = {
        name: lambda bench, peer=PEERS[name]: run_peer(peer, bench, work.attack, batch) for name in peers
    }
    for curve in work.curves:
        for precision in ("float32", "bf16"):
            contestants[f"epsbench {precision} {curve}"] = lambda bench, p=precision, c=curve: run_epsbench(
                bench, work.attack, batch, p, c, compiled
            )
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    robust: dict[str, list[list[float]]] = {}
    for run in contestants.values():
        for bench in benches:
            run(replace(bench, x=bench.x[:8], y=bench.y[:8]))
    for _ in range(rounds):
        for name, run in contestants.items():
            started = time.perf_counter()
            robust[name] = [run(bench) for bench in benches]
            if benches[0].x.is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    fastest = [min(seconds[name][i] for name in peers) for i in range(rounds)]
    rows = []
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(fastest, taken, strict=True)]
        rows.append(
            {
                "contestant": name,
                "seconds": statistics.median(taken),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "robust_accuracy": robust[name],
            }
        )
    return {"rows": rows, "images": len(benches[0].y), "rounds": rounds, "batch": batch}


def floor_share(benches: list[Bench], batch: int) -> list[dict[str, object]]:
    """The floor over the time of PGD-40 without retirement, at each precision."""
    found = []
    for bench in benches:
        n, kinds = len(bench.y), len(bench.eps)
        targets = Targets(lambda at, b=bench: b.x[at], bench.y, torch.arange(n, device=bench.x.device))
        for precision in ("float32", "bf16"):
            victim = prepare(bench.model, bench.x.device, precision, bench.x[:16], bench.y[:16])
            size = batch or find_batch(victim, targets, 40 * kinds * n)
            engine = Engine(victim, Judge(bench.model, bench.x.device), targets, size)
            before = measure_rates(victim, engine.judge, targets, size)
            outcomes = list(engine.run(PGD(steps=40, relative_step_size=0.1), bench.eps, seed=0, early_stop=False))
            after = measure_rates(victim, engine.judge, targets, size)
            gradients = sum(o.backwards for o in outcomes) + n
            verdicts = sum(o.judge_forwards for o in outcomes)
            floor = statistics.mean([before.floor(gradients, verdicts), after.floor(gradients, verdicts)])
            taken = sum(o.seconds for o in outcomes)
            found.append(
                {"model": bench.name, "precision": precision, "rows": kinds * n, "batch": size, "gradients": gradients,
                 "seconds": taken, "floor_share": floor / taken}
            )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=[*WORKS, "floor"])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--compile", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--suite", default="mnist", help="whose networks are attacked, at ε up to its largest")
    parser.add_argument("--defenses", nargs="+", default=["none", "pgd-batch"], help="which of them")
    parser.add_argument(
        "--resnet", type=int, metavar="WIDTH", help="an untrained ResNet-18 instead (always, for one-eps)"
    )
    parser.add_argument(
        "--weights", type=Path, help="where the suite's trained networks are; default results/SUITE/weights"
    )
    parser.add_argument("--output", type=Path, help="also write everything as JSON")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own
    device = torch.device(given.device)
    if given.resnet or given.work == "one-eps":
        benches = resnet(device, given.images, given.resnet or 64, 1 if given.work == "one-eps" else 8)
    else:
        weights = given.weights or Path("results") / given.suite / "weights"
        benches = suite_models(device, given.images, given.suite, given.defenses, weights)
    environment = describe(device)
    if given.work == "floor":
        found: object = floor_share(benches, given.batch)
        print(tabulate(found, headers="keys", floatfmt=".3g"))  # type: ignore[arg-type]
    else:
        result = compare(WORKS[given.work], benches, given.rounds, given.batch, given.peers, given.compile)
        found = result
        shown = [
            {
                **row,
                "robust_accuracy": " | ".join(" ".join(f"{100 * a:.1f}" for a in m) for m in row["robust_accuracy"]),
            }
            for row in result["rows"]  # type: ignore[attr-defined]
        ]
        machine = environment["device"]["name"]
        print(f"{given.work}: {result['images']} images, batch {given.batch}, {given.rounds} rounds, {machine}")
        print(tabulate(shown, headers="keys", floatfmt=".3g"))
    if given.output:
        given.output.write_text(json.dumps({"work": given.work, "found": found, "environment": environment}, indent=1))


if __name__ == "__main__":
    main()
