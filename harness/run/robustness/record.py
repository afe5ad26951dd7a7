"""The record of a robustness cell: its metrics, what it cost, and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.losses import at_class
from epsbench.harness import records
from epsbench.harness.errors import InputError, summary
from epsbench.harness.files import NO_ROOM, require_in_place
from epsbench.harness.findings import Finding, finding, voids
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.records import Distances, Metric, Part, Record, Verdicts, pack_bits, write_pictures
from epsbench.harness.records.predictions import Answers, Predictions
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.merging import Shard
from epsbench.harness.run.attack.random_model import generators_kept
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.memory import peak_bytes
from epsbench.harness.run.metrics import proportion
from epsbench.harness.run.robustness.attacker import Attacker
from epsbench.harness.run.robustness.images import CleanImages, write_images

PICTURES = 8
SOURCE_WEIGHTS = "source_weights_sha256"


@dataclass(frozen=True)
class Classifier:
    """What the records of one trained classifier have in common."""

    training: dict[str, Any]
    """What its training cost, and the digest of its weights."""

    curves: dict[str, list[float]]
    """Losses and accuracies by epoch."""

    labels: np.ndarray
    """The label of each test image, (n,)."""

    predicted: np.ndarray
    """The judge's class of each test image without an attack, (n,)."""

    logits: Tensor
    """The judge's logits there, (n, classes)."""

    targets: Targets
    """The images that are."""

    class_names: tuple[str, ...] = ()
    """What the classes of a user's own data are called, where that is known."""

    clean: CleanImages | None = None
    """All test images, where their adversarial images are to be kept."""

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each test image is classified correctly without an attack, (n,)."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability that the judge gives its class of each test image without an attack, (n,)."""
        chosen = torch.from_numpy(self.predicted).to(self.logits.device)
        return at_class(self.logits.float().softmax(1), chosen).cpu().numpy()

    def predictions(self, outcome: Outcome) -> Predictions:
        """The judge's classes and confidences; an image that is not attacked has those of the image as it is."""
        index = self.targets.index.cpu().numpy()
        adversarial, confidence = self.predicted.copy(), self.confidence.copy()
        adversarial[index[outcome.fooled]] = outcome.predicted[outcome.fooled]
        confidence[index] = outcome.confidence
        answers = Answers(self.labels, self.predicted, adversarial, self.confidence, confidence)
        return Predictions.pack(answers, self.logits.shape[1])

    def robust(self, outcome: Outcome) -> np.ndarray:
        """Whether each test image is classified correctly without and under the attack, (n,)."""
        robust = self.right.copy()
        robust[self.targets.index.cpu().numpy()[outcome.fooled]] = False
        return robust

    def distances(self, outcome: Outcome) -> Distances | None:
        """The distance of every test image, 0 where it is misclassified without an attack; None where none is known."""
        if outcome.distances is None:
            return None
        distances = np.zeros(len(self.right), dtype=np.float32)
        distances[self.targets.index.cpu().numpy()] = outcome.distances
        return Distances.pack(distances)


@dataclass(frozen=True)
class Measurement:
    """One cell as it was measured."""

    cell: RobustnessCell
    attacker: Attacker
    outcome: Outcome

    cost: dict[str, Any]
    """As in the record (`cost_of`)."""

    findings: Sequence[Finding]
    """All that the audits have to say."""

    started: str
    """When the cell's stream began, UTC."""

    adapted: dict[str, Any] = field(default_factory=dict)
    """What the attack changed because the data has few classes."""

    constructed: dict[str, Any] = field(default_factory=dict)
    """What the binarisation test of the attack gave."""

    shards: Sequence[Shard] = ()
    """The ranges of images that were attacked apart, if they were."""


def make_record(measured: Measurement, classifier: Classifier, context: Context) -> Record:
    """The record of a measured cell. Its pictures are written first, so that no record promises missing ones.

    Pictures that cannot be written are a finding, and the record says that it has none.
    """
    cell, outcome, judge = measured.cell, measured.outcome, measured.attacker.engine.judge
    robust = classifier.robust(outcome)
    pictures = len(outcome.images) > 0
    failures: list[Finding] = []
    require_in_place(context.results)
    if pictures:
        failures = side_output(
            "pictures", lambda: write_pictures(context.results, cell.id, _pictures(classifier.targets, outcome, judge))
        )
    if context.keep_images and classifier.clean is not None:
        write_images(context.results, cell.id, classifier.clean, classifier.targets, outcome)
    return context.record(
        cell,
        "void" if voids(measured.findings) else "ok",
        measured.started,
        metrics=_metrics(classifier.right, robust, outcome.fooled),
        cost=measured.cost,
        training=classifier.training,
        evaluation=_evaluation(measured, classifier),
        curves=classifier.curves,
        verdicts=Verdicts.pack(classifier.right, robust),
        distances=classifier.distances(outcome),
        predictions=classifier.predictions(outcome),
        parts=_parts(classifier, outcome),
        shards=tuple(
            records.Shard(images=len(shard), device=shard.device, seconds=shard.seconds) for shard in measured.shards
        ),
        adapted=measured.adapted,
        findings=(*measured.findings, *failures),
        pictures=pictures and not failures,
    )


