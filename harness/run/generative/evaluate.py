"""Everything that is measured of a trained generative model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.bounds import bounds, bounds_work
from epsbench.harness.run.generative.estimators import estimators
from epsbench.harness.run.generative.latent import latent, latent_work
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.parts import Parts
from epsbench.harness.run.generative.posterior import Posterior, negative_elbo
from epsbench.harness.run.generative.quality import STEPS, quality
from epsbench.harness.run.generative.refinement import refinement, refinement_work
from epsbench.harness.run.generative.witness import Witness
from epsbench.harness.run.metrics import mean_metric
from epsbench.harness.run.progress import Reporter
from epsbench.harness.run.training.vae import evaluate_vae
from epsbench.models.vae import VAENetwork, bits_per_dimension


@dataclass(frozen=True)
class Measure:
    """One kind of measure."""

    title: str
    """What the progress line and the record's ``seconds`` call it."""

    work: int
    """The number of units of work: what the calls of ``advance`` add up to."""

    take: Callable[[Advance], Measured]
    """Takes the measure, and calls its argument as it proceeds."""


@dataclass(frozen=True)
class Subject:
    """A trained model, and how it is measured."""

    vae: VAENetwork
    """The model. `evaluate` wraps it in `epsbench.harness.run.generative.parts.Parts`, unless it is wrapped already."""

    data: Data
    """The images: of the test split, and those that it was trained on."""

    evaluation: Mapping[str, int]
    """How many samples, images or steps each measure takes; a measure with 0 of them is left out."""

    seed: int
    """Keys the noise of all measures."""

    witness: Witness = field(default_factory=Witness)
    """Is given the name of each measure before it begins."""


def evaluate(subject: Subject, weights_folder: Path, progress: Reporter, label: str) -> Measured:
    """All measures of the subject that its evaluation asks for, in float32, and the seconds that each of them took.

    ``weights_folder`` keeps the weights of the network whose features compare samples. Progress is shown under
    ``label``. Of a plain autoencoder only the distortion and the quality of its samples are measured, because it bounds
    no likelihood and has no rate. Raises `ArithmeticError`, naming the measure, where its values are not finite.
    """
    if not isinstance(subject.vae, Parts):
        parts = Parts(subject.vae, subject.data.description.shape, subject.witness)
        subject = replace(subject, vae=parts)
    began = time.perf_counter()
    subject.witness.measure = "elbo"
    with _named("the ELBO"):
        measured, elbo_bpd, posteriors = _elbo(subject)
    seconds = {"elbo": time.perf_counter() - began}
    for measure in _measures(subject, elbo_bpd, posteriors, weights_folder):
        began = time.perf_counter()
        subject.witness.measure = measure.title
        with progress.task(f"{measure.title} of {label}", measure.work) as task, _named(measure.title):
            measured |= measure.take(task.advance)
        seconds[measure.title] = time.perf_counter() - began
    return measured | Measured(evaluation={"grey_levels": subject.vae.levels, "seconds": seconds})


@contextmanager
def _named(measure: str) -> Iterator[None]:
    """Says in an `ArithmeticError` which measure raises it, and what to do."""
    try:
        yield
    except ArithmeticError as error:
        remedy = "bound the encoder's log-std and the decoder's logits, or train with a lower learning_rate"
        raise ArithmeticError(f"{measure}: {error}; {remedy}") from error


def _elbo(subject: Subject) -> tuple[Measured, Tensor, dict[str, Posterior]]:
    """Distortion, rate and their sum, that sum of every test example, in bits per dimension, and the posteriors.

    The posteriors are those of the test and the training images, by split. A plain autoencoder has none.
    """
    vae, data, seed = subject.vae, subject.data, subject.seed
    if vae.deterministic:
        bpd = evaluate_vae(vae, data.test, seed, "float32")[:, 0].cpu()
        return Measured({"distortion_bpd": mean_metric(bpd)}, each={"distortion_bpd": bpd}), bpd, {}
    vae.eval()
    each, posteriors = {}, {}
    for name in ("test", "train", "validation"):
        nats, posteriors[name] = negative_elbo(vae, getattr(data, name), seed)
        each[name] = bits_per_dimension(nats.double(), vae.shape).cpu()
    distortion, rate = each["test"].unbind(1)
    bounds_of = {f"{name}_bpd": each[name].sum(1) for name in ("train", "validation", "test")}
    metrics = {name: mean_metric(bpd) for name, bpd in bounds_of.items()}
    metrics |= {"rate_bpd": mean_metric(rate), "distortion_bpd": mean_metric(distortion)}
    return Measured(metrics, each=bounds_of), bounds_of["test_bpd"], posteriors


def _measures(
    subject: Subject, elbo_bpd: Tensor, posteriors: Mapping[str, Posterior], weights_folder: Path
) -> Iterator[Measure]:
    vae, data, evaluation, seed = subject.vae, subject.data, subject.evaluation, subject.seed
    if not vae.deterministic:
        if work := bounds_work(vae, len(data.test), evaluation):
            yield Measure("bounds", work, lambda advance: bounds(vae, data.test, evaluation, seed, elbo_bpd, advance))
        if work := refinement_work(len(data.test), evaluation):
            yield Measure(
                "refined posteriors",
                work,
                lambda advance: refinement(vae, data.test, evaluation, seed, elbo_bpd, advance),
            )
        known = posteriors["test"], posteriors["train"]
        yield Measure("latent space", latent_work(data), lambda advance: latent(vae, data, *known, seed, advance))
        if draws := evaluation["gradient_samples"]:
            yield Measure(
                "gradient estimators", 2 * draws, lambda advance: estimators(vae, data.test, draws, seed, advance)
            )
    if evaluation["generated"]:
        yield Measure("samples", STEPS, lambda advance: quality(vae, data, evaluation, seed, weights_folder, advance))
