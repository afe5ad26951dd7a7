"""What a run needs again of a record: its status, what was attacked, what it took, and how long. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epsbench.harness.digest import digest
from epsbench.harness.records import Record, Status, Verdicts
from epsbench.harness.records.numbers import finite_number

CELL_KEYS = ("attack", "norm", "eps")
COST_KEYS = ("forwards", "backwards", "shared_backwards")
MODEL_KEYS = ("data", "model", "defense", "augmentation", "subset", "start", "seed", "test_images", "randomness")


def work_key(cell: Mapping[str, Any]) -> str:
    """A hash of what decides the time of a measurement on a model: cells with equal keys take about as long an image.

    ε, seeds, training and defense are left out, and so is the number of images.
    """
    keys = (
        "task", "data", "model", "attack", "norm", "early_stop", "curve", "precision", "randomness", "evaluation",
        "z_dim",
    )  # fmt: skip
    return digest({key: cell[key] for key in keys if key in cell})


def network_key(cell: Mapping[str, Any]) -> str:
    """A hash of what decides the time of a gradient: data, model and precision."""
    return digest({key: cell[key] for key in ("task", "data", "model", "precision") if key in cell})


def training_key(cell: Mapping[str, Any]) -> str:
    """A hash of what decides the time of an image in training; the number of epochs and of images is left out."""
    recipe = cell.get("training", {})
    keys = ("task", "data", "model", "defense", "augmentation", "z_dim", "precision")
    return digest({key: cell[key] for key in keys if key in cell} | {"batch": recipe.get("batch_size")})


@dataclass(frozen=True)
class Timing:
    """How long a record's measurement took, and on what, as far as the record says it."""

    device: str = ""
    """The device's name."""

    work: str = ""
    """Its `work_key`."""

    network: str = ""
    """Its `network_key`."""

    trained_by: str = ""
    """Its `training_key`."""

    image_seconds: float | None = None
    """Seconds of attack or measures, with audits, for each test image."""

    gradient_seconds: float | None = None
    """Seconds of the attack for each gradient."""

    training_image_seconds: float | None = None
    """Seconds of training for each image of each epoch, with what is measured between epochs."""

    @classmethod
    def of(cls, record: Record) -> Timing:
        """The timing of a record; empty where it was not measured."""
        if record.status != "ok":
            return cls()
        cost, training = record.cost, record.training
        seconds, images = finite_number(cost.get("seconds")), _images(record)
        taken = None if seconds is None else seconds + (finite_number(cost.get("audit_seconds")) or 0.0)
        gradients = (finite_number(cost.get("backwards")) or 0) + (finite_number(cost.get("shared_backwards")) or 0)
        rate, trained = finite_number(training.get("images_per_second")), finite_number(training.get("seconds"))
        watched = (finite_number(training.get("watch_seconds")) or 0.0) / trained if trained else 0.0
        return cls(
            device=str(cost.get("device", "")),
            work=work_key(record.cell),
            network=network_key(record.cell),
            trained_by=training_key(record.cell),
            image_seconds=taken / images if taken is not None and images else None,
            gradient_seconds=seconds / gradients if seconds and gradients else None,
            training_image_seconds=(1 + watched) / rate if rate else None,
        )


def _images(record: Record) -> int:
    """The number of test images that a cell was measured on."""
    if record.verdicts is not None:
        return record.verdicts.n
    return max((metric.n or 0 for metric in record.metrics.values()), default=0)


def model_key(cell: Mapping[str, Any], code: Mapping[str, str]) -> str:
    """A hash of what makes a cell's model besides its weights: its axes as a record holds them, and its code."""
    return digest({"cell": {key: cell[key] for key in MODEL_KEYS if key in cell}, "code": code.get("model", "")})


@dataclass(frozen=True)
class Entry:
    """The part of a record that a run needs again. Whole records of a large suite would not fit in memory."""

    id: str
    """The cell's id."""

    status: Status
    """Of the record: ok, failed or void."""

    weights: str = ""
    """The SHA-256 of the trained weights, empty where the record names none."""

    cell: Mapping[str, Any] = field(default_factory=dict)
    """Attack, norm and ε of a robustness cell, as in the record."""

    cost: Mapping[str, Any] = field(default_factory=dict)
    """Forwards and backwards, as in the record."""

    finished: str = ""
    """When it was measured, UTC, ISO 8601."""

    verdicts: Verdicts | None = None
    """Of a measured robustness cell whose attack followed the gradients of the model itself, else None."""

    model: str = ""
    """The `model_key` of its cell."""

    timing: Timing = Timing()
    """How long it took."""

    whole: bool = True
    """Whether `verdicts` is what the record says; otherwise it was left out, and the record has to be read for it."""

    @classmethod
    def of(cls, record: Record) -> Entry:
        """The entry of a record."""
        # Adversarial images made on another model do not show how strong an attack is on this one.
        white_box = record.cell.get("task") == "robustness" and not {"source", "corruption"} & record.cell.keys()
        return cls(
            id=record.id,
            status=record.status,
            weights=str(record.training.get("weights_sha256", "")),
            cell={key: record.cell[key] for key in CELL_KEYS if key in record.cell},
            cost={key: record.cost[key] for key in COST_KEYS if key in record.cost},
            verdicts=record.verdicts if white_box and record.status == "ok" else None,
            model=model_key(record.cell, record.code),
            finished=record.finished,
            timing=Timing.of(record),
        )
