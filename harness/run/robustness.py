"""One classifier and all its attack cells: from data to records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.base import Attack, GradientAttack
from harness.errors import InputError
from harness.records import Metric, Record, Verdicts, write_pictures
from harness.run.audits.auditor import Auditor, probe_size
from harness.run.audits.codes import voids
from harness.run.audits.history import Seen
from harness.run.audits.overfitting import audit_training
from harness.run.checkpoint import Checkpoint
from harness.run.context import Context
from harness.run.data import Data
from harness.run.engine import Engine
from harness.run.failure import failed
from harness.run.ledger import Outcome, Targets
from harness.run.memory import is_out_of_memory, peak_bytes, release, reset_peak
from harness.run.profiling import profile_attack
from harness.run.training import seeded, train_classifier
from harness.run.tuning import LONG, UNTRIED, Rates, accelerate, find_batch, measure_rates
from harness.run.victim import Judge, prepare
from harness.run.weights import load_weights, save_weights
from harness.spec import names
from harness.spec.cell import RobustnessCell
from harness.spec.plan import Job
from harness.statistics import wilson

PICTURES = 8
KEPT = 64  # adversarial images that the audits look at


def run_robustness_job(job: Job, context: Context) -> Iterator[Record]:
    """Records of a job's cells, in streams of one attack each. A stream that raises fails its own cells alone."""
    cells = [cell for cell in job.cells if isinstance(cell, RobustnessCell)]
    first = cells[0]
    data = context.data(first.data, first.limit)
    network, training = trained(first, data, context)
    bench = Bench(network, cells, data, context, training)
    streams: dict[object, list[RobustnessCell]] = {}
    for cell in cells:
        streams.setdefault(cell.stream, []).append(cell)
    for stream in streams.values():
        yield from bench.stream(stream)


def build(cell: RobustnessCell, data: Data, context: Context) -> nn.Module:
    """The cell's network before training, its first weights drawn from the cell's seed."""
    model = names.make("model", cell.model, context.base)
    network: nn.Module = seeded(lambda: model.build(data.description), cell.seed).to(context.device)
    return network


def trained(cell: RobustnessCell, data: Data, context: Context) -> tuple[nn.Module, dict[str, Any]]:
    """The cell's network with its trained weights, from the cache when they are there, and what training cost.

    A training that was stopped goes on from its checkpoint.
    """
    network = build(cell, data, context)
    cached = load_weights(context.weights, cell.weights_key, network)
    if cached is not None:
        return network.eval(), cached | {"cached": True}
    recipe = dict(cell.training)
    defense = names.make("defense", cell.defense, context.base)
    precision = context.precision(cell.precision)
    checkpoint = Checkpoint(context.weights / f"{cell.weights_key}.checkpoint")
    title = f"training {cell.model.label()} · {cell.defense.label()}"
    with context.progress.task(title, recipe["epochs"]) as task, closing(context.board(cell.weights_key)) as board:
        shown: dict[str, float] = {}

        def on_resume(epoch: int) -> None:
            shown["resumed_after_epoch"] = epoch
            task.advance(epoch, **shown)

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                board.add_scalar(f"training/{name}", value, epoch)
            task.advance(1, **values, **shown)

        training = train_classifier(
            network,
            defense,
            data,
            cell.augmentation,
            recipe,
            seed=cell.seed,
            precision=precision,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            on_resume=on_resume,
        )
    info = {
        "seconds": training.seconds,
        "watch_seconds": training.watch_seconds,
        "resumed": training.resumed,
        "epochs": recipe["epochs"],
        "precision": precision,
        "images_per_second": recipe["epochs"] * len(data.train) / training.seconds if training.seconds else 0.0,
        "parameters": sum(p.numel() for p in network.parameters()),
        "curves": training.curves,
    }
    saved = save_weights(context.weights, cell.weights_key, network, info)
    checkpoint.remove()
    return network.eval(), saved | {"cached": False}


