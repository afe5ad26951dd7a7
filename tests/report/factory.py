"""Synthetic records: what a run would have written, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from epsbench.harness.digest import cell_id, digest
from epsbench.harness.findings import Finding
from epsbench.harness.records import Failure, Metric, Record, Verdicts, write_pictures, write_record
from epsbench.harness.statistics import wilson

ENVIRONMENT = {
    "epsbench": "0.1.0",
    "git": {"commit": "0" * 40, "dirty": False},
    "device": "NVIDIA H200",
    "flags": {"tf32": False, "cudnn_benchmark": True},
    "collect_env": "PyTorch version: 2.11\nIs debug build: False",
}
TRAINING = {"batch_size": 128, "epochs": 10, "learning_rate": 0.001}


def proportion(bits: np.ndarray) -> Metric:
    low, high = wilson(int(bits.sum()), len(bits))
    return Metric(value=float(bits.mean()) if len(bits) else 0.0, low=low, high=high, n=len(bits))


def robustness_cell(**axes: Any) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "task": "robustness",
        "data": "mnist",
        "model": {"name": "smallcnn"},
        "defense": {"name": "none"},
        "augmentation": "none",
        "training": TRAINING,
        "attack": {"name": "pgd", "random_start": False, "restarts": 1, "steps": 10},
        "norm": "linf",
        "eps": "0.3",
        "seed": 0,
        "limit": None,
        "precision": "auto",
        "early_stop": True,
        "curve": "each",
    }
    return cell | axes


def robustness(
    clean: np.ndarray | list[bool],
    robust: np.ndarray | list[bool],
    *,
    weights: str | None = None,
    code: dict[str, str] | None = None,
    findings: tuple[Finding, ...] = (),
    started: str = "2026-01-01T00:00:00+00:00",
    pictures: bool = False,
    images_per_second: float = 1000.0,
    suite: str = "mnist",
    description: str = "",
    **axes: Any,
) -> Record:
    cell = robustness_cell(**axes)
    clean, robust = np.asarray(clean, dtype=bool), np.asarray(robust, dtype=bool)
    steps = cell["attack"].get("steps", 0)
    way = {key: cell[key] for key in ("data", "model", "defense", "augmentation", "training", "seed")}
    return Record(
        id=cell_id(cell, code or {}),
        status="ok",
        suite=suite,
        description=description,
        cell=cell,
        code=code or {},
        metrics={
            "clean_accuracy": proportion(clean),
            "robust_accuracy": proportion(robust),
            "attack_success_rate": proportion(~robust[clean]),
        },
        cost={
            "forwards": len(clean) * (steps + 1),
            "backwards": len(clean) * steps,
            "gradients_per_image": float(steps),
            "seconds": len(clean) / images_per_second,
            "images_per_second": images_per_second,
            "gradients_per_second": steps * images_per_second,
            "peak_bytes": 3 * 2**30,
            "compile_seconds": 0.0,
            "batch_size": 512,
            "precision": "bf16",
            "device": "NVIDIA H200",
        },
        training={
            "seconds": 61.5,
            "epochs": 10,
            "images_per_second": 9000.0,
            "weights_sha256": weights or digest(way),
            "parameters": 421_642,
            "cached": False,
        },
        curves={
            "train_loss": [1.0 / (epoch + 1) for epoch in range(10)],
            "train_accuracy": [1 - 0.5 / (epoch + 1) for epoch in range(10)],
            "validation_accuracy": [1 - 0.55 / (epoch + 1) for epoch in range(10)],
        },
        verdicts=Verdicts.pack(clean, robust),
        findings=findings,
        pictures=pictures,
        environment=ENVIRONMENT,
        started=started,
        finished=started,
    )


def failed(message: str = "out of memory at batch 1", **axes: Any) -> Record:
    cell = robustness_cell(**axes)
    return Record(
        id=cell_id(cell, {}),
        status="failed",
        suite="mnist",
        cell=cell,
        failure=Failure(type="RuntimeError", message=message, traceback=f"Traceback ...\nRuntimeError: {message}"),
        environment=ENVIRONMENT,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:00:01+00:00",
    )


def void(clean: Any, robust: Any, **axes: Any) -> Record:
    finding = Finding(code="no-op", severity="void", message="nothing moved", evidence={"moved": 0})
    return robustness(clean, robust, findings=(finding,), **axes).model_copy(update={"status": "void"})


def generation(
    test_bpd: float = 0.52, *, error: float = 0.002, pictures: bool = False, epochs: int = 80, **axes: Any
) -> Record:
    cell = {
        "task": "generation",
        "data": "mnist",
        "model": {"name": "vae", "filters": 32, "levels": 16},
        "z_dim": 20,
        "beta": 1.0,
        "training": TRAINING,
        "seed": 0,
        "limit": None,
        "precision": "auto",
    } | axes

    def metric(value: float) -> Metric:
        return Metric(value=value, low=value - 1.96 * error, high=value + 1.96 * error, n=10_000)

    fall = [test_bpd + 3.4 / (1 + epoch) ** 1.5 for epoch in range(epochs)]
    return Record(
        id=cell_id(cell, {}),
        status="ok",
        suite="mnist",
        cell=cell,
        metrics={
            "train_bpd": metric(test_bpd - 0.008),
            "validation_bpd": metric(test_bpd + 0.002),
            "test_bpd": metric(test_bpd),
            "rate_bpd": metric(0.083),
            "distortion_bpd": metric(test_bpd - 0.083),
        },
        cost={
            "training_seconds": 240.0,
            "training_images_per_second": 18_000.0,
            "peak_bytes": 2**30,
            "seconds": 250.0,
            "precision": "bf16",
            "device": "NVIDIA H200",
        },
        training={"seconds": 240.0, "epochs": epochs, "images_per_second": 18_000.0, "weights_sha256": digest(cell)},
        curves={"train_bpd": fall, "validation_bpd": [value + 0.004 for value in fall]},
        pictures=pictures,
        environment=ENVIRONMENT,
        started="2026-01-01T00:10:00+00:00",
        finished="2026-01-01T00:15:00+00:00",
    )


def of_cell(record: Record, cell: dict[str, Any], code: dict[str, str] | None = None) -> Record:
    """The same measurement of another cell, under the id of that cell."""
    code = code or {}
    return record.model_copy(update={"id": cell_id(cell, code), "cell": cell, "code": code})


def write(folder: Path, *records: Record, pictures: dict[str, dict[str, np.ndarray]] | None = None) -> Path:
    """Write records, and the pictures given by record id, as a run would."""
    for record in records:
        if pictures and record.id in pictures:
            write_pictures(folder, record.id, pictures[record.id])
        write_record(folder, record)
    return folder