def _evaluation(measured: Measurement, classifier: Classifier) -> dict[str, Any]:
    """What the measures depend on, and how to read them."""
    source = {SOURCE_WEIGHTS: measured.attacker.weights} if measured.cell.source else {}
    constructed = {"constructed_examples": measured.constructed} if measured.constructed else {}
    names = {"class_names": list(classifier.class_names)} if classifier.class_names else {}
    return source | constructed | names


def _parts(classifier: Classifier, outcome: Outcome) -> tuple[Part, ...]:
    """The parts of an ensemble, each with the robust accuracy after it."""
    robust, index, parts = classifier.right.copy(), classifier.targets.index.cpu().numpy(), []
    for part in outcome.parts:
        fooled = np.zeros_like(robust)
        fooled[index[part.fooled]] = True
        robust &= ~fooled
        cost = {
            "seconds": part.seconds, "forwards": part.forwards, "backwards": part.backwards,
            "judge_forwards": part.judge_forwards,
            "gradients_per_image": part.backwards / part.attacked if part.attacked else 0.0,
        }  # fmt: skip
        parts.append(
            Part(
                name=part.name, robust_accuracy=proportion(robust), attacked=part.attacked, fooled=pack_bits(fooled),
                cost=cost,
            )
        )  # fmt: skip
    return tuple(parts)


def side_output(what: str, write: Callable[[], object]) -> list[Finding]:
    """Write something beside the record. What cannot be written is a finding and fails no measurement."""
    try:
        write()
    except InputError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM:
            raise  # there is no room for the record either
        return _not_written(what, error)
    # A profiler or a file system may raise anything; the record itself is written with its own errors.
    except Exception as error:  # noqa: BLE001
        return _not_written(what, error)
    return []


def _not_written(what: str, error: Exception) -> list[Finding]:
    fact = f"{what} could not be written ({summary(error)})"
    return [finding("output-failed", fact, output=what, error=type(error).__name__)]


def cost_of(outcome: Outcome, attacker: Attacker, context: Context, shards: Sequence[Shard] = ()) -> dict[str, Any]:
    """What an attack at one ε cost, as in the record. Call it before the audits: they would raise the peak memory.

    Of ``shards``, seconds are those of all devices together, and the peak is the largest of any device.
    """
    peaks = [shard.peak_bytes for shard in shards if shard.peak_bytes is not None]
    engine, seconds = attacker.engine, outcome.seconds
    attacked = len(outcome.fooled)
    one_run = {"radii_of_run": outcome.radii} if outcome.distances is not None else {}
    return {
        **one_run,
        "forwards": outcome.forwards,
        "backwards": outcome.backwards,
        "shared_backwards": outcome.shared_backwards,
        "judge_forwards": outcome.judge_forwards,
        "attacked": attacked,
        "gradients_per_image": outcome.gradients / attacked if attacked else 0.0,
        "seconds": seconds,
        "images_per_second": attacked / seconds if seconds else None,
        "gradients_per_second": outcome.gradients / seconds if seconds else None,
        "peak_bytes": max(peaks) if peaks else peak_bytes(context.device),
        "compile_seconds": engine.victim.compile_seconds,
        "floor_share": attacker.floor_share(outcome),
        "batch_size": engine.batch,
        "precision": engine.victim.precision,
        "form": engine.victim.form,
        "device": context.device_name(),
        "threads": torch.get_num_threads(),
    }


def _metrics(right: np.ndarray, robust: np.ndarray, fooled: np.ndarray) -> dict[str, Metric]:
    metrics = {"clean_accuracy": proportion(right), "robust_accuracy": proportion(robust)}
    if len(fooled):
        metrics["attack_success_rate"] = proportion(fooled)
    return metrics


def _pictures(targets: Targets, outcome: Outcome, judge: Judge) -> dict[str, np.ndarray]:
    k = min(PICTURES, len(outcome.images))
    at = torch.arange(k, device=targets.labels.device)
    original, labels = targets.pixels(at), targets.labels[:k].cpu().numpy()
    return {
        "original": original.cpu().numpy(),
        "adversarial": outcome.images[:k].numpy(),
        "labels": labels,
        "predicted": outcome.predicted[:k],
        "fooled": outcome.fooled[:k],
        **_scores(judge, targets, outcome.images[:k], outcome.predicted[:k]),
    }


def _scores(judge: Judge, targets: Targets, adversarial: Tensor, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """The judge's logits (k, classes) before and after the attack.

    They are left out where they do not give the recorded classes: a model that answers at random gives other logits
    than the ones that decided. Its random state stays as it is, so later verdicts do not depend on the pictures.
    """
    k = len(adversarial)
    at = torch.arange(k, device=targets.labels.device)
    labels, examples = targets.labels[:k], targets.index[:k]
    with generators_kept(judge.device):
        (before, was), (after, became) = (
            judge.verdict(images.to(judge.device, torch.float32), labels, k, examples)
            for images in (targets.pixels(at), adversarial)
        )
    agree = bool((was == labels).all()) and bool((became.cpu().numpy() == predicted).all())
    finite = bool(before.isfinite().all()) and bool(after.isfinite().all())
    return {"scores_before": before.cpu().numpy(), "scores_after": after.cpu().numpy()} if agree and finite else {}
