"""Norms of the user's own, by address: what a suite accepts, and what it refuses before anything is trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from small import QUIET

import epsbench
from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.registry import make
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.runner import run_suite

DOCS = Path(__file__).parents[2] / "docs" / "your-code.md"
SUITE = """
[robustness]
data = "digits"
limit = 400
training = { epochs = 6 }
[robustness.matrix]
model = "smallcnn"
attack = ["noise", { name = "pgd", steps = 4, random_start = true }]
norm = ["linf", "mine.py:ChannelL2"]
eps = ["0.5"]
"""


def documented() -> str:
    """The norm of the documentation."""
    (code,) = re.findall(r"```python\n(from epsbench.attacks.norms import Norm\n.*?)```", DOCS.read_text(), flags=re.S)
    return code


def suite_of(folder: Path, code: str, text: str = SUITE):
    (folder / "mine.py").write_text(code)
    (folder / "norms.toml").write_text(text)
    return load_suite(str(folder / "norms.toml"))


def test_a_norm_of_the_users_own_is_measured_and_recorded(tmp_path):
    suite = suite_of(tmp_path, documented())
    assert run_suite(suite, tmp_path / "results", QUIET) == 0
    records = {(r.cell["attack"]["name"], r.cell["norm"]): r for r in read_records(tmp_path / "results")}
    own = records["pgd", "mine.py:ChannelL2"]
    assert own.status == "ok"
    assert "outside-ball" not in {each.code for record in records.values() for each in record.findings}
    assert own.code["norm"]
    assert "norm" not in records["pgd", "linf"].code
    assert own.metrics["robust_accuracy"].value < own.metrics["clean_accuracy"].value
    before = {cell.id for cell in suite.cells}
    changed = {cell.id for cell in suite_of(tmp_path, documented().replace("1e-12", "1e-9")).cells}
    assert len(before & changed) == 2  # those under L∞ stay valid


def test_it_is_named_to_evaluate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(documented())
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    x, y = torch.rand(20, 3, 2, 2), torch.zeros(20, dtype=torch.long)
    result = epsbench.evaluate(network, x, y, attack="pgd", norm="mine.py:ChannelL2", eps=0.3)
    distance = torch.from_numpy(result.images - x.numpy()).flatten(2).norm(dim=2).amax(1)
    assert float(distance.max()) <= 0.3 + 1e-6
    assert result.points[0].norm == "mine.py:ChannelL2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class ChannelL2(Norm)", "class ChannelL2", "must be a class derived from epsbench.attacks.norms.Norm"),
        ("def size(self, delta): return", "def sise(self, delta): return", "does not define size"),
        ('    name = "channel-l2"\n', "", "has no name"),
        ('"channel-l2"', '"linf"', "is called 'linf', as a built-in norm is"),
        ("class ChannelL2", "class Other", "ChannelL2"),
        ('"channel-l2"', '"x"\n    def __init__(self, scale): self.scale = scale', "cannot be made without arguments"),
    ],
)
def test_what_is_no_norm_is_refused_with_the_suite(tmp_path, old, new, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        suite_of(tmp_path, documented().replace(old, new))
    assert "robustness.matrix.norm[1]" in str(caught.value)


def test_epsilon_is_limited_by_the_norm(tmp_path):
    with pytest.raises(InputError, match=r"robustness.matrix.eps\[0\]"):
        suite_of(tmp_path, documented(), SUITE.replace('"0.5"', "20").replace('"linf", ', ""))


def test_a_norm_that_counts_has_no_epsilon_below_one(tmp_path):
    counting = documented().replace('name = "channel-l2"', 'name = "channels"\n    shrinks = False')
    with pytest.raises(
        InputError, match=r"matrix.eps\[0\]: ε must be at least 1 under mine.py:ChannelL2, which counts"
    ):
        suite_of(tmp_path, counting, SUITE.replace('"linf", ', ""))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (".clamp_max(1)", ".clamp_max(2)", "project() moves a change that lies inside"),
        (".amax(1)", "", "size() returns the shape"),
        ("def start(self, noise, x, eps):", "def start(self, noise, x):", "it raises TypeError"),
        ("return eps * noise.uniform(1)[:, :, None, None]", "return 3 * eps", "what start() returns has size"),
        ("return g / g", "return 0 / (0 * g) + g", "returns NaN or infinity"),
        ("return delta * (", "return (", "project() returns the shape"),
        ("return delta * (", "return 0.1 * delta * (", "project() moves a change that lies inside"),
    ],
)
def test_a_broken_norm_is_refused_before_training(tmp_path, old, new, message):
    suite = suite_of(tmp_path, documented().replace(old, new))
    with pytest.raises(InputError, match=r"norm 'mine\.py:ChannelL2' cannot be used on digits") as caught:
        run_suite(suite, tmp_path / "results", QUIET)
    assert message in str(caught.value)
    assert not read_records(tmp_path / "results")


def test_an_attack_that_does_not_know_it_says_so(tmp_path):
    with pytest.raises(InputError, match="square knows the norms linf, l2 and l1, not channel-l2"):
        plan(suite_of(tmp_path, documented(), SUITE.replace('"noise"', '"square"')), tmp_path / "results")


def test_it_is_made_by_name(tmp_path):
    suite = suite_of(tmp_path, documented())
    attack = make("attack", suite.cells[0].attack, tmp_path, norm="mine.py:ChannelL2")
    assert attack.norm.name == "channel-l2"
    assert attack == make("attack", suite.cells[0].attack, tmp_path, norm="mine.py:ChannelL2")
    assert len({attack, make("attack", suite.cells[0].attack, tmp_path, norm="linf")}) == 2
