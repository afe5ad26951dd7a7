"""The gate: three exit codes, interval-aware verdicts, messages that name bound, value, interval, n and cell."""

from __future__ import annotations

import shlex
from xml.etree import ElementTree

import factory
import pytest
from bounded import Bound, robust, suite_of
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.errors import InputError
from epsbench.harness.plan.bounds import GenerationExpect, RobustnessExpect, Share
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Metric, record_path
from epsbench.harness.report.gates.check import SHARES, check_suite, judge
from epsbench.harness.report.gates.junit import Case, junit, write_junit


@pytest.mark.parametrize(
    ("bound", "strict", "code", "verdict"),
    [
        (Bound(min=0.45), False, 0, "holds"),
        (Bound(max=0.55), False, 0, "holds"),
        (Bound(min=0.51), False, 0, "within noise"),
        (Bound(min=0.51), True, 1, "broken"),
        (Bound(max=0.49), False, 0, "within noise"),
        (Bound(max=0.49), True, 1, "broken"),
        (Bound(min=0.6), False, 1, "broken"),
        (Bound(max=0.4), False, 1, "broken"),
        (Bound(min=0.4, max=0.6), True, 0, "holds"),
    ],
)
def test_verdicts(tmp_path, bound, strict, code, verdict):
    record = robust(0.5)
    factory.write(tmp_path, record)
    outcome, text = check_suite(suite_of(record, bounds={"robust_accuracy": bound}, strict=strict), tmp_path)
    assert outcome == code
    line = text.splitlines()[0]
    assert line.startswith(verdict)
    for part in ("robust_accuracy", "50.0 %", "[46.9, 53.1]", "n = 1,000", "smallcnn", "ε 0.3", record.id):
        assert part in line


@given(st.floats(0, 1), st.floats(0, 0.2), st.floats(0, 0.2), st.none() | st.floats(0, 1), st.none() | st.floats(0, 1))
def test_strict_is_never_more_lenient_and_a_broken_bound_lies_outside_the_interval(value, below, above, least, most):
    metric = Metric(value=value, low=value - below, high=value + above)
    lenient = judge(metric, Bound(least, most), strict=False)
    strict = judge(metric, Bound(least, most), strict=True)
    assert (strict == "holds") == (lenient == "holds")
    if lenient == "broken":
        assert strict == "broken"
        assert (least is not None and metric.high < least) or (most is not None and metric.low > most)


def test_a_metric_without_interval_is_judged_by_its_value():
    assert judge(Metric(value=0.5), Bound(min=0.51), strict=False) == "broken"


def test_missing_failed_and_void_cells_are_not_measured(tmp_path):
    bounds = {"robust_accuracy": Bound(min=0.0)}
    bad = factory.failed("out of memory\x1b[31m", eps="0.2")
    void = factory.void([True], [True], eps="0.1")
    absent = robust(0.5, eps="0")
    factory.write(tmp_path, bad, void)
    code, text = check_suite(suite_of(bad, void, absent, bounds=bounds), tmp_path)
    assert code == 2
    lines = text.splitlines()
    assert all(line.startswith("not measured") for line in lines[:3])
    assert "RuntimeError: out of memory" in lines[0]
    assert "\x1b" not in text
    assert "no-op: nothing moved" in lines[1]
    assert "epsbench run gate.toml" in lines[2]
    assert "3 not measured" in lines[3]


def test_a_broken_bound_exits_with_one_even_if_another_cell_is_missing(tmp_path):
    record, absent = robust(0.5), robust(0.5, eps="0.1")
    factory.write(tmp_path, record)
    code, text = check_suite(suite_of(record, absent, bounds={"robust_accuracy": Bound(min=0.9)}), tmp_path)
    assert code == 1
    assert "1 broken" in text
    assert "1 not measured" in text


def test_an_absent_metric_is_not_measured_and_bits_are_spelled_as_bits(tmp_path):
    record = factory.generation(0.52)
    factory.write(tmp_path, record)
    code, text = check_suite(suite_of(record, bounds={"test_bpd": Bound(max=0.55)}), tmp_path)
    assert code == 0
    assert "≤ 0.550: 0.520 [0.516, 0.524] n = 10,000" in text
    assert check_suite(suite_of(record, bounds={"iwae": Bound(max=1)}), tmp_path)[0] == 2


