"""Cells of one model compared: only those that can show something, with the findings of comparing all."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from zoo import codes, measure

from epsbench.harness.digest import cell_id
from epsbench.harness.findings import Finding
from epsbench.harness.plan.recorded import Entry, model_key
from epsbench.harness.records import Verdicts, write_record
from epsbench.harness.run.audits import history
from epsbench.harness.run.audits.history import History, Seen

N = 600
RIGHT = np.arange(N) % 20 != 0
ATTACKS = {
    "noise": ({"name": "noise"}, {"forwards": 0}),
    "square": ({"name": "square"}, {"forwards": 9}),
    "fgsm": ({"name": "fgsm", "steps": 1, "random_start": False}, {"backwards": 1}),
    "pgd": ({"name": "pgd", "steps": 10, "random_start": False}, {"backwards": 10}),
    "mi-fgsm": ({"name": "mi-fgsm", "steps": 10, "random_start": False}, {"backwards": 10}),
    "pgd, longer": ({"name": "pgd", "steps": 40, "random_start": False}, {"backwards": 40}),
}


def half_step(norm: str, eps: float) -> tuple[int, int]:
    return 30, 100


def cells(seed: int) -> list[Seen]:
    """Cells in any order; the images that an attack fools grow with ε, or do not."""
    rng = np.random.default_rng(seed)
    made = []
    for name, (attack, cost) in ATTACKS.items():
        strength, falls = rng.uniform(0.2, 2), rng.uniform(0.3, 1.2)
        hardness = rng.uniform(size=N)
        for step in range(1, 13):
            eps = Fraction(step, 10)
            share = strength * min(float(eps), falls - 0.4 * (float(eps) - falls))
            robust = RIGHT & (hardness + rng.normal(0, 0.05, N) > share)
            for norm in ("linf", "l2"):
                cell = {"attack": attack, "norm": norm, "eps": f"{step}/10"}
                made.append(Seen.of(f"{name} {step} {norm}", cell, cost, RIGHT, robust))
    order = rng.permutation(len(made)) if seed % 2 else np.arange(len(made))
    return [made[index] for index in order]


class Everyone(History):
    """Compares each new cell with all earlier ones."""

    def __init__(self) -> None:
        super().__init__(half_step)
        self.earlier: list[Seen] = []

    def compare(self, new: Seen) -> list[Finding]:
        worst: dict[str, tuple[float, Finding]] = {}
        for old in self.earlier:
            if old.norm != new.norm or old.cell == new.cell:
                continue
            if old.eps == new.eps:
                pairs = [*history._upside_down(old, new), *history._far_weaker(old, new), *self._bent(old, new)]
            else:
                pairs = [*history._falling(old, new)] if old.attack == new.attack else []
            for share, each in pairs:
                if each.code not in worst or share > worst[each.code][0]:
                    worst[each.code] = share, each
        self.earlier.append(new)
        return [each for _, each in worst.values()]


@pytest.mark.parametrize("seed", range(24))
def test_findings_are_those_of_comparing_each_cell_with_all(seed):
    few, everyone = History(half_step), Everyone()
    findings = [(few.compare(seen), everyone.compare(seen)) for seen in cells(seed)]
    assert all(some == expected for some, expected in findings)
    assert sum(len(expected) for _, expected in findings) > 20


def test_all_codes_are_among_those_findings():
    codes = set()
    for seed in range(24):
        few = History(half_step)
        codes |= {each.code for seen in cells(seed) for each in few.compare(seen)}
    assert codes == {
        "eps-not-monotone", "one-step-beats-many", "noise-beats-gradient", "black-box-beats-gradient",
        "catastrophic-overfitting", "weaker-than-peers",
    }  # fmt: skip


def test_a_cell_measured_again_is_not_compared_with_itself():
    few, (first, *_) = History(half_step), cells(0)
    few.compare(first)
    assert few.compare(first) == []


def test_a_long_curve_that_rises_needs_no_comparison(monkeypatch):
    compared = []
    monkeypatch.setattr(history, "_beaten", lambda *cells: compared.append(cells) or iter(()))
    few, attack = History(half_step), ATTACKS["pgd"]
    for step in range(1, N):
        robust = RIGHT & (np.arange(N) >= step)
        few.compare(
            Seen.of(str(step), {"attack": attack[0], "norm": "linf", "eps": f"{step}/999"}, attack[1], RIGHT, robust)
        )
    assert compared == []


def test_earlier_records_count_only_with_the_same_clean_verdicts():
    attack, cost = ATTACKS["pgd"]
    cell = {"attack": attack, "norm": "linf", "eps": "0.1"}
    robust = np.zeros(N, bool)

    def recalled(right: np.ndarray) -> Entry:
        return Entry("old", "ok", weights="sha", cell=cell, cost=cost, verdicts=Verdicts.pack(right, robust))

    new = Seen.of("new", cell | {"eps": "0.2"}, cost, RIGHT, RIGHT.copy())
    for right, expected in ((RIGHT, ["eps-not-monotone"]), (~RIGHT, [])):
        few = History(half_step)
        few.recall([recalled(right), Entry("failed", "failed", weights="sha", cell=cell)], RIGHT, "")
        assert [each.code for each in few.compare(new)] == expected


@pytest.mark.parametrize(("images", "expected"), [(1, set()), (400, {"catastrophic-overfitting"})])
def test_overfitting_needs_enough_images(images, expected):
    right = np.ones(images, bool)
    attacks = [("fgsm", 1, right.copy()), ("pgd", 10, ~right)]
    few = History(lambda norm, eps: (round(0.3 * images), images))
    findings = []
    for name, steps, robust in attacks:
        cell = {"attack": {"name": name, "steps": steps, "random_start": False}, "norm": "linf", "eps": "0.1"}
        findings += few.compare(Seen.of(name, cell, {"backwards": 1}, right, robust))
    assert {each.code for each in findings} == expected


def test_the_same_weights_in_another_network_are_another_model(honest, tmp_path):
    weak = '{ name = "pgd", relative_step_size = 0.02 }'
    (first,) = measure(honest, tmp_path, [weak], [0.15], weights="abc")
    cell = first.cell | {"model": {"name": "another", "scale": 30.0}}
    other = first.model_copy(update={"id": cell_id(cell, first.code), "cell": cell})
    assert model_key(first.cell, first.code) != model_key(other.cell, other.code)
    assert model_key(first.cell, first.code) != model_key(first.cell, first.code | {"model": "newer"})
    write_record(tmp_path / "results", other)
    (record,) = measure(honest, tmp_path, ['"fgsm"'], [0.15], weights="abc")
    assert "one-step-beats-many" not in codes([record])
