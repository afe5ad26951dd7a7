"""The same attack through epsbench and through the libraries people use instead, each in a process of its own.

Peers run as their documentation shows: float32, eager, one ε at a time, on memory as the system's allocator keeps it.
Every time includes the verdicts, and epsbench's includes folding, tuning and tracing the model.
"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor, nn

from epsbench.attacks.base import Attack, GradientAttack
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.machine.memory import keep_freed
from epsbench.harness.run.speed.accelerate import Work, accelerate
from epsbench.harness.run.speed.batch_size import UNTRIED, find_batch, find_forward_batch
from epsbench.harness.run.speed.judging import lay_out
from epsbench.harness.run.speed.mixed import float32_where_faster
from epsbench.harness.run.speed.prepare import prepare
from tests.benchmarks.networks import Bench, Chosen

Peer = Callable[[nn.Module, Tensor, Tensor, float, int, float], Tensor]


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


@dataclass(frozen=True)
class Contestant:
    """A peer by name, or epsbench at a precision and with its ε related by ``curve``."""

    peer: str = ""
    precision: str = "float32"
    curve: str = "each"
    compiled: str = "auto"

    @property
    def name(self) -> str:
        return self.peer or f"epsbench {self.precision} {self.curve}"

    def run(self, bench: Bench, attack: GradientAttack, batch: int) -> list[float]:
        """Robust accuracy at each ε. Of 0 rows a batch epsbench finds the size itself."""
        if self.peer:
            return _run_peer(PEERS[self.peer], bench, attack, batch)
        return _run_epsbench(self, bench, attack, batch)


def _run_peer(peer: Peer, bench: Bench, attack: GradientAttack, batch: int) -> list[float]:
    """As a user's loop over batches finds it."""
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


def make_engine(bench: Bench, attack: Attack, precision: str, batch: int, compiled: str = "auto") -> Engine:
    """An engine tuned for an attack at all ε, as a run tunes it. Of 0 rows a batch it finds the size itself."""
    everyone = torch.arange(len(bench.y), device=bench.x.device)
    targets = Targets(lambda at: bench.x[at], bench.y, everyone)
    victim = prepare(bench.model, bench.x.device, precision, bench.x[:16], bench.y[:16])
    verdicts = len(bench.eps) * len(bench.y)
    with torch.no_grad():
        classes = bench.model(bench.x[:1]).shape[1]
    losses = () if attack.query == "jacobian" else attack.losses(classes)  # as a run has it
    work = Work(attack.gradients(classes) * verdicts, attack.forwards(classes) * verdicts, losses)
    float32_where_faster(victim, targets, UNTRIED[victim.device.type], work.rows)
    batch = min(batch or find_batch(victim, targets, max(work.gradients, verdicts)), len(bench.y))
    accelerate(victim, targets, batch, work, compiled)
    judge = Judge(bench.model, bench.x.device)
    lay_out(judge, targets, batch, verdicts)
    forward_batch = find_forward_batch(victim, targets, batch, work.forwards)
    return Engine(victim, judge, targets, batch, forward_batch=forward_batch)


def _run_epsbench(how: Contestant, bench: Bench, attack: GradientAttack, batch: int) -> list[float]:
    """From the bare model to the verdicts."""
    engine = make_engine(bench, attack, how.precision, batch, how.compiled)
    return [1 - float(outcome.fooled.mean()) for outcome in engine.run(attack, bench.eps, seed=0, curve=how.curve)]


@dataclass(frozen=True)
class Timed:
    """What a contestant took for all networks at a batch size, and the robust accuracy of each at each ε."""

    seconds: float
    robust: list[list[float]]


class Booth:
    """A process in which contestants run, one at a time, while every other booth waits."""

    def __init__(self, contestants: Sequence[Contestant], chosen: Chosen, device: str, attack: GradientAttack) -> None:
        self.contestants = list(contestants)
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        ours = not contestants[0].peer
        self._process = context.Process(target=_serve, args=(there, chosen, device, attack, ours), daemon=True)
        self._process.start()

    def time(self, contestant: Contestant, batch: int, *, trial: bool = False) -> Timed:
        """One run; a ``trial`` is of a few steps and two ε, for batch sizes to be told apart by."""
        self._here.send((contestant, batch, trial))
        answer = self._here.recv()
        if isinstance(answer, str):
            raise SystemExit(f"{contestant.name}: {answer}")
        return answer

    def close(self) -> None:
        self._here.send(None)
        self._process.join()


def _serve(pipe: Connection, chosen: Chosen, device: str, attack: GradientAttack, ours: bool) -> None:
    warnings.simplefilter("ignore")  # the peers' own
    if ours:
        keep_freed(torch.device(device))  # as `epsbench run` does
    benches = chosen.build(torch.device(device))
    while (request := pipe.recv()) is not None:
        contestant, batch, trial = request
        try:
            pipe.send(_timed(contestant, benches, attack, batch, trial))
        except ImportError as error:
            pipe.send(f"{error}; `make bench-peers` installs it, or leave it out with --peers")


def _timed(contestant: Contestant, benches: list[Bench], attack: GradientAttack, batch: int, trial: bool) -> Timed:
    if trial:
        benches = [replace(bench, eps=bench.eps[-2:]) for bench in benches]
        attack = replace(attack, steps=min(4, attack.steps))
    for bench in benches:  # kernels are chosen, modules imported
        contestant.run(replace(bench, x=bench.x[:8], y=bench.y[:8], eps=bench.eps[:1]), attack, batch)
    _synchronise(benches)
    started = time.perf_counter()
    robust = [contestant.run(bench, attack, batch) for bench in benches]
    _synchronise(benches)
    return Timed(time.perf_counter() - started, robust)


def _synchronise(benches: list[Bench]) -> None:
    if benches[0].x.is_cuda:
        torch.cuda.synchronize()
