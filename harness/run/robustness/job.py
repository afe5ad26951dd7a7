"""One classifier and all its attack cells: from data to records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.attacks.base import Attack, GradientAttack
from epsbench.harness.errors import InputError
from epsbench.harness.findings import voids
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.names import registry
from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record, Verdicts, write_pictures
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.profiling import profile_attack
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.audits.auditor import Auditor, probe_size
from epsbench.harness.run.audits.history import Seen
from epsbench.harness.run.audits.overfitting import audit_training
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.failure import failed
from epsbench.harness.run.machine.memory import peak_bytes, release, reset_peak
from epsbench.harness.run.robustness.attacker import Attacker, make_attacker
from epsbench.harness.run.robustness.record import PICTURES, _metrics
from epsbench.harness.run.speed.batch_size import UNTRIED
from epsbench.harness.run.training.trained import trained

SOURCE_WEIGHTS = "source_weights_sha256"


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


class Bench:
    """One trained classifier on the bench: judged once when clean, then attacked stream after stream.

    ``own`` attacks along its own gradients; of the other models whose gradients are followed the last is kept.
    """

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
        self.probe, self.cells = (x, y), cells
        self.targets = Targets(lambda at: data.test.pixels(self.positions[at]), labels, self.positions)
        self.own = self._attacker(network, None, None)
        self._lent: tuple[str, Attacker] | None = None
        weights = training.get("weights_sha256")
        self.auditor.begin(self.own.engine, context.results, weights, self.right.cpu().numpy(), len(cells))

    def _attacker(self, network: nn.Module, source: RobustnessCell | None, weights: str | None) -> Attacker:
        """The network made ready for those of the cells that have this source."""
        key = source and source.weights_key
        cells = [cell for cell in self.cells if (cell.source and cell.source.weights_key) == key]
        precision = self.context.precision(self.cells[0].precision)
        return make_attacker(network, self.judge, self.targets, self.probe, cells, precision, self.context, weights)

    def attacker(self, source: RobustnessCell | None) -> Attacker:
        """The attacker along the gradients of a source's model, trained where its weights are not there yet; of the
        bench's own without a source."""
        if source is None:
            return self.own
        if self._lent is None or self._lent[0] != source.weights_key:
            self._lent = None
            release()
            network, training = trained(source, self.data, self.context)
            self._lent = source.weights_key, self._attacker(network, source, training["weights_sha256"])
        return self._lent[1]

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
                attack = registry.make("attack", pending[0].attack, self.context.base, norm=pending[0].norm)
                attacker = self.attacker(pending[0].source)
                reset_peak(self.context.device)
                eps, first = [cell.eps for cell in pending], pending[0]
                for outcome in attacker.engine.run(
                    attack, eps, seed=first.seed, early_stop=first.early_stop, curve=first.curve
                ):
                    yield self._record(pending[0], attack, attacker, outcome, started)
                    pending = pending[1:]
                    task.advance()
            except InputError:  # nowhere to write, or the like: the run cannot go on
                raise
            # The attack and the model are the user's code and may raise anything or exit; it becomes their record.
            except (Exception, SystemExit) as error:  # noqa: BLE001
                yield from (failed(cell, error, self.context, started) for cell in pending)
            else:
                if self.context.profile:
                    profile_attack(attacker.engine, attack, cells[0], self.context.results)

    def _record(
        self,
        cell: RobustnessCell,
        attack: Attack | GradientAttack,
        attacker: Attacker,
        outcome: Outcome,
        started: str,
    ) -> Record:
        right = self.right.cpu().numpy()
        robust = right.copy()
        robust[self.positions.cpu().numpy()[outcome.fooled]] = False
        cost = self._cost(attacker, outcome)
        findings = [*self.auditor.cell(attacker.engine, attack, outcome, self.clean_loss), *self.overfitted]
        if cell.source is None and not voids(findings):
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
            description=self.context.description,
            cell=cell.canonical(),
            code=cell.code,
            metrics=_metrics(right, robust, outcome.fooled),
            cost=cost,
            training=self.training,
            evaluation={SOURCE_WEIGHTS: attacker.weights} if cell.source else {},
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
            "original": self.targets.pixels(at).cpu().numpy(),
            "adversarial": outcome.images[:k].numpy(),
            "labels": self.targets.labels[:k].cpu().numpy(),
            "predicted": outcome.predicted[:k],
            "fooled": outcome.fooled[:k],
        }

    def _cost(self, attacker: Attacker, outcome: Outcome) -> dict[str, Any]:
        engine = attacker.engine
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
            "compile_seconds": engine.victim.compile_seconds,
            "floor_share": attacker.floor_share(outcome),
            "batch_size": engine.batch,
            "precision": engine.victim.precision,
            "form": engine.victim.form,
            "device": self.context.environment.get("device", {}).get("name", self.context.device.type),
        }
