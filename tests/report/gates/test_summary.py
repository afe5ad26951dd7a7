"""The job summary of GitHub Actions, and bounds on speed."""

from __future__ import annotations

import factory
import pytest
from bounded import Bound, robust, suite_of

from epsbench.harness.errors import InputError
from epsbench.harness.report.gates.check import check_suite
from epsbench.harness.report.gates.compare import compare
from epsbench.harness.report.gates.junit import Case
from epsbench.harness.report.gates.summary import MOST_ROWS, append_summary, summary


def test_check_and_compare_append_to_what_other_steps_wrote(tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    a, b = robust(0.5), robust(0.4)
    factory.write(tmp_path / "a", a)
    factory.write(tmp_path / "b", b)
    bounds = {"robust_accuracy": Bound(min=0.9), "clean_accuracy": Bound(min=0.9)}
    assert check_suite(suite_of(a, bounds=bounds), tmp_path / "a", summary=path)[0] == 1
    assert compare(tmp_path / "a", tmp_path / "b", summary=path)[0] == 1
    text = path.read_text()
    assert text.startswith("before\n### gate: 1 of 2 bounds hold, 1 broken")
    assert text.index("❌ | broken") < text.index("✅ | holds")
    assert "❌ | worse: robust accuracy: 50.0 % → 40.0 %" in text


def test_hostile_text_stays_in_its_cell_and_much_of_it_is_counted():
    output = summary("<b>|\n# x", [Case("g", "n", "error", "a|b\n<script>`" + "x" * 5000)] * (MOST_ROWS + 7))
    assert "<" not in output
    assert all(line.startswith("| ") for line in output.splitlines()[2 : 4 + MOST_ROWS])
    assert output.splitlines()[-1] == "7 more are not shown."
    assert len(output) < 2**20


def test_a_summary_that_cannot_be_written_names_the_variable(tmp_path):
    with pytest.raises(InputError, match="GITHUB_STEP_SUMMARY"):
        append_summary(tmp_path, "t", [])


@pytest.mark.parametrize(
    ("share", "code", "expected"),
    [
        (0.9, 0, "holds         floor_share ≥ 80.0 %: 90.0 %"),
        (0.79, 1, "broken        floor_share ≥ 80.0 %: 79.0 %"),
        (None, 2, "the record has no floor_share: the floor is timed only where"),
        ("fast", 2, "no floor_share"),
        (float("nan"), 2, "no floor_share"),
        (True, 2, "no floor_share"),
    ],
)
def test_speed_is_judged_by_the_share_of_the_floor_in_the_same_run(tmp_path, share, code, expected):
    record = robust(0.5)
    record = record.model_copy(update={"cost": record.cost | {"floor_share": share}})
    factory.write(tmp_path, record)
    outcome, text = check_suite(suite_of(record, bounds={"floor_share": Bound(min=0.8)}), tmp_path)
    assert outcome == code
    assert expected in text


def test_seconds_are_no_bound(tmp_path):
    record = robust(0.5)
    factory.write(tmp_path, record)
    assert check_suite(suite_of(record, bounds={"seconds": Bound(max=1e9)}), tmp_path)[0] == 2
