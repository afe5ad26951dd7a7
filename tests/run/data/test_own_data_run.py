"""Suites on data of a user's own, from the file to the record and the report."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from epsbench.harness.errors import InputError
from epsbench.harness.evaluation import evaluation_of
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.report.build import report
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness.leaderboard import boards
from epsbench.harness.report.robustness.pictures import galleries
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = {data}
{training}
[robustness.matrix]
model = "smallcnn"
attack = "fgsm"
eps = ["8/255", 0.1]
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(tmp_path):
    digits = load_digits()
    images = np.round(digits.images[:, None] * (255 / 16)).astype(np.uint8)
    np.savez(tmp_path / "test.npz", images=images[:90], labels=digits.target[:90])
    np.savez(tmp_path / "train.npz", images=images[90:400], labels=digits.target[90:400])

    def measured(data: str, training: str = "") -> list:
        path = tmp_path / "own.toml"
        path.write_text(SUITE.format(data=data, training=training), encoding="utf-8")
        assert run_suite(load_suite(str(path)), tmp_path / "results", Options(quiet=True, device="cpu")) == 0
        return read_records(tmp_path / "results")

    return measured


def test_a_suite_trains_and_attacks_on_a_users_data(run, tmp_path):
    data = '{ name = "npz", path = "test.npz", train = "train.npz" }'
    records = run(data, "training = { epochs = 1 }")
    assert len(records) == 2
    cell = records[0].cell["data"]
    assert (cell["name"], cell["path"], cell["train"]) == ("npz", "test.npz", "train.npz")
    assert records[0].verdicts.n == 90
    text = report(tmp_path / "results")
    assert f"test.npz ({cell['content']})" in text
    assert str(tmp_path) not in (tmp_path / "results" / "cells" / f"{records[0].id}.json").read_text()


@pytest.mark.parametrize("task", ["robustness", "generation"])
def test_one_training_image_leaves_none_for_validation(tmp_path, task):
    x = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "few.npz", images=x, labels=np.arange(20) % 2, x_train=x[:1], y_train=np.zeros(1, int))
    attack = 'attack = "fgsm"\neps = 0.1' if task == "robustness" else "z_dim = 2"
    model = "smallcnn" if task == "robustness" else "vae"
    (tmp_path / "few.toml").write_text(
        f'[{task}]\ndata = "few.npz"\n[{task}.training]\nepochs = 1\n[{task}.matrix]\nmodel = "{model}"\n{attack}\n'
        + ("[generation.evaluation]\ngenerated = 0\n" if task == "generation" else "")
    )
    with pytest.raises(InputError, match=r"too few training images \(1\) to set one aside for validation; add some"):
        run_suite(load_suite(str(tmp_path / "few.toml")), tmp_path / "results", Options(quiet=True, device="cpu"))


@pytest.mark.parametrize(
    ("file", "message"),
    [("none.npz", r"data 'none\.npz .*' has no training split"), ("one.npz", r"training images \(1\)")],
)
def test_the_data_that_a_start_is_trained_on_needs_images_too(run, tmp_path, file, message):
    with np.load(tmp_path / "test.npz") as there:
        x, y = there[there.files[0]], there[there.files[1]]
    np.savez(tmp_path / "none.npz", images=x, labels=y)
    np.savez(tmp_path / "one.npz", images=x, labels=y, x_train=x[:1], y_train=y[:1])
    data = '{ name = "npz", path = "test.npz", train = "train.npz" }'
    start = f'[robustness.matrix.start.data]\nname = "npz"\npath = "{file}"\nclasses = 10\n'
    with pytest.raises(InputError, match=message):
        run(data, f"training = {{ epochs = 1 }}\n{start}")


def test_without_training_there_need_be_no_training_split(run):
    assert run('"test.npz"', "training = { epochs = 0 }")[0].training["epochs"] == 0
    with pytest.raises(InputError, match=r"'smallcnn' has to be trained, and data 'test\.npz .* no training split"):
        run('"test.npz"')


def test_pixels_of_floats_are_a_copy():
    raw = torch.rand(3, 1, 2, 2)
    before = raw.clone()
    examples = Examples(raw, torch.zeros(3, dtype=torch.int64), 1)
    for index in (None, slice(0, 2), torch.tensor([0, 1])):
        examples.pixels(index).zero_()
    assert torch.equal(raw, before)


def test_classes_have_their_names_wherever_they_are_shown(tmp_path):
    digits = load_digits()
    few = digits.target < 3
    names = ["zero", "<b>one</b>", "zwei ß"]
    images = np.round(digits.images[few][:, None] * (255 / 16)).astype(np.uint8)
    np.savez(tmp_path / "test.npz", images=images[:60], labels=digits.target[few][:60], class_names=names,
             x_train=images[60:260], y_train=digits.target[few][60:260])  # fmt: skip
    path = tmp_path / "own.toml"
    path.write_text(SUITE.format(data='"test.npz"', training="training = { epochs = 1 }"), encoding="utf-8")
    options = Options(quiet=True, device="cpu", keep_images=60)
    assert run_suite(load_suite(str(path)), tmp_path / "results", options) == 0
    records = read_records(tmp_path / "results")
    assert [record.evaluation["class_names"] for record in records] == [names, names]
    page = report(tmp_path / "results", "html")
    assert 'alt="original, label zero"' in page
    assert "<b>one" not in page
    assert '"names": ["zero", "' in page or '"names":["zero","' in page
    results = load_results(tmp_path / "results")
    (gallery, *_) = [each for board in boards(results) for each in galleries(board, results)]
    assert {each.label for each in gallery.examples} <= set(names)
    frame = evaluation_of(tmp_path / "results", records).frame()
    for column in ("label", "clean_class", "adversarial_class"):
        assert frame[f"{column}_name"].tolist() == [names[index] for index in frame[column]]
