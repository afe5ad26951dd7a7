"""The attacks that `epsbench.evaluate` takes: names with parameters, objects, ensembles, smallest distances."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import epsbench
from epsbench.attacks import PGD, AutoAttack, BatchAttack, GradientAttack
from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.registry import name_with_parameters
from epsbench.harness.plan.one_word import parsed
from epsbench.harness.run.given_attacks import attack_entries


class Half(GradientAttack):
    """Half a step."""

    def update(self, x_adv, gradient, eps, step):
        return x_adv + 0.5 * eps * self.norm.direction(gradient)


def test_attacks_as_objects(network, x, y):
    by_name = epsbench.evaluate(network, x, y, attack="pgd:steps=3,random_start=true", eps=0.1)
    by_object = epsbench.evaluate(network, x, y, attack=PGD(steps=3, random_start=True), eps=0.1)
    assert by_object.records[0].cell == by_name.records[0].cell
    assert by_object.records[0].id == by_name.records[0].id
    own = epsbench.evaluate(network, x, y, attack=[Half(), "fgsm"], eps=0.1)
    assert [point.attack for point in own] == ["Half", "fgsm"]
    assert own[0].per_image["distance"].tolist() != own[1].per_image["distance"].tolist()
    assert own.robust_accuracy <= min(point.robust_accuracy for point in own)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("pgd", "pgd"),
        ("pgd:steps=40,restarts=5", {"name": "pgd", "steps": 40, "restarts": 5}),
        ("mine.py:Attack", "mine.py:Attack"),
        ("mine.py:A:share=0.5,fast=true,mode=a", {"name": "mine.py:A", "share": 0.5, "fast": True, "mode": "a"}),
        ('ensemble:parts=["fgsm", "pgd"]', {"name": "ensemble", "parts": ["fgsm", "pgd"]}),
        ("folder:path=my photos,crop=8", {"name": "folder", "path": "my photos", "crop": 8}),
        ("pgd:steps=3,loss=mine.py:Loss", {"name": "pgd", "steps": 3, "loss": "mine.py:Loss"}),
        ('pgd:loss={name="mine.py:Loss",scale=2}', {"name": "pgd", "loss": {"name": "mine.py:Loss", "scale": 2}}),
        ("mine.py:A:loss=b/c.py:L,path=x:y=z", {"name": "mine.py:A", "loss": "b/c.py:L", "path": "x:y=z"}),
    ],
)  # fmt: skip
def test_parameters_in_one_word(text, entry):
    assert parsed(text) == entry


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pgd:steps=3,steps=4", "'pgd:steps=3,steps=4': steps is given twice"),
        ("pgd:name=fgsm", "'pgd:name=fgsm': name is what stands before the colon"),
        ("pgd:steps=", "'steps=' is no parameter; write name:key=value,key=value"),
        ("ensemble:parts=[fgsm, pgd]", "parts: [fgsm, pgd] is no list or table; texts in it need quotes"),
    ],
)
def test_parameters_that_cannot_be_in_one_word(text, wanted):
    with pytest.raises(InputError) as caught:
        parsed(text)
    assert wanted in str(caught.value)


def test_a_loss_of_a_file_in_one_word(network, x, y, tmp_path, monkeypatch):
    """A colon in a value is no end of the name."""
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom epsbench.attacks.losses import CrossEntropy\n\nclass Backwards(CrossEntropy):\n"
        "    def __call__(self, *arguments, **more):\n        return -super().__call__(*arguments, **more)\n"
    )
    monkeypatch.chdir(tmp_path)
    ours, theirs = (
        epsbench.evaluate(network, x, y, attack=attack, eps=0.2).robust_accuracy
        for attack in ("pgd:steps=3,loss=mine.py:Backwards", "pgd:steps=3")
    )
    assert ours > theirs + 0.2


def test_an_ensemble_says_which_part_fooled_which_image(network, x, y):
    result = epsbench.evaluate(network, x, y, attack='ensemble:parts=["fgsm", "pgd"]', eps="16/255")
    point = result[0]
    fooled = point.right & ~point.robust
    names = {part.name for part in point.record.parts}
    assert names == {"fgsm", "pgd"}
    assert set(point.fooled_by()[fooled]) <= names
    assert set(point.fooled_by()[~fooled]) <= {""}
    assert "\\pm" in result.to_latex()


@dataclass(frozen=True, kw_only=True)
class Steps(GradientAttack):
    size: float = 0.5

    def update(self, x_adv, gradient, eps, step):
        return x_adv + self.size * eps * gradient.sign()


class Drawn(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * torch.rand_like(gradient) * gradient.sign()


class DrawnInALoop(BatchAttack):
    def perturb(self, victim, x, y, eps, noise):
        return (x + eps * (2 * torch.from_numpy(np.random.random_sample(x.shape)).float() - 1)).clamp(0, 1)


class Keyed(GradientAttack):
    def start(self, rows):
        return rows.x + rows.eps * (2 * rows.noise.uniform(*rows.x.shape[1:]) - 1), {}

    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * gradient.sign()


@pytest.mark.parametrize(("kind", "warns"), [(Drawn, True), (DrawnInALoop, True), (Keyed, False)])
def test_an_attack_that_draws_from_a_global_generator_gets_a_finding(network, x, y, kind, warns):
    for attack in (kind(), {"name": "ensemble", "parts": ["fgsm", kind()]}):
        findings = epsbench.evaluate(network, x, y, attack=attack, eps=0.02).findings
        assert [each.code for each in findings if each.code == "unkeyed-noise"] == ["unkeyed-noise"] * warns


def test_the_parts_in_a_table_may_be_objects(network, x, y):
    by_table = epsbench.evaluate(
        network, x, y, attack={"name": "ensemble", "parts": ["fgsm", Steps(size=1.0)]}, eps=0.1
    )
    (entry,), objects, _ = attack_entries({"name": "ensemble", "parts": ["fgsm", Steps(size=0.25)]})
    assert [part.name for part in by_table[0].record.parts] == ["fgsm", "steps(size=1.0)"]
    assert entry["parts"][1]["size"] == 0.25
    assert objects == {("attack", "Steps"): Steps}


def test_two_classes_of_one_name_are_not_taken_for_each_other(network, x, y):
    other = dataclass(frozen=True, kw_only=True)(type("Steps", (Steps,), {}))
    with pytest.raises(InputError, match="attack: two classes are called Steps; give one of them another name"):
        epsbench.evaluate(network, x, y, attack=[Steps(), other()], eps=0.1)


def test_autoattack_as_an_object_is_the_one_of_a_suite():
    (entry,), objects, norms = attack_entries(AutoAttack())
    assert (entry["name"], objects, norms) == ("autoattack", {}, ["linf"])
    base = Path()
    assert name_with_parameters("attack", entry, base) == name_with_parameters("attack", "autoattack", base)


class Brightness(nn.Module):
    """Class 1 where the sum of 16 numbers is above 12; under L2 an even image of sum s is (12 − s) / 4 away from it."""

    def forward(self, x):
        total = x.flatten(1).sum(1)
        return torch.stack([12 - total, total - 12], 1)


def test_smallest_distances_do_not_end_at_epsilon():
    x = torch.tensor([0.25, 0.5, 0.7, 0.25]).view(4, 1, 1, 1).expand(4, 1, 4, 4).contiguous()
    y = torch.tensor([0, 0, 0, 1])  # the last is wrong without an attack
    result = epsbench.evaluate(Brightness(), x, y, attack="ddn", norm="l2", eps=1)
    exact = [2.0, 1.0, 0.2, 0.0]
    np.testing.assert_allclose(result[0].distances, exact, rtol=1e-4)
    frame = result.frame()
    np.testing.assert_allclose(frame.smallest_distance, exact, rtol=1e-4)
    assert frame.distance.isna().tolist() == [True, True, False, True]  # 1.00001 is beyond ε, too
    assert np.array_equal(result.images[0], x[0].numpy())


def test_the_smallest_distance_is_infinite_where_no_image_fools_and_unknown_within_a_ball(network, x, y):
    class Stubborn(Brightness):
        def forward(self, x):
            return super().forward(x) + torch.tensor([1000.0, 0.0])

    result = epsbench.evaluate(Stubborn(), x[:3], y[:3] * 0, attack="fab-t:goal=smallest", norm="l1", eps=8)
    assert np.isinf(result[0].distances).all()
    assert result.robust_accuracy == 1
    within = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1)[0]
    assert within.distances is None
    assert "smallest_distance" not in within.frame()
