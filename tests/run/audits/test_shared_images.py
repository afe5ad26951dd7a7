"""Test images that are training images, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.audits.shared_images import audit_shared_images
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.runner import run_suite


def own(train, test, content="own"):
    data = load_data("digits", None, torch.device("cpu"), limit=4)
    parts = [Examples(part, torch.zeros(len(part), dtype=torch.int64), 255 if part.dtype == torch.uint8 else 1)
             for part in (train, test)]  # fmt: skip
    return replace(
        data,
        description=replace(data.description, content=content),
        train=parts[0],
        validation=parts[0][:0],
        test=parts[1],
    )


def images(n, seed):
    return torch.randint(256, (n, 1, 6, 6), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_images_in_both_splits_are_counted_and_named():
    train, test = images(3000, 0), images(50, 1)
    test[7], test[31] = train[2999], train[0]
    (seen,) = audit_shared_images(own(train, test))
    assert seen.evidence == {"shared": 2, "images": 50, "first": [7, 31]}
    assert "2 of 50 test images are training or validation images, too (the first is test image 7)" in seen.message


def test_images_equal_at_256_levels_are_equal():
    train, test = images(20, 0), images(20, 1).float() / 255
    test[3] = train[11].float() / 255 + 0.001
    test[4] = train[11].float() / 255 + 1 / 255  # one level brighter is another image
    (seen,) = audit_shared_images(own(train, test.clamp(0, 1)))
    assert seen.evidence["first"] == [3]


@pytest.mark.parametrize("content", ["", "own"])
def test_other_images_and_data_that_comes_along_give_no_finding(content):
    train = images(20, 0)
    assert not list(audit_shared_images(own(train, images(20, 1), content)))
    assert bool(list(audit_shared_images(own(train, train, content)))) == (content == "own")


def test_a_run_on_own_data_says_so_once_a_cell(tmp_path):
    x = np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32)
    y = np.arange(60) % 10
    for name, rows in (("train", slice(0, 40)), ("test", slice(35, 60))):
        np.savez(tmp_path / f"{name}.npz", images=x[rows], labels=y[rows])
    (tmp_path / "own.toml").write_text(
        """
        [robustness]
        data = { name = "npz", path = "test.npz", train = "train.npz" }
        training = { epochs = 1 }
        matrix = { model = { name = "smallcnn", width = 2 }, attack = "fgsm", eps = 0.1 }
        """
    )
    run_suite(load_suite(tmp_path / "own.toml"), tmp_path / "results", Options(quiet=True))
    (record,) = read_records(tmp_path / "results")
    (seen,) = [each for each in record.findings if each.code == "shared-images"]
    assert (seen.evidence["shared"], seen.evidence["images"]) == (5, 25)
