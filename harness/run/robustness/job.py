"""One classifier and all its attacks: from data to records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.harness.errors import FAILURES, InputError
from epsbench.harness.findings import Finding, voids
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.plan import Job, Stream
from epsbench.harness.plan.recorded import model_key
from epsbench.harness.records import Record
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.profiling import profile_attack
from epsbench.harness.run.attack.random_model import VotingJudge
from epsbench.harness.run.attack.watch import Unwatched
from epsbench.harness.run.audits.auditor import Auditor, probe_size
from epsbench.harness.run.audits.fresh_process import recipe_of
from epsbench.harness.run.audits.history import Seen
from epsbench.harness.run.audits.overfitting import audit_training
from epsbench.harness.run.audits.preprocessing import audit_preprocessing
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.remembered import digest_of
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.corruption import corrupted
from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.failure import failed, without_gradient
from epsbench.harness.run.machine.memory import release, reset_peak
from epsbench.harness.run.robustness.attack_progress import AttackProgress
from epsbench.harness.run.robustness.attacker import Attacker, Subject, make_attacker, splits
from epsbench.harness.run.robustness.images import CleanImages
from epsbench.harness.run.robustness.kept_shards import KeptShards
from epsbench.harness.run.robustness.mean_of_logits import as_one
from epsbench.harness.run.robustness.partial import PartialResults
from epsbench.harness.run.robustness.record import Classifier, Measurement, cost_of, make_record, side_output
from epsbench.harness.run.robustness.selection import targets_at
from epsbench.harness.run.robustness.shards import Sharded, attack_in_shards
from epsbench.harness.run.robustness.workbench import Setup
from epsbench.harness.run.speed.batch_size import UNTRIED
from epsbench.harness.run.speed.chosen import Chosen
from epsbench.harness.run.speed.fitting import as_many_as_fit
from epsbench.harness.run.speed.judging import lay_out_untimed
from epsbench.harness.run.training.trained import trained
from epsbench.harness.run.training.watch import FEWEST


def run_robustness_job(job: Job, context: Context) -> Iterator[Record]:
    """Records of a job's cells, one attack after the other. An attack that raises fails its own cells only."""
    first = job.streams[0].cells[0]
    data = context.data(first.data, first.limit)
    network, training = trained(first, data, context)
    groups: dict[tuple[str, int], list[Stream]] = {}
    for stream in sorted(job.streams, key=lambda each: each.cells[0].severity > 0):
        groups.setdefault((stream.cells[0].corruption, stream.cells[0].severity), []).append(stream)
    bench: Bench | None = None
    for streams in groups.values():
        bench = Bench(network, streams, data, context, training, bench)
        for stream in streams:
            yield from bench.stream(stream)


