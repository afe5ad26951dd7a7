"""Tables in a terminal: no word and no number breaks inside; columns without room are left out and named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epsbench.harness.report.content import Content
from epsbench.harness.report.drawing.table import NEEDED, Column, Entry, Table
from epsbench.harness.report.formats.fitting import fitted
from epsbench.harness.report.formats.text import _loose, _minimum, text
from epsbench.harness.report.results.loading import load_results

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


@pytest.fixture(scope="module")
def contents() -> dict[str, Content]:
    return {name: Content(load_results(REFERENCE / name)) for name in ("mnist-autoattack", "vae-mnist", "cost")}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("suite", ["mnist-autoattack", "vae-mnist", "cost"])
def test_every_word_and_number_that_is_shown_is_whole(contents, suite, width):
    content = contents[suite]
    written = text(content, width=width, colour=False)
    assert max(map(len, written.splitlines())) <= width
    words = set(written.split())
    for table in content.tables:
        layout = fitted(table, width, _minimum)
        left_out = re.sub(r"\s+", " ", written)
        for index, column in enumerate(table.columns):
            if index not in layout.columns:
                assert column.title in left_out
                continue
            for row in table.rows:
                shown = _loose(row[index].text) if column.label else row[index].text
                assert set(f"{shown} {row[index].detail}".split()) <= words
            for number in (row[index].text for row in table.rows if column.numeric and row[index].text):
                assert number in written  # "1 min 15 s" stands in one line


def test_an_augmentation_in_which_rows_differ_is_shown_before_another_attack():
    board = Content(load_results(REFERENCE / "resnet18-augmentation")).tables[0]
    layout = fitted(board, 80, _minimum)
    assert "augmentation" in [board.columns[index].title for index in layout.columns]
    assert layout.left_out  # without room for all columns


def table(*columns: Column) -> Table:
    return Table("t", columns, (tuple(Entry("12345678", "[1, 2]") for _ in columns),))


def test_columns_of_the_least_weight_go_first_and_of_equal_ones_the_last():
    columns = (
        Column("name"), Column("aside", True, weight=0), Column("b", True), Column("c", True),
        Column("must", True, weight=NEEDED),
    )  # fmt: skip
    assert fitted(table(*columns), 220, _minimum).left_out == ()
    assert fitted(table(*columns), 47, _minimum).left_out == ("aside",)
    assert fitted(table(*columns), 34, _minimum).left_out == ("aside", "c")
    assert fitted(table(*columns), 12, _minimum).left_out == ("aside", "b", "c")


def test_intervals_stand_below_before_a_column_is_left_out():
    columns = (Column("a", True), Column("b", True))
    assert fitted(table(*columns), 35, _minimum).split is False
    narrow = fitted(table(*columns), 22, _minimum)
    assert narrow.split is True
    assert narrow.left_out == ()
