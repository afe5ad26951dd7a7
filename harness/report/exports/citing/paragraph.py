"""The sentences of a methods paragraph: how a model was made, how it was measured, what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from epsbench.harness.plan.training_text import AS_GIVEN, own_training
from epsbench.harness.records import Metric, Record
from epsbench.harness.report.exports.citing.measures import AUDITS, CALIBRATION, MEASURES, SOFTWARE, works_of_measure
from epsbench.harness.report.exports.citing.works import (
    BETA,
    CORRUPTION,
    RANDOMNESS,
    SEVERAL_SOURCES,
    TRANSFER,
    parts_of,
    works_of_attack,
    works_of_model,
    works_of_models,
    works_of_name,
)
from epsbench.harness.report.results.cells import curve
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.results.units import (
    and_list,
    bits,
    bits_range,
    data_name,
    norm_name,
    percent,
    percent_range,
    plural,
    scalar,
    visible,
)
from epsbench.harness.report.robustness.classes import bins, calibration_error

CURVES = {
    "nested": "An image that is fooled at an ε counts as fooled at every larger ε",
    "bisect": "Bisection found the smallest ε that fools each image",
}
BITS = {
    "test_bpd": "the negative evidence lower bound",
    "importance_bpd": "the importance-weighted bound",
    "refined_bpd": "the bound after refinement of each posterior",
}


@dataclass(frozen=True)
class Sentence:
    """A sentence without its full stop, and the works that it cites."""

    text: str
    """The sentence."""
    cites: tuple[str, ...] = ()
    """Keys of works."""


def works(record: Record) -> list[str]:
    """The keys of the works that the paragraph of a cell cites, each once, in their order."""
    return list(dict.fromkeys(key for sentence in sentences(record) for key in sentence.cites))


def sentences(record: Record) -> list[Sentence]:
    """The methods and results of one cell."""
    made = [*_training(record)]
    made += _generation(record) if record.cell["task"] == "generation" else _robustness(record)
    return [*made, *_remarks(record), *_software(record)]


def _training(record: Record) -> Iterator[Sentence]:
    cell = record.cell
    model = visible(str(cell["model"]["name"])) + _given(cell["model"])
    count = record.training.get("parameters")
    size = f" with {count:,} parameters" if isinstance(count, int) else ""
    data = data_name(cell["data"])
    cites = works_of_model(cell)
    how = own_training(cell)
    if how in ("", AS_GIVEN):
        yield Sentence(f"We evaluate {model}{size} on {data}, with the weights that it came with", cites)
        return
    settings = f"{_settings(cell['training'])}; seed {scalar(cell['seed'])}"
    yield Sentence(f"We train {model}{size} on {data} for {how} ({settings})", cites)
    defense = cell.get("defense", {"name": "none"})
    if defense["name"] != "none":
        yield Sentence(
            f"The training loss is that of {visible(str(defense['name']))}{_given(defense)}",
            works_of_name("defense", str(defense["name"])),
        )
    if cell.get("augmentation", "none") != "none":
        yield Sentence(f"Training images are augmented with {scalar(cell['augmentation'])}")
    if "subset" in cell:
        yield Sentence(f"Only the {scalar(cell['subset'])} of the training images is used")
    if "start" in cell:
        start = cell["start"]
        recipe = start.get("training", {})
        epochs = recipe.get("epochs")
        other = f" for {plural(epochs, 'epoch')} ({_settings(recipe)})" if isinstance(epochs, int) else ""
        yield Sentence(
            f"Training begins with weights that were trained on {data_name(start['data'])}{other}",
            works_of_models(start),
        )


def _settings(recipe: Mapping[str, Any]) -> str:
    """The settings of a recipe that have an effect: ``"batch size 128, learning rate 0.1"``."""
    return ", ".join(
        f"{key.replace('_', ' ')} {scalar(value)}"
        for key, value in recipe.items()
        if value not in (None, 0.0, False) and not _is_idle(key, recipe)
    )


IDLE = {"gamma": ("schedule", "step"), "step_epochs": ("schedule", "step"), "momentum": ("optimizer", "sgd")}
"""Settings of a recipe that only count where another one has this value."""


def _is_idle(key: str, recipe: Mapping[str, Any]) -> bool:
    """Whether a setting has no effect in this recipe, or is in the sentence already."""
    if key in IDLE:
        other, value = IDLE[key]
        return other in recipe and recipe[other] != value
    return key == "epochs"


def _given(named: Mapping[str, Any]) -> str:
    """The parameters of a name: ``" (α = 0.5, ε = 0.3)"``."""
    values = [f"{visible(key)} = {_value(value)}" for key, value in named.items() if key != "name"]
    return f" ({', '.join(values)})" if values else ""


def _value(value: Any) -> str:
    """A parameter: a name with its own parameters, or a plain value."""
    return visible(str(value["name"])) + _given(value) if _is_named(value) else scalar(value)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and "name" in value


def _robustness(record: Record) -> Iterator[Sentence]:
    cell = record.cell
    attack = cell["attack"]
    n = record.verdicts.n if record.verdicts is not None else None
    images = f" on {n:,} test images" if n else ""
    if corruption := cell.get("corruption"):
        images += f" with {scalar(corruption.get('name'))} of severity {scalar(corruption.get('severity'))}"
    yield Sentence(
        f"Robustness is measured{images} with {visible(str(attack['name']))}{_attack_parameters(attack)} under "
        f"{norm_name(cell['norm'])} with ε = {scalar(cell['eps'])}, for pixels in [0, 1]",
        (*works_of_attack(attack), *works_of_name("norm", str(cell["norm"])), *(CORRUPTION if corruption else ())),
    )
    if (asked := cell.get("randomness")) is not None:
        samples, votes = (
            f"{scalar(asked.get(key))} {key if asked.get(key) != 1 else key[:-1]}" for key in ("samples", "votes")
        )
        yield Sentence(
            f"The model is random: the attack follows the mean of the loss over {samples}, an image has the class with "
            f"the most of {votes}, and a tie counts as wrong",
            RANDOMNESS,
        )
    if "source" in cell:
        first = cell["source"]
        models = [{key: value for key, value in first.items() if key != "with"}, *first.get("with", [])]
        cites = [key for axes in models for key in works_of_models(axes)]
        yield Sentence(
            f"The attack follows the gradients of {'another model' if len(models) == 1 else 'other models'}, "
            f"{Names([cell]).source(cell)}",
            (*TRANSFER, *(SEVERAL_SOURCES if len(models) > 1 else ()), *dict.fromkeys(cites)),
        )
    stop = (
        "An image that is fooled is not attacked further"
        if cell.get("early_stop", True)
        else "Every image takes every step"
    )
    yield Sentence(f"{stop}; images misclassified without an attack are not attacked and count as not robust")
    kind, _ = curve(cell)
    if kind in CURVES:
        yield Sentence(CURVES[kind])
    precision = record.cost.get("precision")
    fast = f" The attacked copy of the model computes in {scalar(precision)}." if precision else ""
    yield Sentence(f"{fast.strip()} The unmodified model in float32 decides whether an image is fooled".strip())
    if record.status == "ok":
        clean, robust = (record.metrics.get(name) for name in ("clean_accuracy", "robust_accuracy"))
        if clean is not None and robust is not None:
            yield Sentence(
                f"Clean accuracy is {_share(clean)} and robust accuracy {_share(robust)} (95 % Wilson intervals)",
                MEASURES["clean_accuracy"],
            )
        yield from _calibration(record)


def _calibration(record: Record) -> Iterator[Sentence]:
    """The calibration error without an attack, and under it where every confidence is known."""
    if record.predictions is None or not (answers := record.predictions.unpack()).labels.size:
        return
    shown = []
    for confidence, seen, when in (
        (answers.clean_confidence, answers.clean, "without an attack"),
        (answers.adversarial_confidence, answers.adversarial, "under it"),
    ):
        if not np.isnan(confidence).any():
            error = calibration_error(bins(confidence, seen == answers.labels))
            shown.append(f"{100 * error:.1f} percentage points {when}")
    if shown:
        yield Sentence(f"The expected calibration error is {and_list(shown)}", CALIBRATION)


def _attack_parameters(attack: Mapping[str, Any]) -> str:
    parts = [_value(part) for part in parts_of(attack)]
    made = f", made of {and_list(parts)}," if parts else ""
    return _given({key: value for key, value in attack.items() if key != "parts" or not parts}) + made


def _share(metric: Metric) -> str:
    return f"{percent(metric.value)} {percent_range(metric.low, metric.high)}".strip()


def _generation(record: Record) -> Iterator[Sentence]:
    cell = record.cell
    yield Sentence(
        f"The model has {scalar(cell['z_dim'])} latent dimensions, and the KL divergence has the weight "
        f"β = {scalar(cell['beta'])}",
        BETA if cell["beta"] != 1.0 else (),
    )
    if levels := record.evaluation.get("grey_levels"):
        yield Sentence(f"The likelihood is over {scalar(levels)} grey levels, in bits per dimension")
    for name, what in BITS.items():
        if (metric := record.metrics.get(name)) is not None and record.status == "ok":
            value = f"{bits(metric.value)} {bits_range(metric.low, metric.high)}".strip()
            images = f" over {metric.n:,} images" if metric.n else ""
            yield Sentence(
                f"On test images {what} is {value} bits per dimension (95 % Student-t interval{images})", MEASURES[name]
            )
    other = [name for name in record.metrics if name not in BITS and not name.startswith("floor_")]
    if other:
        keys = dict.fromkeys(key for name in other for key in works_of_measure(name))
        shown = and_list([visible(name).replace("_", " ") for name in other])
        yield Sentence(f"We also measure {shown}", tuple(keys))


def _remarks(record: Record) -> Iterator[Sentence]:
    if record.failure is not None:
        yield Sentence(f"The cell failed: {visible(record.failure.text)}")
    for finding in record.findings:
        yield Sentence(
            f"An audit remarks ({finding.severity}, {visible(finding.code)}): {visible(finding.message)}",
            AUDITS.get(finding.code, ()),
        )


def _software(record: Record) -> Iterator[Sentence]:
    environment = record.environment
    version, torch = environment.get("epsbench"), environment.get("packages", {})
    torch = torch.get("torch") if isinstance(torch, Mapping) else None
    tools = [f"epsbench {scalar(version)}"] if version else ["epsbench"]
    tools += [f"PyTorch {scalar(torch)}"] if torch else ["PyTorch"]
    device = record.cost.get("device")
    where = f" on {visible(str(device))}" if device else ""
    yield Sentence(f"Everything was computed with {and_list(tools)}{where} (cell {record.id})", SOFTWARE)
