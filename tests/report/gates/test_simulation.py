"""`compare` under simulation: few false alarms, and real differences are detected.

Each comparison is a family of 18 cells of 10,000 images, judged as `epsbench compare` judges it.
"""

from __future__ import annotations

import numpy as np
import pytest

from epsbench.harness.report.gates.compare import Test, judge, paired
from epsbench.harness.statistics import mcnemar_exact

CELLS, N, COMPARISONS = 18, 10_000, 1_000


def family(losses: np.ndarray, gains: np.ndarray) -> list[Test]:
    """The tests of one comparison from the counts of changed verdicts, one a cell."""
    return [
        Test("", "robust accuracy", "", mcnemar_exact(b, c), b > c, b + c, N)
        for b, c in zip(losses.tolist(), gains.tolist(), strict=True)
    ]


def alarms(losses: np.ndarray, gains: np.ndarray) -> float:
    """The share of comparisons in which something is called worse; counts have shape (comparisons, cells)."""
    called = ["worse" in judge(family(b, c))[1] for b, c in zip(losses, gains, strict=True)]
    return sum(called) / len(called)


def test_counts_stand_for_verdicts():
    """What `family` builds is what compare builds from per-example verdicts."""
    rng = np.random.default_rng(0)
    before, after = rng.random(N) < 0.5, rng.random(N) < 0.48
    lost, gained = (before & ~after).sum(), (~before & after).sum()
    (counted,), real = family(np.array([lost]), np.array([gained])), paired("robust accuracy", before, after, "")
    assert (counted.p, counted.worsened, counted.changed, counted.n) == (
        real.p, real.worsened, real.changed, real.n
    )  # fmt: skip


@pytest.mark.parametrize("flips", [3, 30, 300])
def test_unchanged_models_raise_a_false_alarm_in_at_most_one_comparison_of_a_hundred(flips):
    """Nondeterminism turns about ``flips`` verdicts of a cell each way."""
    rng = np.random.default_rng(flips)
    losses, gains = rng.poisson(flips, (2, COMPARISONS, CELLS))
    assert alarms(losses, gains) <= 0.01


def test_false_alarms_stay_rare_where_the_cells_of_a_model_flip_together():
    rng = np.random.default_rng(1)
    shared = rng.poisson(30, (2, COMPARISONS, 3)).repeat(CELLS // 3, axis=2)
    losses, gains = rng.binomial(shared, 0.8)
    assert alarms(losses, gains) <= 0.01


@pytest.mark.parametrize("flips", [3, 30, 300])
def test_a_drop_of_two_points_in_one_cell_is_caught(flips):
    """One cell of the family loses 2 points on top of the flips, sampled image by image."""
    rng = np.random.default_rng(flips)
    losses, gains = rng.poisson(flips, (2, COMPARISONS, CELLS))
    losses[:, 0] += rng.binomial(N, 0.02, COMPARISONS)
    assert alarms(losses, gains) >= 0.99


def test_a_drop_of_two_points_among_families_of_unpaired_weights_is_caught():
    """Even where a tenth of all verdicts changes, as between two trainings."""
    rng = np.random.default_rng(2)
    losses, gains = rng.binomial(N, [[[0.06]], [[0.04]]], (2, COMPARISONS, CELLS))
    assert alarms(losses, gains) >= 0.99
