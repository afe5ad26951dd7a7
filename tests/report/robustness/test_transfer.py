"""Transfer tables: robust accuracy on images made on other models, beside the white box."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import factory
import numpy as np
import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.report.build import report
from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import Results, load_results
from epsbench.harness.report.robustness.leaderboard import boards
from epsbench.harness.report.robustness.transfer import MARK, matrices, transfer_sentences, transfer_table
from epsbench.harness.statistics import mean_interval, wilson

N = 20
EVERYTHING = np.ones(N, dtype=bool)
PGD = {"name": "pgd", "random_start": True, "restarts": 1, "steps": 20}
HALVES = ("first-half", "second-half")


def standing(count: int) -> np.ndarray:
    return np.arange(N) < count


def model(subset: str | None = None, seed: int = 0, **axes) -> dict:
    made = {"model": {"name": "smallcnn"}, "defense": {"name": "none"}, "augmentation": "none", "seed": seed} | axes
    return made | ({"subset": subset} if subset else {})


def shown(count: int, victim: dict, source: dict | None = None, **axes):
    """A record with so many of its images right; of images made on the source, where there is one."""
    made = {"attack": PGD, "eps": "0.3"} | axes | ({"source": source, "early_stop": False} if source else {})
    weights = json.dumps(victim, sort_keys=True)
    return factory.robustness(EVERYTHING, standing(count), weights=weights, **victim | made)


def results(*records) -> Results:
    return Results(Path("results"), records, ())


def square(**axes) -> list:
    """Two halves attacked along their own gradients (2 and 3 images stand) and each other's (11 and 12)."""
    first, second = (model(half) for half in HALVES)
    return [
        shown(2, first, **axes),
        shown(3, second, **axes),
        shown(11, first, second, **axes),
        shown(12, second, first, **axes),
    ]


def cells(table) -> list[list[str]]:
    return [[entry.plain for entry in row] for row in table.rows]


def text(count: int) -> str:
    low, high = wilson(count, N)
    return f"{100 * count / N:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def test_rows_are_sources_and_columns_victims_with_the_white_box_marked():
    (matrix,) = matrices(results(*square()))
    table = transfer_table(matrix)
    assert table.title == "Transfer of pgd(steps=20) on mnist, L∞"
    labels = [f"smallcnn ({half})" for half in HALVES]
    assert [column.title for column in table.columns] == ["ε", "made on ↓ tested on →", *labels]
    assert cells(table) == [
        ["", "clean images", text(20), text(20)],
        ["0.3", labels[0], f"{MARK} {text(2)}", text(12)],
        ["", labels[1], text(11), f"{MARK} {text(3)}"],
    ]
    assert "do not count in the worst case" in table.caption


def test_the_largest_eps_comes_first_and_what_was_not_measured_says_so():
    first, second = (model(half) for half in HALVES)
    small = [shown(9, first, eps="0.1"), shown(15, first, second, eps="0.1")]
    (matrix,) = matrices(results(*square(), *small))
    rows = cells(transfer_table(matrix))
    assert [row[0] for row in rows] == ["", "0.3", "", "0.1", ""]
    assert rows[3][2:] == [f"{MARK} {text(9)}", "not measured"]
    assert rows[4][2:] == [text(15), f"{MARK} not measured"]
    assert transfer_table(matrix).starts == {1, 3}


def test_every_attack_has_a_table_from_the_cheapest_on():
    fgsm = {"name": "fgsm", "random_start": False, "restarts": 1, "steps": 1}
    noise = shown(20, model("first-half"), attack={"name": "noise"})
    made = matrices(results(*square(), *square(attack=fgsm), noise))
    assert [matrix.attack for matrix in made] == ["fgsm", "pgd(steps=20)"]


def test_models_of_another_recipe_or_data_set_have_tables_of_their_own():
    longer = square(training=factory.TRAINING | {"epochs": 20})
    made = matrices(results(*square(), *longer, *square(data="fashion-mnist")))
    assert [(matrix.data, matrix.extra) for matrix in made] == [
        ("mnist", "training.epochs 10"),
        ("mnist", "training.epochs 20"),
        ("fashion-mnist", "training.epochs 10"),
    ]
    assert all(len(matrix.victims) == 2 for matrix in made)


def test_images_made_on_other_models_do_not_count_in_the_worst_case():
    first, second = (model(half) for half in HALVES)
    records = results(*square(), shown(0, first, second, attack=PGD | {"steps": 40}))
    (board,) = boards(records)
    assert list(board.labels.values()) == ["pgd(steps=20)"]
    assert {row.extra: row.worst[Fraction(3, 10)].value for row in board.rows} == {
        "subset first-half": 2 / N,
        "subset second-half": 3 / N,
    }
    content = Content(records)
    assert "do not count in the worst case" in content.tables[0].caption
    assert "transfer" not in Content(results(*square()[:2])).tables[0].caption


def test_sources_are_labelled_by_what_they_are():
    victim = model(seed=1)
    defended = model("second-half", seed=1, defense={"name": "pgd-batch", "steps": 7}, augmentation="shift")
    other_seed = model(seed=5)
    made = results(shown(4, victim, defended), shown(5, victim, other_seed), shown(1, victim))
    labels = [made.names.attack(record.cell) for record in made.current]
    assert labels == [
        "pgd(steps=20) from smallcnn + pgd-batch(steps=7) + shift (second-half)",
        "pgd(steps=20) from smallcnn (seed 5)",
        "pgd(steps=20)",
    ]
    (matrix,) = matrices(made)
    assert [matrix.labels[victim] for victim in matrix.victims] == ["smallcnn"]
    assert len(matrix.sources) == 3


