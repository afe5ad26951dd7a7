"""The same models, images, ε and steps through epsbench and through the libraries people use instead.

    python -m tests.benchmarks.peers curve --images 512 --rounds 3

Contestants take turns within each round. Every peer runs at the batch size that suits it best, found by trying
beforehand; epsbench finds its own within its time, as it always does. Medians and spread of the ratio to the fastest
peer of the same round; robust accuracies stand beside the times.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from tabulate import tabulate

from epsbench.attacks.base import GradientAttack
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.machine.environment import describe
from epsbench.harness.run.machine.memory import keep_freed
from epsbench.harness.run.speed.floor import Passes, measure_rates
from tests.benchmarks.contestants import PEERS, Booth, Contestant, make_engine
from tests.benchmarks.networks import Bench, Chosen, precisions


@dataclass(frozen=True)
class Work:
    """One row of the table of what must be reached."""

    attack: GradientAttack
    eps: int
    curves: tuple[str, ...] = ("each",)


PGD40 = PGD(steps=40, relative_step_size=0.1)
WORKS = {
    "one-eps": Work(PGD40, 1),
    "curve": Work(PGD40, 8, ("each", "nested", "bisect")),
    "fgsm": Work(FGSM(), 8),
}


def compare(
    work: Work, chosen: Chosen, device: str, peers: list[str], rounds: int, batches: list[int], compiled: str
) -> list[dict[str, object]]:
    """Time everyone in turn, ``rounds`` times, each peer at the best of ``batches`` for it."""
    ours = [Contestant("", precision, curve, compiled) for curve in work.curves for precision in precisions(device)]
    groups = [[Contestant(peer)] for peer in peers] + [ours]
    booths = [Booth(group, chosen, device, work.attack) for group in groups]
    entered = [(booth, contestant) for booth in booths for contestant in booth.contestants]
    best = {contestant.name: 0 for contestant in ours}
    for booth, contestant in entered[: len(peers)]:
        trials = {batch: booth.time(contestant, batch, trial=True).seconds for batch in batches}
        best[contestant.name] = min(trials, key=trials.__getitem__)
    runs = {contestant.name: [] for _, contestant in entered}
    for _ in range(rounds):
        for booth, contestant in entered:
            runs[contestant.name].append(booth.time(contestant, best[contestant.name]))
    for booth in booths:
        booth.close()
    fastest = [min(runs[peer][i].seconds for peer in peers) for i in range(rounds)]
    rows = []
    for name, timed in runs.items():
        ratios = [a / b.seconds for a, b in zip(fastest, timed, strict=True)]
        rows.append(
            {
                "contestant": name,
                "batch": best[name] or "its own",
                "seconds": statistics.median(t.seconds for t in timed),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "robust_accuracy": timed[-1].robust,
            }
        )
    return rows


def floor_share(benches: list[Bench], batch: int, rounds: int) -> list[dict[str, object]]:
    """The floor over the time of PGD-40 without retirement, at each precision; the floor is timed around each run."""
    lines = []
    for bench in benches:
        n, kinds = len(bench.y), len(bench.eps)
        for precision in precisions(bench.x.device):
            engine = make_engine(bench, PGD40, precision, batch)
            timed = engine.victim, engine.judge, engine.targets, engine.batch
            shares = []
            for _ in range(rounds):
                before = measure_rates(*timed)
                engine.clean.known = None
                outcomes = list(engine.run(PGD40, bench.eps, seed=0, early_stop=False))
                after = measure_rates(*timed)
                gradients = sum(o.backwards for o in outcomes) + n
                verdicts = sum(o.judge_forwards for o in outcomes)
                floor = statistics.mean(rates.floor(Passes(gradients, verdicts)) for rates in (before, after))
                # Each ε is charged the shared gradient in full; here it was taken once.
                taken = sum(o.seconds for o in outcomes) - (kinds - 1) * engine.clean.seconds
                shares.append(floor / taken)
            lines.append(
                {"model": bench.name, "precision": precision, "form": engine.victim.form,
                 "rows": kinds * n, "batch": engine.batch,
                 "gradients": gradients, "seconds": taken, "floor_share": statistics.median(shares),
                 "least": min(shares), "most": max(shares)}
            )  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=[*WORKS, "floor"])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        help="sizes to try for the peers; default 32 to 512. Of floor the one to use, else found",
    )
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--compile", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--suite", default="mnist", help="whose networks are attacked, at ε up to its largest")
    parser.add_argument("--defenses", nargs="+", default=["none", "pgd-batch"], help="which of them")
    parser.add_argument("--largest", type=Fraction, help="up to this ε instead, such as 2/255")
    parser.add_argument("--resnet", type=int, metavar="WIDTH", help="an untrained ResNet-18 instead")
    parser.add_argument(
        "--weights", type=Path, help="where the suite's trained networks are; default results/SUITE/weights"
    )
    parser.add_argument("--output", type=Path, help="also write everything as JSON")
    given = parser.parse_args()
    device = torch.device(given.device)
    weights = given.weights or Path("results") / Path(given.suite).stem / "weights"
    eps = WORKS[given.work].eps if given.work in WORKS else 8
    chosen = Chosen(given.suite, tuple(given.defenses), weights, given.images, eps, given.largest, given.resnet)
    environment = describe(device)
    if given.work == "floor":
        keep_freed(device)
        lines = floor_share(chosen.build(device), given.batch[0] if given.batch else 0, given.rounds)
        shown = lines
    else:
        chosen.build(device)  # so that what has to be trained is trained once
        batches = given.batch or [32, 64, 128, 256, 512]
        lines = compare(WORKS[given.work], chosen, given.device, given.peers, given.rounds, batches, given.compile)
        shown = [
            row | {"robust_accuracy": " | ".join(" ".join(f"{100 * a:.1f}" for a in m) for m in row["robust_accuracy"])}
            for row in lines
        ]
    print(f"{given.work}: {given.images} images a network, {given.rounds} rounds, {environment['device']['name']}")
    print(tabulate(shown, headers="keys", floatfmt=".3g"))
    if given.output:
        given.output.write_text(json.dumps({"work": given.work, "lines": lines, "environment": environment}, indent=1))


if __name__ == "__main__":
    main()
