"""How long the rest takes, by what records of this machine took; and the order of a run with a time limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from epsbench.harness.hardware import device_names
from epsbench.harness.listing import estimate_text, plan_table
from epsbench.harness.plan import estimate
from epsbench.harness.plan.estimate import Estimate, Estimator
from epsbench.harness.plan.index_file import FEWEST
from epsbench.harness.plan.order import cheapest_first
from epsbench.harness.plan.plan import Job, Plan, examples, plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Metric, Record, write_record

SUITE = """
[robustness]
data = "digits"
limit = 100
training = { epochs = 4 }
[robustness.matrix]
model = "smallcnn"
defense = ["none", "pgd-batch"]
attack = ["fgsm", { name = "pgd", steps = 20 }, { name = "autoattack" }]
eps = [0.05, 0.1]
"""
IMAGE, GRADIENT, TRAINING = 0.5, 0.1, 0.002


def planned(folder: Path, results: Path | None = None) -> Plan:
    (folder / "some.toml").write_text(SUITE, encoding="utf-8")
    return plan(load_suite(str(folder / "some.toml")), results or folder / "results")


def recorded(made: Plan, attack: str, defense: str = "none", device: str = device_names()[0], **more: object) -> None:
    """A record of each cell of this attack and defense, as if it had been measured."""
    for cell in made.suite.cells:
        if (cell.attack.name, cell.defense.name) == (attack, defense):
            cost = {"seconds": 0.4 * examples(cell), "audit_seconds": 0.1 * examples(cell), "device": device,
                    "backwards": 4 * examples(cell), **more}  # fmt: skip
            training = {"seconds": 10.0, "watch_seconds": 10.0, "images_per_second": 2 / TRAINING}
            write_record(
                made.records.results,
                Record(id=cell.id, status="ok", cell=cell.canonical(), code=cell.code, cost=cost, training=training,
                       metrics={"clean_accuracy": Metric(value=1.0, n=examples(cell))}),
            )  # fmt: skip


def trainings(estimator: Estimator, job: Job) -> Estimate:
    """The trainings that a job still needs."""
    return sum(map(estimator.training, estimator.trained_for(job.cells)), Estimate())


def test_rates_of_this_machine_make_minutes(tmp_path):
    made = planned(tmp_path)
    recorded(made, "fgsm")
    made = planned(tmp_path)
    estimator = Estimator(made)
    fgsm, pgd, auto = (next(c for c in made.pending if c.attack.name == a and c.defense.name == "pgd-batch")
                       for a in ("fgsm", "pgd", "autoattack"))  # fmt: skip
    n = examples(fgsm)
    assert estimator.cell(fgsm).measuring == pytest.approx(IMAGE * n)
    assert estimator.cell(pgd) == Estimate(measuring=pytest.approx(GRADIENT * 20 * n), bounded=True)
    assert estimator.cell(auto).bounded
    none, robust = made.jobs
    assert trainings(estimator, none).training == pytest.approx(TRAINING * 4 * 80, rel=0.5)
    assert trainings(estimator, robust) == Estimate(trainings_unknown=1)
    (made.records.results / "weights").mkdir()
    (made.records.results / "weights" / f"{none.key}.safetensors").touch()
    assert trainings(estimator, none) == Estimate()
    text = estimate_text(made, estimator)
    assert "measuring" in text
    assert "1 training not known" in text
    assert "smallcnn on digits" in text
    assert plan_table(made, estimator).columns[-1].header == "time to do"


def test_the_training_that_others_begin_with_is_counted_once_and_shown(tmp_path):
    """Of two fine-tunings for 1 epoch, one undefended: 1 epoch each, and once the 18 epochs before them."""
    recorded(planned(tmp_path), "fgsm")  # the rate of an undefended training
    start = 'start = { defense = "none", training = { epochs = 18 } }'
    text = SUITE.replace("epochs = 4", "epochs = 1").replace('model = "smallcnn"', f'model = "smallcnn"\n{start}')
    (tmp_path / "tuned.toml").write_text(text, encoding="utf-8")
    made = plan(load_suite(str(tmp_path / "tuned.toml")), tmp_path / "tuned")
    estimator = Estimator(made, tmp_path / "weights", Estimator(planned(tmp_path)).rates)
    none, robust = made.jobs
    epoch = trainings(estimator, none).training / 19
    assert trainings(estimator, none).training == pytest.approx(TRAINING * 19 * 80, rel=0.5)
    both = estimator.jobs(made.jobs)
    assert both.training == pytest.approx(19 * epoch)
    assert both.trainings_unknown == 1  # that of the defense
    assert estimator.jobs([robust]).training == pytest.approx(18 * epoch)
    shown = list(plan_table(made, estimator).columns[2].cells)
    assert shown == ["trains 1 epoch on 100 images, from weights of 18 epochs"] * 2
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{none.cells[0].start.weights_key}.safetensors").touch()
    assert estimator.jobs(made.jobs).training == pytest.approx(epoch)
    (tmp_path / "weights" / f"{none.cells[0].start.weights_key}.safetensors").unlink()
    for job in made.jobs:
        (tmp_path / "weights" / f"{job.key}.safetensors").touch()
    assert estimator.jobs(made.jobs).training == 0, "models that are trained need nothing to start from"
    shown = list(plan_table(made, estimator).columns[2].cells)
    assert shown == ["trained: 1 epoch on 100 images, from weights of 18 epochs"] * 2


def test_what_no_record_says_is_said_not_guessed(tmp_path):
    made = planned(tmp_path)
    assert "have no record of this machine" in estimate_text(made, Estimator(made))
    recorded(made, "fgsm", device="another machine")
    made = planned(tmp_path)
    assert "have no record of this machine" in estimate_text(made, Estimator(made))
    assert plan_table(made, Estimator(made)).columns[-1].header == "gradients to do"


@pytest.mark.parametrize("folder", ["mine", "other"], ids=["the same folder", "beside it"])
def test_records_of_other_cells_count_too(tmp_path, folder):
    """A few, which no index holds: of another ε in the same folder, or in one beside it. Damaged ones do not."""
    (tmp_path / "other.toml").write_text(SUITE.replace("0.05, 0.1", "0.2"), encoding="utf-8")
    other = plan(load_suite(str(tmp_path / "other.toml")), tmp_path / "all" / folder)
    recorded(other, "fgsm")
    (other.records.results / "cells" / f"{'0' * 16}.json").write_text("{", encoding="utf-8")
    made = planned(tmp_path, tmp_path / "all" / "mine")
    estimator = Estimator(made)
    assert estimator.rates.records == 1
    assert estimator.cell(made.pending[0]).measuring == pytest.approx(IMAGE * examples(made.pending[0]))


def test_no_more_records_are_read_for_their_times_than_a_plan_can_wait_for(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "MOST_READ", 3)
    for folder, eps in (("mine", "0.2, 0.3"), ("other", "0.4, 0.5, 0.6")):
        (tmp_path / "other.toml").write_text(SUITE.replace("0.05, 0.1", eps), encoding="utf-8")
        recorded(plan(load_suite(str(tmp_path / "other.toml")), tmp_path / "all" / folder), "fgsm")
    assert Estimator(planned(tmp_path, tmp_path / "all" / "mine")).rates.records == 3


def test_the_indices_of_the_folders_beside_it_count_too(tmp_path):
    eps = ", ".join(str((n + 1) / 1000) for n in range(FEWEST))
    (tmp_path / "other.toml").write_text(SUITE.replace("0.05, 0.1", eps), encoding="utf-8")
    other = plan(load_suite(str(tmp_path / "other.toml")), tmp_path / "all" / "other")
    recorded(other, "fgsm")
    plan(other.suite, other.records.results)  # makes the index
    made = planned(tmp_path, tmp_path / "all" / "mine")
    assert Estimator(made).cell(made.pending[0]).measuring == pytest.approx(IMAGE * examples(made.pending[0]))


def test_nothing_to_do_takes_no_line(tmp_path):
    made = planned(tmp_path)
    for attack in ("fgsm", "pgd", "autoattack"):
        for defense in ("none", "pgd-batch"):
            recorded(made, attack, defense)
    made = planned(tmp_path)
    assert estimate_text(made, Estimator(made)) == ""


@pytest.mark.parametrize("known", [False, True])
def test_the_cheapest_cells_come_first(tmp_path, known):
    made = planned(tmp_path)
    if known:
        recorded(made, "fgsm")
        made = planned(tmp_path)
    jobs = cheapest_first(made, made.pending_jobs, Estimator(made))
    order = [cell.attack.name for job in jobs for cell in job.cells]
    assert sorted(cell.id for job in jobs for cell in job.cells) == sorted(cell.id for cell in made.pending)
    assert order == sorted(order, key=["fgsm", "pgd", "autoattack"].index)
    for job in jobs:
        assert [cell for stream in job.streams for cell in stream.cells] == list(job.cells)


@pytest.mark.parametrize("known", [False, True])
def test_the_training_before_a_fine_tuning_makes_it_dear(tmp_path, known):
    """Where no record has the rate of a training, too, and where one has that of the first training alone."""
    start = 'start = [{ defense = "none", training = { epochs = 18 } }, "scratch"]'
    text = SUITE.replace("epochs = 4", "epochs = 1").replace('model = "smallcnn"', f'model = "smallcnn"\n{start}')
    text = text.replace('["none", "pgd-batch"]', '"pgd-batch"').replace('["fgsm", {', '"fgsm" # ')
    (tmp_path / "tuned.toml").write_text(text, encoding="utf-8")
    if known:
        recorded(planned(tmp_path), "fgsm")  # of an undefended training
    made = plan(load_suite(str(tmp_path / "tuned.toml")), tmp_path / "tuned")
    estimator = Estimator(made, rates=Estimator(planned(tmp_path)).rates)
    assert [job.cells[0].start is None for job in made.pending_jobs] == [False, True]
    jobs = cheapest_first(made, made.pending_jobs, estimator)
    assert [job.cells[0].start is None for job in jobs] == [True, False]