def test_two_sources_that_look_alike_keep_their_own_scores():
    """Two models that differ in a parameter without a value, which no label shows."""
    victim = model("first-half", data="mnist")
    sources = [
        model("second-half", data="mnist", model={"name": "smallcnn"} | more) for more in ({}, {"activation": None})
    ]
    made = results(*(shown(count, victim, source) for count, source in zip((4, 9), sources, strict=True)))
    (matrix,) = matrices(made)
    labels = [matrix.labels[source] for source in matrix.sources[1:]]
    assert labels == [labels[0], f"{labels[0]} (2)"]
    assert [score.value for score, _, _ in matrix.transferred(Fraction(3, 10))] == [4 / N, 9 / N]


def test_seeds_are_averaged_pair_by_pair():
    counts = {0: 4, 1: 8, 2: 9}
    pairs = [
        shown(count, model("first-half", seed=seed), model("second-half", seed=seed)) for seed, count in counts.items()
    ]
    (matrix,) = matrices(results(*pairs))
    ((score, source, victim),) = matrix.transferred(Fraction(3, 10))
    mean, low, high = mean_interval([count / N for count in counts.values()])
    assert (score.value, score.low, score.high) == pytest.approx((mean, max(0, low), min(1, high)))
    assert (matrix.labels[source], matrix.labels[victim]) == ("smallcnn (second-half)", "smallcnn (first-half)")
    assert transfer_table(matrix).notes == ("mean and Student-t interval over 3 seeds",)


def test_the_white_box_without_early_stop_is_the_one_shown():
    stopped, first, second = shown(1, model("first-half")), model("first-half"), model("second-half")
    full = shown(2, first, early_stop=False)
    for order in ([stopped, full], [full, stopped]):
        (matrix,) = matrices(results(*order, shown(11, first, second)))
        assert matrix.own(Fraction(3, 10))[0].value == 2 / N
        assert matrix.attack == "pgd(steps=20)"


def test_the_reading_names_the_best_and_the_worst_pair():
    ((expected,),) = transfer_sentences(matrices(results(*square())))
    assert expected == (
        "On mnist, the accuracy of a model on images that pgd(steps=20) makes on another model at L∞ ε = 0.3 is "
        f"{text(11)} (made on smallcnn (second-half), tested on smallcnn (first-half)) to "
        f"{text(12)} (made on smallcnn (first-half), tested on smallcnn (second-half)); "
        "on images made on the model itself it is 10.0 % to 15.0 %."
    )
    assert transfer_sentences([]) == []


def test_a_pair_that_failed_says_so():
    first, second = (model(half) for half in HALVES)
    bad = factory.failed(**first, attack=PGD, eps="0.3", source=second, early_stop=False)
    (matrix,) = matrices(results(shown(2, first), bad))
    assert cells(transfer_table(matrix))[2][2] == "failed"
    assert transfer_sentences([matrix]) == []


def test_every_format_shows_transfer_only_where_it_was_measured(tmp_path):
    for name, records, there in (("transferred", square(), True), ("own", square()[:2], False)):
        folder = factory.write(tmp_path / name, *records)
        report(folder)
        for written in ("report.html", "report.md"):
            assert ("Transfer of pgd" in (folder / written).read_text(encoding="utf-8")) == there
    page = (tmp_path / "transferred" / "report.html").read_text(encoding="utf-8")
    assert 'id="transfer"' in page
    assert page.count("Images are made on a source model") == 1


def test_a_report_of_transfer_alone(tmp_path):
    folder = factory.write(tmp_path, *square()[2:])
    report(folder)
    assert "Transfer of pgd" in (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (3, "cell.source: is not an object"),
        ({"model": {"name": "smallcnn"}}, "cell.source.defense: is missing"),
        (model() | {"model": "smallcnn"}, "cell.source.model: is not an object with a name"),
        (model() | {"subset": 1}, "cell.source.subset: is not a string"),
    ],
)
def test_a_malformed_source_is_refused(tmp_path, source, expected):
    record = factory.robustness(EVERYTHING, EVERYTHING, source=source)
    folder = factory.write(tmp_path, record)
    with pytest.raises(InputError, match=expected):
        load_results(folder)


def test_a_start_is_called_the_same_of_a_source_and_of_a_victim():
    """The record of a source has no data and no recipe: they are the victim's."""
    start = model() | {"data": "mnist", "training": {"epochs": 18}}
    tuned = {"training": {"epochs": 1}}
    first, second = model(start=start), model(start=start | {"defense": {"name": "trades"}}, defense={"name": "trades"})
    (matrix,) = matrices(
        results(
            shown(2, first | tuned), shown(3, second | tuned),
            shown(11, first | tuned, second), shown(12, second | tuned, first),
        )
    )  # fmt: skip
    assert sorted(matrix.labels.values()) == [
        "smallcnn (from undefended + 18 epochs)",
        "smallcnn + trades (from trades + 18 epochs)",
    ]