class Bench:
    """The experiment on one trained classifier: judge the clean images once, then attack, stream after stream.

    ``own`` attacks along the classifier's own gradients. Of the attackers along another model's gradients only the
    last is kept.
    """

    subject: Subject
    auditor: Auditor

    def __init__(
        self,
        network: nn.Module,
        streams: Sequence[Stream],
        data: Data,
        context: Context,
        training: dict[str, Any],
        before: Bench | None = None,
    ) -> None:
        """``training`` is what the network's training cost, with its ``curves``.

        The streams are all on the same images, corrupted or not. ``before`` is a bench of the same network on other
        images: its judge and its audits of the network are used again.
        """
        self.context, self.data, self.streams = context, data, streams
        curves = training.get("curves", {})
        first = streams[0].cells[0]
        self.overfitted = [
            *audit_training(curves, min(len(data.validation), FEWEST)),
            *audit_preprocessing(first, training, data.description),
        ]
        data = replace(data, test=data.test[: first.test_images])
        test = corrupted(data.test, first.corruption, first.severity) if first.severity else data.test
        identity = self._identity(first, data, training) if context.remember else ""
        judge = before.subject.judge if before else _judge(network, first, context)
        if not before:
            lay_out_untimed(judge, data.test.pixels(slice(0, 4)))
        batch = min(context.batch_size or _untried(judge, test), len(test))
        logits, classes = _judged(judge, test, batch)
        positions = (classes == test.labels).nonzero().flatten()
        labels = test.labels[positions]
        self.clean_loss = F.cross_entropy(logits[positions], labels, reduction="none").cpu().numpy()
        probe = probe_size(len(data.test))
        x, y = data.test.pixels(torch.arange(probe, device=context.device)), data.test.labels[:probe]
        if before:
            self.auditor = before.auditor
        else:
            original = logits, classes
            clean_logits, clean_classes = original if test is data.test else _judged(judge, data.test, batch)
            recipe = recipe_of(first, data.description, context)
            trained = bool(dict(first.training)["epochs"])
            probed = Probe(judge, x, y, batch)
            self.auditor = Auditor(probed, data.description, network, data, recipe, identity, trained)
            self.auditor.model(clean_logits, data.test.labels)
        targets = targets_at(test, positions, logits[positions])
        precision = context.precision(streams[0].cells[0].precision)
        self.subject = Subject(
            judge, targets, (x, y), precision, context, data.description.classes, first.randomness, identity
        )
        training = {key: value for key, value in training.items() if key != "curves"}
        clean = (
            CleanImages(test[: context.keep_images], classes.cpu().numpy(), len(test)) if context.keep_images else None
        )
        names = data.description.class_names if data.description.content else ()
        answers = test.labels.cpu().numpy(), classes.cpu().numpy(), logits
        self.classifier = Classifier(training, curves, *answers, targets, names, clean)
        self.own = self._attacker(network, (), None)
        self._other: tuple[tuple[str, ...], Attacker] | None = None
        cells = sum(len(stream.cells) for stream in streams)
        weights = training.get("weights_sha256")
        model = model_key(first.canonical(), first.code)
        if not before:
            clean_right = (clean_classes == data.test.labels).cpu().numpy()
            self.auditor.begin(self.own.engine, context.records, weights, model, clean_right, cells)

    @staticmethod
    def _identity(cell: RobustnessCell, data: Data, training: dict[str, Any]) -> str:
        """What the audits of a model depend on: its weights, its code, the data; empty where weights have no digest."""
        weights = training.get("weights_sha256")
        sizes = tuple(len(split) for split in (data.train, data.validation, data.test))
        key = model_key(cell.canonical(), cell.code)
        return digest_of(weights, key, data.description.identity, sizes) if weights else ""

    def _attacker(self, network: nn.Module, sources: Sequence[RobustnessCell], weights: str | None) -> Attacker:
        """The network, prepared for those streams that follow the gradients of these sources."""
        streams = [each for each in self.streams if _keys(each.sources) == _keys(sources)]
        return make_attacker(network, self.subject, streams, weights)

    def attacker(self, sources: Sequence[RobustnessCell]) -> Attacker:
        """The attacker along the gradients of the sources' models; without a source, of the classifier itself.

        Several models are attacked as one: the mean of their logits. A source is trained where its weights are not in
        the cache.
        """
        if not sources:
            return self.own
        if self._other is None or self._other[0] != _keys(sources):
            self._other = None
            release()
            models = [trained(source, self.data, self.context) for source in sources]
            network = as_one([network for network, _ in models])
            weights = "+".join(training["weights_sha256"] for _, training in models)
            self._other = _keys(sources), self._attacker(network, sources, weights)
        return self._other[1]

    def stream(self, stream: Stream) -> Iterator[Record]:
        """Records of one attack at all its ε, ascending. If it raises, the cells without a record yet are failed."""
        started = self.context.clock()
        pending = stream.ascending
        first, eps = pending[0], [cell.eps for cell in pending]
        attacker: Attacker | None = None
        with AttackProgress(self.context.progress, first.attack.label()) as watch:
            try:
                attacker = self.attacker(stream.sources)
                attacker.engine.watch = watch
                store = PartialResults(self.context.results, stream.cells, self._weights(attacker))
                shards = self._in_shards(stream, attacker)
                reset_peak(self.context.device)
                outcomes: Iterable[Outcome] = shards.outcomes if shards else attacker.engine.run(
                    stream.attack, eps, seed=first.seed, early_stop=first.early_stop, curve=first.curve, store=store
                )  # fmt: skip
                done = shards.shards if shards else ()
                for outcome in outcomes:
                    attacker.engine.watch = Unwatched()  # audits attack too
                    cost = cost_of(outcome, attacker, self.context, done)
                    # With the last cell, so that its record can say that the profile could not be written.
                    failures = self._profile(stream, attacker) if len(pending) == 1 else []
                    findings = [*self._findings(pending[0], stream, attacker, outcome, cost), *failures]
                    cost["audit_seconds"] = self.auditor.charge()
                    adapted = stream.attack.adapted(self.subject.classes)
                    tested = self.auditor.constructed(stream.attack) if attacker.engine.white_box else {}
                    measured = Measurement(
                        pending[0], attacker, outcome, cost, findings, started, adapted, tested, done
                    )  # fmt: skip
                    yield make_record(measured, self.classifier, self.context)
                    if outcome.parts:
                        store.drop(outcome.eps)
                    pending = pending[1:]
                    attacker.engine.watch = watch
                self._kept_shards(stream, attacker).drop()
            except InputError:  # the run cannot go on: no room to write, damaged weights
                raise
            # Attack and model are the user's code: they may raise anything, or even try to exit.
            except FAILURES as error:
                blind = attacker is not None and not attacker.engine.victim.differentiable
                blind = blind and stream.attack.query != "logits" and _answers(attacker)
                advice = without_gradient(error) if blind else ""
                yield from (failed(cell, error, self.context, started, advice) for cell in pending)

    def _in_shards(self, stream: Stream, attacker: Attacker) -> Sharded | None:
        """Attack with several devices, where the run has them, or where an earlier one did and was stopped."""
        kept = self._kept_shards(stream, attacker)
        several = attacker.crew is not None or kept.folder.is_dir()
        # The draws of a model that is random depend on what its victim was asked before.
        alone = self.subject.randomness is not None or not splits(stream, self.subject.classes)
        if not several or alone or not len(self.subject.targets):
            return None
        cell, engine = stream.cells[0], attacker.engine
        chosen = Chosen.of(engine.victim, engine.judge, engine.batch, engine.forward_batch)
        # The victim's own: its owner may have found float32 faster than what the suite asks for.
        setup = Setup(cell, stream.sources, engine.victim.precision, chosen, len(engine.targets))
        return attack_in_shards(attacker, stream, kept, self.context, setup)

    def _kept_shards(self, stream: Stream, attacker: Attacker) -> KeptShards:
        index = self.subject.targets.index.cpu().numpy()
        return KeptShards(self.context.results, stream.ascending, self._weights(attacker), index, attacker.engine.keep)

    def _weights(self, attacker: Attacker) -> str:
        """What decides an ensemble's partial results besides the cell: the weights of the model and of the source."""
        return f"{self.classifier.training.get('weights_sha256', '')} {attacker.weights}"

    def _profile(self, stream: Stream, attacker: Attacker) -> list[Finding]:
        """Profile the attack where the run asks for it; a profile that fails is a finding."""
        if not self.context.profile:
            return []
        first, results = stream.cells[0], self.context.results
        return side_output("a profile", lambda: profile_attack(attacker.engine, stream.attack, first, results))

    def _findings(
        self, cell: RobustnessCell, stream: Stream, attacker: Attacker, outcome: Outcome, cost: dict[str, Any]
    ) -> list[Finding]:
        findings = [*self.auditor.cell(attacker.engine, stream.attack, outcome, self.clean_loss), *self.overfitted]
        if cell.source is None and not cell.severity and not voids(findings):
            codes = {finding.code for finding in findings}
            seen = Seen.of(cell.id, cell.canonical(), cost, self.classifier.right, self.classifier.robust(outcome))
            findings += [finding for finding in self.auditor.among(seen) if finding.code not in codes]
            findings += self.auditor.doubt(attacker.engine, stream.attack, outcome)
        return findings


