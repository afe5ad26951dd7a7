"""The split of the course assignment: all training images train, the test set is divided."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.data import load


def test_the_assignments_split_divides_the_test_set():
    train, validation, test = DATASETS["cifar10:assignment"].split()
    assert sorted(train) == list(range(50_000))
    assert (len(validation), len(test)) == (7_500, 2_500)
    assert sorted(np.concatenate([validation, test])) == list(range(10_000))


def test_the_split_is_another_one_than_that_of_cifar10():
    assert DATASETS["cifar10:assignment"].identity != DATASETS["cifar10"].identity


@pytest.mark.parametrize(("name", "pool_of_validation"), [("cifar10", 0), ("cifar10:assignment", 1)])
def test_each_part_is_read_from_where_the_split_says(monkeypatch, name, pool_of_validation):
    """Every image is its own index: pixel 0 says of which pool it is, the label which one."""
    sizes = (50_000, 10_000)

    def read(description, folder):
        pools = []
        for pool, n in enumerate(sizes):
            images = torch.full((n, 1, 1, 1), pool, dtype=torch.uint8)
            pools.append((images, torch.arange(n)))
        return tuple(pools)

    monkeypatch.setitem(load.SOURCES, name, load.Source(read, brightest=1))
    data = load.load_data(name, None, torch.device("cpu"))
    parts = [data.train, data.validation, data.test]
    assert [int(part.pixels().max()) for part in parts] == [0, pool_of_validation, 1]
    for part, index in zip(parts, DATASETS[name].split(), strict=True):
        assert part.labels.tolist() == index.tolist()
