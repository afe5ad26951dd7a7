"""Paired comparison of two result sets: direction, family, and what cannot be compared."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import factory
import generative_factory as generative
import numpy as np
import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.report.gates.compare import compare
from epsbench.harness.statistics import mcnemar_exact

N = 1000
CLEAN = np.ones(N, dtype=bool)


def right(count: int) -> np.ndarray:
    return np.arange(N) < count


def sets(tmp_path, a, b):
    return factory.write(tmp_path / "a", *a), factory.write(tmp_path / "b", *b)


def one(count: int, clean=CLEAN, **axes):
    return factory.robustness(clean, right(count), **axes)


def test_equal_results_show_no_difference(tmp_path):
    code, text = compare(*sets(tmp_path, [one(500)], [one(500)]))
    assert code == 0
    assert "2 tests: 0 significantly worse, 0 significantly better, 2 no difference" in text
    assert "smallest detectable difference" in text


@pytest.mark.parametrize(
    ("after", "code", "verdict"), [(400, 1, "worse"), (600, 0, "better"), (497, 0, "no difference")]
)
def test_direction(tmp_path, after, code, verdict):
    outcome, text = compare(*sets(tmp_path, [one(500)], [one(after)]))
    assert outcome == code
    line = next(line for line in text.splitlines() if "robust accuracy" in line)
    assert line.startswith(verdict)
    lost = max(0, 500 - after)
    assert f"50.0 % → {after / 10:.1f} %" in line
    assert f"{lost} lost" in line


def test_the_pairing_finds_what_the_totals_hide(tmp_path):
    """Equal totals, everything swapped: no difference; and a small one-sided loss is found."""
    swapped = factory.robustness(CLEAN, ~right(500))
    assert compare(*sets(tmp_path / "1", [one(500)], [swapped]))[0] == 0
    assert compare(*sets(tmp_path / "2", [one(500)], [one(488)]))[0] == 1


def test_a_worse_clean_accuracy_is_found_and_tested_once_for_a_model(tmp_path):
    attacks = [{"name": "fgsm", "steps": 1}, {"name": "pgd", "steps": 10}]
    a = [one(500, attack=attack) for attack in attacks]
    b = [one(500, clean=right(900), attack=attack) for attack in attacks]
    code, text = compare(*sets(tmp_path, a, b))
    assert code == 1
    lines = [line for line in text.splitlines() if "clean accuracy" in line]
    assert len(lines) == 1
    assert "fgsm" not in lines[0]


def test_holm_ignores_a_chance_difference_among_many_tests(tmp_path):
    lost = 6
    assert mcnemar_exact(lost, 0) < 0.05
    epsilons = [f"{k}/255" for k in range(1, 21)]
    a = [one(500, eps=eps) for eps in epsilons]
    b = [one(500 - (lost if eps == "1/255" else 0), eps=eps) for eps in epsilons]
    assert compare(*sets(tmp_path / "family", a, b))[0] == 0


@pytest.mark.parametrize(
    ("b", "why"),
    [
        ([], "missing in B"),
        ([factory.failed(eps="0.1")], "failed in B: RuntimeError"),
        ([factory.void(CLEAN, CLEAN, eps="0.1")], "void in B"),
        ([factory.robustness(CLEAN[:10], CLEAN[:10], eps="0.1")], "1,000 examples in A, 10 in B"),
    ],
)
def test_what_cannot_be_compared_exits_with_two(tmp_path, b, why):
    a, b = sets(tmp_path, [one(500), one(500, eps="0.1")], [one(500), *b])
    code, text = compare(a, b)
    assert code == 2
    assert why in text
    assert "not compared" in text


def test_no_common_cell_exits_with_two_and_worse_with_one_even_if_a_cell_is_missing(tmp_path):
    assert compare(*sets(tmp_path / "1", [one(500)], [one(500, eps="0.1")]))[0] == 2
    assert compare(*sets(tmp_path / "2", [one(500), one(500, eps="0.1")], [one(100)]))[0] == 1


def test_cells_of_two_commits_pair_by_their_settings_and_the_line_says_which_code_changed(tmp_path):
    old, new = {"attack": "1", "model": "0123456789abcdef"}, {"attack": "2", "model": "fedcba9876543210"}
    a = [one(500, code=old), one(500, code=old, eps="0.1"), one(500, code=old, eps="0.2")]
    b = [one(100, code=new), one(500, code=old | {"attack": "2"}, eps="0.1"), one(500, code=old, eps="0.2")]
    code, text = compare(*sets(tmp_path, a, b))
    assert code == 1
    lines = {line.split(" ε ")[1].split(",")[0]: line for line in text.splitlines() if "robust accuracy" in line}
    assert "worse" in lines["0.3"]
    assert "code changed: attack 1 → 2, model 01234567 → fedcba98" in lines["0.3"]
    assert "code changed: attack 1 → 2  [" in lines["0.1"]
    assert "code changed" not in lines["0.2"]


def test_the_newest_record_of_the_settings_is_compared(tmp_path):
    a = one(500, code={"attack": "1"})
    b = one(100, code={"attack": "2"}, started="2026-02-02T00:00:00+00:00")
    assert compare(*sets(tmp_path, [a], [a, b]))[0] == 1


def test_other_data_are_not_compared_image_by_image(tmp_path):
    code, text = compare(*sets(tmp_path, [one(500, code={"data": "1"})], [one(500, code={"data": "2"})]))
    assert code == 2
    assert "other examples" in text


def test_the_commits_are_shown(tmp_path):
    def at(commit: str, *, dirty: bool):
        made = one(500)
        environment = made.environment | {"repository": {"commit": commit, "dirty": dirty}}
        return made.model_copy(update={"environment": environment})

    _, text = compare(*sets(tmp_path, [at("a" * 40, dirty=False)], [at("b" * 40, dirty=True)]))
    assert "A: commit aaaaaaaaaaaa; epsbench commit 000000000000\n" in text
    assert "B: commit bbbbbbbbbbbb with uncommitted changes; epsbench commit 000000000000\n" in text


def test_cells_that_a_did_not_measure_are_ignored(tmp_path):
    a, b = sets(tmp_path, [one(500), factory.failed(eps="0.1")], [one(500), one(5, eps="0.1"), one(5, eps="0.2")])
    assert compare(a, b)[0] == 0


@pytest.mark.parametrize(("after", "code"), [(0.52, 0), (0.50, 0), (0.523, 0), (0.54, 1), (math.nextafter(0.52, 1), 0)])
def test_bits_per_dimension_are_compared_by_their_intervals(tmp_path, after, code):
    outcome, text = compare(*sets(tmp_path, [factory.generation(0.52)], [factory.generation(after)]))
    assert outcome == code
    assert "lower is better" in text


@pytest.mark.parametrize(("after", "code"), [(0.40, 0), (0.45, 1)])
def test_an_autoencoder_is_compared_by_its_distortion(tmp_path, after, code):
    a, b = sets(tmp_path, [generative.autoencoder(0.40)], [generative.autoencoder(after)])
    outcome, text = compare(a, b)
    assert outcome == code
    assert f"distortion_bpd: 0.400 → {after:.3f}" in text
    assert compare(a, a)[0] == 0


def test_a_bound_on_one_side_only_is_not_compared_by_a_part_of_it(tmp_path):
    whole = factory.generation(0.52)
    part = whole.model_copy(update={"metrics": {"distortion_bpd": whole.metrics["distortion_bpd"]}})
    outcome, text = compare(*sets(tmp_path, [whole], [part]))
    assert outcome == 2
    assert "A and B do not both have test_bpd" in text


def test_missing_and_empty_folders_are_refused(tmp_path):
    factory.write(tmp_path / "a", one(500))
    with pytest.raises(InputError, match="no such results folder"):
        compare(tmp_path / "a", tmp_path / "b")


def test_junit(tmp_path):
    a, b = sets(tmp_path, [one(500), one(500, eps="0.1")], [one(100)])
    compare(a, b, tmp_path / "j.xml")
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (root.get("failures"), root.get("errors")) == ("1", "1")