def _answers(attacker: Attacker | None) -> bool:
    """Whether the attacked model gives logits. One that always raises does not lack a gradient alone."""
    if attacker is None or not len(attacker.engine.targets):
        return False
    try:
        attacker.engine.victim.scores(attacker.engine.targets.batch(1)[0])
    except FAILURES:  # the user's code, which has raised already
        return False
    return True


def _keys(sources: Sequence[RobustnessCell]) -> tuple[str, ...]:
    return tuple(source.weights_key for source in sources)


def _judge(network: nn.Module, cell: RobustnessCell, context: Context) -> Judge:
    """The judge of a cell's model: a majority of passes where it is random."""
    if cell.randomness is None:
        return Judge(network, context.device)
    return VotingJudge(network, context.device, cell.randomness.votes, cell.seed)


def _untried(judge: Judge, test: Examples) -> int:
    """How many images the judge and the audits take at a time: `UNTRIED`, or as many as fit into a CPU's memory."""
    usual = UNTRIED[judge.device.type]
    return usual if judge.random else as_many_as_fit(usual, judge.function, test.pixels(slice(0, 1)))


def _judged(judge: Judge, examples: Examples, batch: int) -> tuple[Tensor, Tensor]:
    """The judge's logits (n, classes) and classes (n,) of all examples, ``batch`` at a time."""
    everyone = torch.arange(len(examples), device=judge.device)
    # Filled part by part: small tensors, kept between large temporaries, would make the process grow (`in_chunks`).
    every: Tensor | None = None
    classes = torch.empty_like(examples.labels)
    for start in range(0, len(examples), max(1, batch)):
        rows = slice(start, min(start + batch, len(examples)))  # in slices, what is streamed is read ahead
        logits, classes[rows] = judge.verdict(examples.pixels(rows), examples.labels[rows], batch, everyone[rows])
        every = logits.new_empty((len(examples), logits.shape[1])) if every is None else every
        every[rows] = logits
    assert every is not None  # there are test images
    return every, classes
