"""History over commits: the lines hold the records' numbers, in the order of the commits, and break where none is."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import factory
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from epsbench.harness.records import Failure, Record
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.results.units import visible
from epsbench.harness.report.site import history_figures as module
from epsbench.harness.report.site.history import history_page
from epsbench.harness.report.site.history_figures import MOST_COMMITS, history_figures, history_lines

sys.path.insert(0, str(Path(__file__).parents[1] / "exports"))

from texts import HOSTILE, NAMES

N = 200
CLEAN = np.arange(N) < 190


def at(record: Record, commit: str | None, day: int, *, dirty: bool = False) -> Record:
    """A record as if measured at this commit, on this day of January."""
    environment = {"git": {"commit": commit, "dirty": dirty}} if commit else {}
    return record.model_copy(update={"environment": environment, "finished": f"2026-01-{day:02}T00:00:00+00:00"})


def keeps(images: int, **axes: object) -> Record:
    return factory.robustness(CLEAN, CLEAN & (np.arange(N) < images), **axes)


def failed(**axes: object) -> Record:
    return keeps(100, **axes).model_copy(
        update={"status": "failed", "metrics": {}, "failure": Failure(type="RuntimeError", message="x", traceback="")}
    )


def lines(*groups: list[Record], task: str = "robustness"):
    return history_lines(groups, task, Names(record.cell for group in groups for record in group))


def test_a_line_has_the_numbers_and_intervals_of_the_records_in_the_order_of_the_commits():
    cell = [at(keeps(100), "a" * 40, 1), at(keeps(150), "c" * 40, 3), at(keeps(104), "b" * 40, 5)]
    [line], commits = lines(cell)
    assert commits == ["a" * 10, "c" * 10, "b" * 10]  # by time, not by name
    robust = [record.metrics["robust_accuracy"] for record in cell]
    assert line.points == tuple((place, m.value, m.low, m.high) for place, m in enumerate(robust))
    assert [value for _, value, *_ in line.points] == [0.5, 0.75, 0.52]
    assert line.change == 0.25
    assert line.breaks == ()


def test_cells_that_changed_most_come_first_and_share_the_axis_of_commits():
    still = [at(keeps(100, seed=1), "a" * 40, 1), at(keeps(101, seed=1), "b" * 40, 4)]
    moved = [at(keeps(100), "b" * 40, 3), at(keeps(20), "c" * 40, 5)]
    cells, commits = lines(still, moved)
    assert commits == ["a" * 10, "b" * 10, "c" * 10]
    assert [line.change for line in cells] == [pytest.approx(0.4), pytest.approx(0.005)]
    assert [[place for place, *_ in line.points] for line in cells] == [[1, 2], [0, 1]]


def test_of_several_measurements_at_one_commit_the_last_counts():
    cell = [at(keeps(100), "a" * 40, 1), at(keeps(60), "a" * 40, 2), at(keeps(80), "b" * 40, 3)]
    [line], _ = lines(cell)
    assert [value for _, value, *_ in line.points] == [0.3, 0.4]


def test_a_changed_tree_is_a_commit_of_its_own():
    cell = [at(keeps(100), "a" * 40, 1), at(keeps(60), "a" * 40, 2, dirty=True)]
    [line], commits = lines(cell)
    assert commits == ["a" * 10, "a" * 10 + "+"]
    assert len(line.points) == 2


@pytest.mark.parametrize("commits", [["a" * 40], ["a" * 40, "a" * 40], [None, None]])
def test_a_cell_that_was_measured_at_one_commit_has_no_line(commits):
    cell = [at(keeps(100 + day), name, day + 1) for day, name in enumerate(commits)]
    assert lines(cell) == ([], [])
    assert list(history_figures([cell], Names(record.cell for record in cell))) == []


def test_a_line_breaks_where_the_cell_failed_and_goes_on_where_it_was_not_measured():
    broken = [at(keeps(100), "a" * 40, 1), at(failed(), "b" * 40, 2), at(keeps(120), "c" * 40, 3)]
    absent = [at(keeps(90, seed=1), "a" * 40, 1), at(keeps(95, seed=1), "c" * 40, 3)]
    cells, commits = lines(broken, absent)
    assert commits == ["a" * 10, "b" * 10, "c" * 10]
    first, second = cells
    assert first.breaks == (1,)
    assert [math.isnan(value) for _, value, *_ in first.drawn] == [False, True, False]
    assert [place for place, *_ in second.drawn] == [0, 2]


def test_a_commit_of_failures_alone_of_cells_without_a_line_is_not_on_the_axis():
    cell = [at(keeps(100), "a" * 40, 1), at(keeps(60), "b" * 40, 2)]
    other = [at(failed(seed=1), "c" * 40, 3), at(keeps(10, seed=1), "b" * 40, 2)]
    assert lines(cell, other)[1] == ["a" * 10, "b" * 10]


def test_only_the_last_commits_are_drawn():
    cell = [at(keeps(day), f"{day:040x}"[::-1], 1).model_copy(update={"finished": f"2026-01-01T00:{day:02}:00+00:00"})
            for day in range(1, MOST_COMMITS + 6)]  # fmt: skip
    [line], commits = lines(cell)
    assert len(commits) == len(line.points) == MOST_COMMITS
    assert line.points[-1][1] == (MOST_COMMITS + 5) / N


def test_generative_cells_have_the_bound_and_a_figure_of_their_own():
    base = factory.generation()
    better = base.metrics | {"test_bpd": base.metrics["test_bpd"].model_copy(update={"value": 0.4, "low": None})}
    cell = [at(base, "a" * 40, 1), at(base.model_copy(update={"metrics": better}), "b" * 40, 2)]
    [line], _ = lines(cell, task="generation")
    assert [value for _, value, *_ in line.points] == [base.metrics["test_bpd"].value, 0.4]
    assert line.points[1][2] == 0.4, "without an interval the band is the value"
    titles = [figure.title for figure in history_figures([cell], Names([base.cell]))]
    assert titles == ["History of the bits per dimension of the test images"]


@pytest.fixture
def drawings(monkeypatch):
    """The figures that are drawn, before they are SVG."""
    kept: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        kept.append(figure)
        return b""

    monkeypatch.setattr(module, "svg", keep)
    return kept


def test_what_is_drawn_is_what_the_lines_hold(drawings):
    cell = [at(keeps(100), "a" * 40, 1), at(failed(), "b" * 40, 2), at(keeps(150), "c" * 40, 3, dirty=True)]
    [figure] = history_figures([cell], Names(record.cell for record in cell))
    assert figure.title == "History of the robust accuracy"
    [axes] = drawings[0].axes
    drawn = axes.lines[0].get_xydata()
    assert drawn[[0, 2]].tolist() == [[0, 0.5], [2, 0.75]]
    assert np.isnan(drawn[1, 1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a" * 7, "b" * 7, "c" * 7 + "+"]
    assert [entry.get_text() for entry in drawings[0].legends[0].get_texts()]


def test_a_page_of_many_cells_says_how_many_are_not_drawn(drawings):
    groups = [[at(keeps(100, seed=seed), "a" * 40, 1), at(keeps(101 + seed, seed=seed), "b" * 40, 2)]
              for seed in range(40)]  # fmt: skip
    figures = list(history_figures(groups, Names(record.cell for group in groups for record in group)))
    assert len(figures) == 4
    assert "12 more cells not drawn" in figures[0].caption
    assert sum(len(figure.axes[0].lines) for figure in drawings[::2]) == 28


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(NAMES, st.sampled_from(HOSTILE)), min_size=2, max_size=2, unique=True), NAMES)
def test_hostile_names_of_models_and_commits_are_drawn_as_they_are(commits, name):
    cell = [at(keeps(100 + day, model={"name": name}), commit, day + 1) for day, commit in enumerate(commits)]
    names = Names(record.cell for record in cell)
    drawn, shown = lines(cell)
    assert len(shown) == len({visible(commit)[:10] for commit in commits if commit} | {"–" for c in commits if not c})
    for line in drawn:
        assert visible(name) in line.label
    for figure in history_figures([cell], names):
        for image in (figure.light, figure.dark):
            ET.fromstring(image)  # it is XML whatever the names hold


def test_the_page_has_the_figure_above_its_table(tmp_path):
    one = factory.write(tmp_path / "one", at(keeps(100, code={"attack": "1"}), "a" * 40, 1))
    two = factory.write(tmp_path / "two", at(keeps(150, code={"attack": "2"}), "b" * 40, 2))
    [section] = history_page([two, one]).sections
    assert len(section.figures) == 1
    assert [row[1].text for row in section.rows] == ["a" * 10, "b" * 10]