@pytest.mark.parametrize(
    ("name", "metric", "bound", "output"),
    [
        ("active_units", Metric(value=12, n=20), Bound(min=18), "active_units ≥ 18: 12 n = 20"),
        ("frechet_distance", Metric(value=21.74, n=2000), Bound(max=30), "frechet_distance ≤ 30: 21.7 n = 2,000"),
        ("density", Metric(value=1.02, low=0.99, high=1.05), Bound(max=1.5), "density ≤ 1.5: 1.02 [0.99, 1.05]"),
        ("recall", Metric(value=0.64, low=0.6, high=0.7), Bound(min=0.5), "recall ≥ 50.0 %: 64.0 % [60.0, 70.0]"),
    ],
)
def test_only_shares_are_shown_in_percent(tmp_path, name, metric, bound, output):
    record = factory.generation(0.52)
    factory.write(tmp_path, record.model_copy(update={"metrics": {name: metric}}))
    assert output in check_suite(suite_of(record, bounds={name: bound}), tmp_path)[1]


def test_shares_are_what_a_suite_may_bound_by_a_share():
    expects = (RobustnessExpect, GenerationExpect)
    fields = {name: field.annotation for expect in expects for name, field in expect.model_fields.items()}
    assert {name for name, annotation in fields.items() if annotation == Share | None} == SHARES


def test_a_suite_that_expects_nothing_and_a_corrupt_record_are_refused(tmp_path):
    record = robust(0.5)
    factory.write(tmp_path, record)
    empty = suite_of(record, bounds={})
    empty.expectations = ()
    with pytest.raises(InputError, match="nothing to check"):
        check_suite(empty, tmp_path)
    record_path(tmp_path, record.id).write_text("{")
    with pytest.raises(InputError, match="not a record"):
        check_suite(suite_of(record, bounds={"robust_accuracy": Bound(min=0)}), tmp_path)


def test_junit_separates_failures_from_errors_and_escapes_hostile_names(tmp_path):
    hostile = '<script>"&\x00\x1b]\ud800'
    cases = [Case("g", hostile, "failure", hostile), Case("g", "b", "error", "why"), Case("g", "c", "passed", "ok")]
    write_junit(tmp_path / "deep" / "j.xml", hostile, cases)
    root = ElementTree.parse(tmp_path / "deep" / "j.xml").getroot()
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert suite[0].get("name") == '<script>"&��]�'
    assert [child[0].tag for child in suite] == ["failure", "error", "system-out"]


@given(st.text(st.characters()), st.text(st.characters()))
def test_junit_is_always_well_formed(name, message):
    ElementTree.fromstring(junit(name, [Case(name, name, "error", message)]))


def test_check_writes_junit_and_says_so_when_it_cannot(tmp_path):
    record = robust(0.5)
    factory.write(tmp_path, record)
    suite = suite_of(record, bounds={"robust_accuracy": Bound(min=0.9)})
    check_suite(suite, tmp_path, tmp_path / "j.xml")
    assert ElementTree.parse(tmp_path / "j.xml").getroot().get("failures") == "1"
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="--junit"):
        check_suite(suite, tmp_path, tmp_path / "folder")


def test_the_command_for_a_missing_cell_can_be_pasted(tmp_path):
    """With quotes around spaces, and with the options that the suite was read with: other ones measure other cells."""
    folder = tmp_path / "my föld"
    folder.mkdir()
    path = folder / "gate 1.toml"
    path.write_text(
        '[robustness]\ndata = "digits"\n[robustness.matrix]\nmodel = "smallcnn"\nattack = "fgsm"\neps = 0.1\n'
        "[[robustness.expect]]\nclean_accuracy = { min = 0.5 }\n",
        encoding="utf-8",
    )
    suite = load_suite(str(path), 20, "float32", ["robustness.matrix.seed=[2]"])
    _, text = check_suite(suite, folder / "out")
    command = text.partition("`")[2].partition("`")[0]
    _, verb, name, *options = shlex.split(command)
    assert (verb, options[-2:]) == ("run", ["--out", str(folder / "out")])
    assert options[:-2] == ["--limit", "20", "--precision", "float32", "--set", "robustness.matrix.seed=[2]"]
    assert [cell.id for cell in load_suite(name, int(options[1]), options[3], [options[5]]).cells] == [
        cell.id for cell in suite.cells
    ]