class Bench:
    """One trained classifier on the bench: judged once when clean, then attacked stream after stream."""

    def __init__(
        self,
        network: nn.Module,
        cells: list[RobustnessCell],
        data: Data,
        context: Context,
        training: dict[str, Any],
    ) -> None:
        self.context, self.data = context, data
        self.curves = training.pop("curves", {})
        self.overfitted = audit_training(self.curves)
        self.training = training
        self.batch = min(context.batch_size or UNTRIED[context.device.type], len(data.test))
        self.judge = Judge(network, context.device)
        logits = self._logits()
        self.right = logits.argmax(1) == data.test.labels
        self.positions = self.right.nonzero().flatten()
        labels = data.test.labels[self.positions]
        self.clean_loss = F.cross_entropy(logits[self.positions], labels, reduction="none").cpu().numpy()
        probe = probe_size(len(data.test))
        x, y = data.test.pixels(torch.arange(probe, device=context.device)), data.test.labels[:probe]
        self.auditor = Auditor(self.judge, x, y, self.batch, data.description)
        self.auditor.model(logits)
        self.victim = prepare(network, context.device, context.precision(cells[0].precision), x, y)
        targets = Targets(lambda at: data.test.pixels(self.positions[at]), labels, self.positions)
        rows = self._rows_ahead(cells, len(targets))
        batch = context.batch_size or find_batch(self.victim, targets, rows)
        batch, self.rates = self._tuned(targets, max(1, min(batch, len(targets))), rows)
        self.engine = Engine(self.victim, self.judge, targets, batch, keep=KEPT)
        weights = training.get("weights_sha256")
        self.auditor.begin(self.engine, context.results, weights, self.right.cpu().numpy(), len(cells))

    def _tuned(self, targets: Targets, batch: int, rows: int) -> tuple[int, Rates | None]:
        """Prepare for ``rows`` gradients in batches, halved while memory runs out; time the floor of long work."""
        while True:
            exhausted = False
            try:
                accelerate(self.victim, targets, batch, rows, self.context.compile)
                if rows < LONG * batch or not self.victim.differentiable:
                    return batch, None
                return batch, measure_rates(self.victim, self.judge, targets, batch)
            except (RuntimeError, MemoryError) as error:
                if batch == 1 or not is_out_of_memory(error):
                    raise
                exhausted = True
            if exhausted:
                release()
                batch //= 2

    def _rows_ahead(self, cells: list[RobustnessCell], targets: int) -> int:
        """Gradients that the cells can take at most."""
        attacks = [names.make("attack", cell.attack, self.context.base, norm=cell.norm) for cell in cells]
        return sum(a.steps * a.restarts * targets for a in attacks if isinstance(a, GradientAttack))

    def _logits(self) -> Tensor:
        everyone = torch.arange(len(self.data.test), device=self.context.device)
        return torch.cat(
            [self.judge.logits(self.data.test.pixels(rows), self.batch) for rows in everyone.split(self.batch)]
        )

    def stream(self, cells: list[RobustnessCell]) -> Iterator[Record]:
        """One attack at all its ε. Cells already yielded stand; the rest of a stream that raises are failed."""
        started = self.context.clock()
        pending = sorted(cells, key=lambda cell: cell.eps)
        with self.context.progress.task(cells[0].attack.label(), len(cells)) as task:
            try:
                attack = names.make("attack", pending[0].attack, self.context.base, norm=pending[0].norm)
                reset_peak(self.context.device)
                eps, first = [cell.eps for cell in pending], pending[0]
                for outcome in self.engine.run(
                    attack, eps, seed=first.seed, early_stop=first.early_stop, curve=first.curve
                ):
                    yield self._record(pending[0], attack, outcome, started)
                    pending = pending[1:]
                    task.advance()
            except InputError:  # nowhere to write, or the like: the run cannot go on
                raise
            # The attack and the model are the user's code and may raise anything or exit; it becomes their record.
            except (Exception, SystemExit) as error:  # noqa: BLE001
                yield from (failed(cell, error, self.context, started) for cell in pending)
            else:
                if self.context.profile:
                    profile_attack(self.engine, attack, cells[0], self.context.results)

    def _record(self, cell: RobustnessCell, attack: Attack | GradientAttack, outcome: Outcome, started: str) -> Record:
        right = self.right.cpu().numpy()
        robust = right.copy()
        robust[self.positions.cpu().numpy()[outcome.fooled]] = False
        cost = self._cost(outcome)
        findings = [*self.auditor.cell(self.engine, attack, outcome, self.clean_loss), *self.overfitted]
        if not voids(findings):
            told = {finding.code for finding in findings}
            beside = self.auditor.among(Seen.of(cell.id, cell.canonical(), cost, right, robust))
            findings += [finding for finding in beside if finding.code not in told]
        cost["audit_seconds"] = self.auditor.charge()
        pictures = len(outcome.images) > 0
        if pictures:
            write_pictures(self.context.results, cell.id, self._pictures(outcome))
        return Record(
            id=cell.id,
            status="void" if voids(findings) else "ok",
            suite=self.context.suite,
            cell=cell.canonical(),
            code=cell.code,
            metrics=_metrics(right, robust, outcome.fooled),
            cost=cost,
            training=self.training,
            curves=self.curves,
            verdicts=Verdicts.pack(right, robust),
            findings=tuple(findings),
            pictures=pictures,
            environment=self.context.environment,
            started=started,
            finished=self.context.clock(),
        )

    def _pictures(self, outcome: Outcome) -> dict[str, np.ndarray]:
        k = min(PICTURES, len(outcome.images))
        at = torch.arange(k, device=self.context.device)
        return {
            "original": self.engine.targets.pixels(at).cpu().numpy(),
            "adversarial": outcome.images[:k].numpy(),
            "labels": self.engine.targets.labels[:k].cpu().numpy(),
            "predicted": outcome.predicted[:k],
            "fooled": outcome.fooled[:k],
        }

    def _cost(self, outcome: Outcome) -> dict[str, Any]:
        attacked = len(outcome.fooled)
        shared = outcome.shared_backwards
        gradients = outcome.backwards + shared
        seconds = outcome.seconds
        return {
            "forwards": outcome.forwards,
            "backwards": outcome.backwards,
            "shared_backwards": shared,
            "judge_forwards": outcome.judge_forwards,
            "attacked": attacked,
            "gradients_per_image": gradients / attacked if attacked else 0.0,
            "seconds": seconds,
            "images_per_second": attacked / seconds if seconds else None,
            "gradients_per_second": gradients / seconds if seconds else None,
            "peak_bytes": peak_bytes(self.context.device),
            "compile_seconds": self.victim.compile_seconds,
            "floor_share": self._floor_share(outcome),
            "batch_size": self.engine.batch,
            "precision": self.victim.precision,
            "form": self.victim.form,
            "device": self.context.environment.get("device", {}).get("name", self.context.device.type),
        }

    def _floor_share(self, outcome: Outcome) -> float | None:
        """The least time these gradients and verdicts can take on this device, over the time they took."""
        if self.rates is None or not outcome.seconds:
            return None
        return self.rates.floor(outcome.backwards + outcome.shared_backwards, outcome.judge_forwards) / outcome.seconds


def _metrics(right: np.ndarray, robust: np.ndarray, fooled: np.ndarray) -> dict[str, Metric]:
    metrics = {"clean_accuracy": proportion(right), "robust_accuracy": proportion(robust)}
    if len(fooled):
        metrics["attack_success_rate"] = proportion(fooled)
    return metrics


def proportion(bits: np.ndarray) -> Metric:
    """The share of true bits with its Wilson interval."""
    low, high = wilson(int(bits.sum()), len(bits))
    return Metric(value=float(bits.mean()), low=low, high=high, n=len(bits))
