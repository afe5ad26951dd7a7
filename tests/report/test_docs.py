"""docs/records.md names every field of what a run writes, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Record, read_records

PAGE = Path(__file__).parents[2] / "docs" / "records.md"
SUITE = """
[robustness]
data = "digits"
curve = "nested"
training = { epochs = 0 }
test_images = 30
[robustness.matrix]
model = "smallcnn"
attack = ["noise", "fgsm"]
eps = [0.1, 0.2]
subset = ["first-half", "second-half"]
start = { subset = "all" }
source = ["self", { subset = "first-half" }]
[[robustness.include]]
attack = { name = "ddn", steps = 3 }
norm = "l2"
eps = 0.5
subset = "first-half"
source = "self"
[[robustness.include]]
attack = "none"
corruption = "fog"
eps = 0
subset = "first-half"
source = "self"
[generation]
data = "digits"
training = { epochs = 1 }
[generation.evaluation]
importance_samples = 2
long_importance_samples = 3
prior_samples = 4
gradient_samples = 2
refinement_steps = 2
[generation.matrix]
"""

TESTED = """
[robustness]
data = "digits"
training = { epochs = 4 }
[robustness.matrix]
model = "smallcnn"
attack = "pgd"
eps = 0.01
"""
RANDOM = TESTED.replace("training", "randomness = { samples = 1, votes = 1 }\ntraining")


def documented(heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    section = PAGE.read_text(encoding="utf-8").split(f"{heading}\n", 1)[1]
    first = re.findall(r"^\| (`.*?) \|", section.split("\n#", 1)[0], flags=re.M)
    return {name for column in first for name in re.findall(r"`(\w+)`", column)}


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    from epsbench.harness.run.runner import run_suite

    folder = tmp_path_factory.mktemp("documented")
    for name, text, limit in (("small", SUITE, 40), ("tested", TESTED, None), ("random", RANDOM, 40)):
        path = folder / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        assert run_suite(load_suite(str(path), limit), folder / "results", Options(quiet=True, device="cpu")) == 0
    return read_records(folder / "results")


def test_the_fields_of_a_record_are_documented():
    assert documented("## The fields") == set(Record.model_fields)


@pytest.mark.parametrize(
    ("heading", "part"),
    [
        ("### `cell`", "cell"),
        ("### `cost`", "cost"),
        ("### `metrics`", "metrics"),
        ("### `evaluation`", "evaluation"),
    ],
)
def test_what_a_run_writes_is_documented(records, heading, part):
    # The extrapolation needs more images than this suite has: its own test is in test_quality.py.
    extrapolated = {"frechet_distance_infinite", "floor_frechet_distance_infinite"} if part == "metrics" else set()
    assert documented(heading) - extrapolated == {key for record in records for key in getattr(record, part)}


def test_the_docs_show_the_folders():
    shown = PAGE.read_text(encoding="utf-8").split("```")[1]
    for folder in ("cells/", "pictures/", "weights/", "tensorboard/", "profiles/"):
        assert f"\n  {folder}<" in shown
