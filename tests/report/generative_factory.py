"""Synthetic records of generative models with every measure, as a run with its evaluation would have written them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import factory
import numpy as np

from epsbench.harness.records import Metric, Record
from epsbench.harness.report.drawing.table import Table
from epsbench.harness.report.generative.settings import Setting, settings
from epsbench.harness.report.generative.tables import GenerativeTables, generative_tables
from epsbench.harness.report.results.loading import Results

EVALUATION = {
    "importance_samples": 100,
    "long_importance_samples": 5000,
    "long_images": 1000,
    "prior_samples": 10_000,
    "generated": 10_000,
    "gradient_samples": 100,
}
FEATURES = "0123456789abcdef" * 4
QUALITY = {
    "frechet_distance": 21.7,
    "kernel_distance": 0.0123,
    "precision": 0.71,
    "recall": 0.64,
    "density": 0.66,
    "coverage": 0.73,
    "frechet_distance_infinite": 20.9,
    "likelihood_divergence": 3.4,
    "likelihood_gap": -9.1,
    "clipped_density": 0.69,
    "clipped_coverage": 0.66,
    "neighbour_distance": 5.2,
}
FLOOR = {
    "frechet_distance": 0.42,
    "kernel_distance": 0.00011,
    "precision": 0.96,
    "recall": 0.95,
    "density": 1.01,
    "coverage": 0.97,
    "frechet_distance_infinite": 0.02,
    "likelihood_gap": -8.7,
    "clipped_density": 1.0,
    "clipped_coverage": 0.99,
    "neighbour_distance": 4.9,
}
DIMENSION_NATS = 784 * np.log(2)


def metric(value: float, error: float | None = None, n: int | None = 10_000) -> Metric:
    if error is None:
        return Metric(value=value, n=n)
    return Metric(value=value, low=value - 1.96 * error, high=value + 1.96 * error, n=n)


def quality(scale: float = 1.0) -> dict[str, Metric]:
    samples = {
        name: metric(value * (scale if name.endswith("distance") else 1 / scale)) for name, value in QUALITY.items()
    }
    return samples | {f"floor_{name}": metric(value) for name, value in FLOOR.items()}


def model(
    test_bpd: float = 0.52,
    *,
    z_dim: int = 20,
    beta: float = 1.0,
    active: int | None = None,
    rate: float = 0.083,
    gap: float = 0.0123,
    prior_gap: float | None = None,
    features: str = FEATURES,
    **axes: Any,
) -> Record:
    """A VAE with all that is measured of one; ``rate`` in bits per dimension, ``gap`` what IWAE lies below."""
    axes = {"evaluation": EVALUATION} | axes
    record = factory.generation(test_bpd, z_dim=z_dim, beta=beta, **axes)
    active = z_dim if active is None else active
    prior_gap = 0.018 * z_dim - 0.04 if prior_gap is None else prior_gap
    nats = rate * DIMENSION_NATS
    rates = np.zeros(z_dim)
    rates[:active] = np.linspace(2, 1, active) if active else 0
    rates *= nats / max(rates.sum(), 1e-9)
    metrics = {
        "rate_bpd": metric(rate, 0.0002),
        "distortion_bpd": metric(test_bpd - rate, 0.002),
        "importance_bpd": metric(test_bpd - gap, 0.002),
        "importance_gap_bpd": metric(gap, 0.0001),
        "long_importance_bpd": metric(test_bpd + 0.004 - 1.3 * gap, 0.006, 1000),
        "long_elbo_bpd": metric(test_bpd + 0.004, 0.006, 1000),
        "prior_bpd": metric(test_bpd + prior_gap, 0.003),
        "kl_closed_nats": metric(nats, 0.1),
        "kl_monte_carlo_nats": metric(nats + 0.02, 0.11),
        "active_units": metric(active, None, z_dim),
        "mutual_information_nats": metric(min(nats, 9.0), 0.05),
        "marginal_kl_nats": metric(max(nats - 9.0, 0.0)),
        "probe_accuracy": metric(0.9 - 0.6 / (1 + z_dim), 0.003),
        "reparameterised_gradient_variance": metric(812.0, None, 100),
        "score_gradient_variance": metric(8.12e9, None, 100),
        "score_baseline_gradient_variance": metric(4.06e5, None, 100),
    } | quality()
    k, long_k, count = [1, 2, 5, 10, 20, 50, 100], [1, 10, 100, 1000, 5000], [1, 10, 100, 1000, 10_000]

    def rising(ks: list[int], full: float) -> list[float]:
        return [test_bpd - full * np.log(n) / np.log(ks[-1]) for n in ks]

    curves = {
        "importance_k": k,
        "importance_bpd": rising(k, gap),
        "importance_bpd_error": [0.0013] * len(k),
        "long_importance_k": long_k,
        "long_importance_bpd": [value + 0.004 for value in rising(long_k, 1.3 * gap)],
        "long_importance_bpd_error": [0.004] * len(long_k),
        "prior_l": count,
        "prior_bpd": [test_bpd + prior_gap + 0.35 * (4 - i) ** 1.3 for i in range(5)],
        "prior_bpd_error": [0.01 * (5 - i) for i in range(5)],
        "dimension_rate_nats": rates.tolist(),
        "dimension_mean_variance": [0.9 if value else 0.001 for value in rates],
    }
    return record.model_copy(
        update={
            "metrics": record.metrics | metrics,
            "curves": record.curves | curves,
            "evaluation": {
                "feature_weights_sha256": features,
                "feature_accuracy": 0.9912,
                "seconds": {"bounds": 60.0, "quality": 30.0},
            },
        }
    )


def autoencoder(distortion: float = 0.4, **axes: Any) -> Record:
    """A plain autoencoder: it bounds no likelihood."""
    record = model(model={"name": "autoencoder", "filters": 32, "levels": 16}, **axes)
    kept = {"probe_accuracy": record.metrics["probe_accuracy"], "distortion_bpd": metric(distortion, 0.002)}
    curves = {"train_bpd": record.curves["train_bpd"]}
    return record.model_copy(update={"metrics": kept | quality(4.0), "curves": curves})


def with_pictures(record: Record, seed: int = 0, side: int = 28, channels: int = 1) -> tuple[Record, dict[str, Any]]:
    """The record, saying that it has pictures, and smooth random ones: blobs that tighten over the epochs."""
    generator = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:side, 0:side] / side

    def images(*count: int, width: float = 0.03) -> np.ndarray:
        centres = generator.uniform(0.25, 0.75, (*count, 2, 1, 1))
        other = generator.uniform(0.25, 0.75, (*count, 2, 1, 1))
        blobs = sum(
            np.exp(-((ys - at[..., 0, :, :]) ** 2 + (xs - at[..., 1, :, :]) ** 2) / width) for at in (centres, other)
        )
        return np.repeat(np.clip(blobs, 0, 1)[..., None, :, :], channels, axis=-3).astype(np.float32)

    arrays = {
        "samples_epoch_0000": generator.random((64, channels, side, side), dtype=np.float32),
        "samples_epoch_0010": images(64, width=0.05),
        "samples_epoch_0080": images(64, width=0.015),
        "reconstructions": images(2, 8),
        "interpolations": images(8, 10),
        "neighbours": images(2, 8),
    }
    if record.cell["z_dim"] == 2:
        arrays["manifold"] = images(400)
    return record.model_copy(update={"pictures": True}), arrays


def made(*records: Record) -> list[Setting]:
    """The settings of these records."""
    return settings(Results(Path("results"), records, ()))


def tables(*records: Record) -> GenerativeTables:
    """The tables of these records."""
    return generative_tables(made(*records))


def column(table: Table, title: str) -> list[str]:
    """The entries of the column with this title."""
    (index,) = [index for index, head in enumerate(table.columns) if head.title == title]
    return [row[index].plain for row in table.rows]


def refined(gap: float = 0.02, images: int = 1000, **axes: Any) -> Record:
    """A VAE with the refined bound, too."""
    record = model(0.52, evaluation=EVALUATION | {"refinement_steps": 50, "refined_images": images}, **axes)
    metrics = {
        "refined_bpd": metric(0.51 - gap, 0.001, images),
        "amortisation_gap_bpd": metric(gap, 0.0001, images),
    }
    return record.model_copy(update={"metrics": record.metrics | metrics})
