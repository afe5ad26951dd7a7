"""The benchmark against other libraries is fair: everyone is given the same, and finds the same."""

from __future__ import annotations

import warnings
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from epsbench.attacks.ddn import DDN
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.pgd import PGD
from tests.benchmarks import autoattack, smallest
from tests.benchmarks.contestants import Contestant
from tests.benchmarks.networks import Bench, Chosen, precisions

EPS = [Fraction(k, 20) for k in range(1, 5)]


@pytest.fixture
def bench(network, digits) -> Bench:
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:200]
    return Bench("digits", network, x[right], y[right], EPS)


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=10, relative_step_size=0.1)], ids=repr)
def test_epsbench_and_torchattacks_find_the_same(bench, attack):
    pytest.importorskip("torchattacks", reason="torchattacks is a test extra")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Contestant("torchattacks").run(bench, attack, 64)
    for batch in (64, 200, 0):
        ours = Contestant().run(bench, attack, batch)
        # An image that fooled at any step counts here, there only the last.
        assert all(-1e-9 <= a - b <= 0.02 for a, b in zip(theirs, ours, strict=True))
    assert 0.02 < min(ours) < max(ours) < 0.99


def test_every_way_to_run_epsbench_finds_nearly_the_same(bench):
    attack = PGD(steps=10, relative_step_size=0.1)
    expected = Contestant().run(bench, attack, 64)
    for curve in ("nested", "bisect"):
        for precision in ("float32", "bf16"):
            actual = Contestant(precision=precision, curve=curve).run(bench, attack, 64)
            assert actual == pytest.approx(expected, abs=0.02)


def test_an_untrained_network_is_labelled_as_it_sees_and_nothing_falls():
    (bench,) = Chosen("", (), None, 8, 2, resnet=4).build(torch.device("cpu"))
    assert len(bench.x) == len(bench.y) == 8
    assert Contestant().run(replace(bench, eps=bench.eps[:1]), PGD(steps=2), 8) == [1.0]


@pytest.mark.parametrize("part", ["apgd-ce", "square"])
def test_the_parts_of_autoattack_are_compared_on_the_same_images(bench, part, monkeypatch):
    pytest.importorskip("torchattacks", reason="torchattacks is a test extra")
    monkeypatch.setitem(autoattack.PARTS, part, replace(autoattack.PARTS[part], steps=20))
    few = Bench(bench.name, bench.model, bench.x[:40], bench.y[:40], [Fraction(1, 10)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = autoattack.compare(part, few, Fraction(1, 10), 1)
    assert [line["precision"] for line in lines] == list(precisions("cpu"))
    assert all(0 <= line["robust"] <= 1 and line["ratio"] > 0 for line in lines)


def test_smallest_distances_are_compared_on_the_same_images_with_as_many_steps_and_with_fewer(bench, monkeypatch):
    blank = {"blank": lambda model, x, y: torch.zeros_like(x)}  # a library whose image is black
    monkeypatch.setitem(smallest.WORKS, "ddn", smallest.Work(DDN(steps=30), blank))
    few = Bench(bench.name, bench.model, bench.x[:12], bench.y[:12], [Fraction(1)])
    lines = smallest.compare("ddn", few, 1)
    same = [(line["steps"], line["precision"]) for line in lines if line["steps"] == 30]
    assert same == [(30, precision) for precision in precisions("cpu")]
    assert lines[-1]["steps"] < 30  # black images are far
    exact = [line for line in lines if line["precision"] == "float32"]
    assert all(line["median"] <= line["blank median"] and line["ratio"] > 0 for line in exact)
