"""What the shipped suites say of themselves holds."""

from __future__ import annotations

from fractions import Fraction
from statistics import mean

import pytest

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.suite import load_suite, shipped_suites


def named(suite: str, kind: str) -> list[dict]:
    cells = load_suite(suite).cells
    return list({str(one): one for one in (getattr(cell, kind).as_dict() for cell in cells)}.values())


def test_the_assignments_eps_are_its_flags_times_the_mean_standard_deviation():
    std = mean(DATASETS["cifar10"].std)
    wanted = {round(flag * std, digits) for flag, digits in ((0.1, 4), (0.01, 5))}
    assert {float(cell.eps) for cell in load_suite("assignment-settings").cells} == wanted
    assert {float(Fraction(one["eps"])) for one in named("assignment-settings", "defense") if "eps" in one} == wanted


def test_the_assignments_pgd_steps_from_corner_to_corner_from_the_image_itself():
    (pgd,) = (one for one in named("assignment-settings", "attack") if one["name"] == "pgd")
    assert (pgd["steps"], pgd["relative_step_size"], pgd["random_start"]) == (10, 2 / 0.01, False)


def test_noise_and_fgsm_meet_at_the_same_eps_from_half_a_level_to_sixteen():
    met = {(cell.attack.name, cell.eps) for cell in load_suite("random-vs-fgsm").cells}
    levels = [Fraction(1, 2), *map(Fraction, (1, 2, 4, 8, 12, 16))]
    assert met == {(attack, level / 255) for attack in ("noise", "fgsm") for level in levels}


def test_the_patient_attacker_of_the_defenses_starts_over_ten_times():
    suite = load_suite("defenses")
    assert {cell.seed for cell in suite.cells} == {0, 1, 2}
    assert {one["name"] for one in named("defenses", "defense")} == {
        "none", "fgsm-loss", "pgd-batch", "pgd-replace", "trades", "n-fgsm",
    }  # fmt: skip
    assert max(one.get("restarts", 1) * one.get("steps", 0) for one in named("defenses", "attack")) == 500


@pytest.mark.parametrize("name", shipped_suites())
def test_every_suite_says_what_it_asks_in_one_line(name, skip_without_libraries):
    skip_without_libraries(name)
    assert 20 < len(load_suite(name).description) <= 120
