"""The sentences that compare two models or two attacks of a leaderboard, with their intervals."""

from __future__ import annotations

from pathlib import Path

import factory
import numpy as np
import pytest

from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.starts import start_label
from epsbench.harness.report.robustness.contrasts import contrast_sentences
from epsbench.harness.report.robustness.leaderboard import boards
from epsbench.harness.report.robustness.verdicts import difference
from epsbench.harness.statistics import mean_interval, paired_difference_interval

N = 100
CLEAN = np.ones(N, dtype=bool)
NOISE, FGSM, PGD = {"name": "noise"}, {"name": "fgsm", "steps": 1}, {"name": "pgd", "steps": 40}
NONE = {"name": "none"}


def right(k: int) -> np.ndarray:
    return np.arange(N) < k


def sentences(*records) -> list[str]:
    (board,) = boards(Results(Path(), records, ()))
    return contrast_sentences(board)


def defense(name: str, **parameters) -> dict:
    return {"name": name, "eps": "0.3"} | parameters


def trained(clean: int, robust: int, **axes):
    return factory.robustness(right(clean), right(robust), attack=PGD, **axes)


def test_one_seed_is_paired_over_images_and_several_are_a_mean_over_seeds():
    old, new = right(90), np.roll(right(80), 5)  # 15 fall, 5 rise
    _, low, high = paired_difference_interval(int((old & ~new).sum()), int((~old & new).sum()), N)
    assert difference({0: old}, {0: new, 1: old}) == f"-10.0 points [{100 * low:+.1f}, {100 * high:+.1f}]"
    twice = dict.fromkeys((0, 1), old), dict.fromkeys((0, 1), new)  # seeds that agree say nothing of seeds
    assert difference(*twice) == difference({0: old}, {0: new})
    before, after = {s: right(90) for s in range(3)}, {s: right(80 - s) for s in range(3)}
    _, low, high = mean_interval([-0.10, -0.11, -0.12])
    assert difference(before, after) == f"-11.0 points [{100 * low:+.1f}, {100 * high:+.1f}]"


@pytest.mark.parametrize("after", [{}, {1: right(3)}, {0: right(3)[:50]}])
def test_other_images_or_seeds_are_not_compared(after):
    assert difference({0: right(5)}, after) is None


def test_noise_and_fgsm_at_the_eps_where_they_differ_most():
    shares = {"0.1": (99, 90), "0.2": (98, 40), "0.3": (60, 30)}
    records = [
        factory.robustness(CLEAN, right(k), attack=attack, eps=eps)
        for eps, pair in shares.items()
        for attack, k in zip((NOISE, FGSM), pair, strict=True)
    ]
    (text,) = sentences(*records)
    assert text.startswith("At ε = 0.2, smallcnn keeps 98.0 % under noise and 40.0 % under FGSM: -58.0 points [")
    assert text.endswith(", the largest difference among 3 ε.")


@pytest.mark.parametrize("attacks", [(NOISE,), (FGSM,), (NOISE, PGD)])
def test_noise_and_fgsm_are_compared_only_where_both_were_measured(attacks):
    assert sentences(*(factory.robustness(CLEAN, right(40), attack=attack) for attack in attacks)) == []


def test_defenses_change_the_clean_accuracy():
    names = ("none", "trades", "n-fgsm", "pgd-batch")
    (text,) = sentences(
        *(trained(k, 9, defense=defense(name)) for name, k in zip(names, (95, 80, 75, 90), strict=True))
    )
    assert text.startswith(
        "Without a defense the clean accuracy of smallcnn is 95.0 %; defenses change it by -5.0 points ["
    )
    assert "(pgd-batch) to -20.0 points [" in text
    assert text.endswith("(n-fgsm).")
    assert "trades" not in text


def test_models_that_differ_in_more_than_one_thing_are_not_compared():
    assert sentences(trained(95, 9), trained(90, 20, defense=defense("trades"), augmentation="shift")) == []
    assert sentences(trained(95, 9), trained(90, 20, defense=defense("trades"), training={"epochs": 3})) == []


def test_with_and_without_augmentation():
    (text,) = sentences(trained(90, 10), trained(94, 16, augmentation="crop-flip"))
    assert text.startswith("For smallcnn, augmentation crop-flip changes the clean accuracy by +4.0 points [")
    assert "and the worst case at ε = 0.3 by +6.0 points [" in text


def test_a_worst_case_that_is_only_a_bound_is_not_compared():
    lacking = factory.robustness(right(90), right(10), attack=FGSM)
    both = [factory.robustness(right(94), right(16), attack=attack, augmentation="shift") for attack in (FGSM, PGD)]
    (text,) = sentences(lacking, *both)
    assert "clean accuracy" in text
    assert "worst case" not in text


def test_other_weights_to_start_from():
    start = {"data": "fashion-mnist", "model": {"name": "smallcnn"}, "defense": NONE, "augmentation": "none", "seed": 0}
    results = Results(Path(), (trained(90, 10), trained(93, 10, start=start)), ())
    (text,) = contrast_sentences(boards(results)[0])
    assert "starting from weights of fashion-mnist changes the clean accuracy by +3.0 points [" in text
    assert sorted(row.extra for row in boards(results)[0].rows) == ["", "start fashion-mnist"]
    assert "from fashion-mnist" in results.names.cell(results.current[1].cell)


def test_weights_of_an_undefended_training_are_called_that():
    start = {"data": "mnist", "model": {"name": "smallcnn"}, "defense": NONE, "augmentation": "none", "seed": 0}
    cell = trained(90, 10, start=start, defense={"name": "trades"}).cell
    assert start_label(cell | {"data": "mnist"}) == "undefended"


def test_weights_of_all_images_are_called_that_by_a_model_of_one_half():
    start = {"data": "mnist", "model": {"name": "smallcnn"}, "defense": NONE, "augmentation": "none", "seed": 0}
    cell = trained(90, 10, start=start, subset="first-half").cell
    assert start_label(cell | {"data": "mnist"}) == "all"


@pytest.mark.parametrize(
    ("recipe", "label"),
    [
        ({"epochs": 18}, "mnist + undefended + 18 epochs"),
        ({"epochs": 1}, "mnist + undefended + 1 epoch"),
        ({"epochs": 10, "learning_rate": 0.2}, "mnist + undefended + another recipe"),
    ],
)
def test_weights_of_another_recipe_are_called_that(recipe, label):
    start = {"data": "mnist", "model": {"name": "smallcnn"}, "defense": NONE, "augmentation": "none", "seed": 0}
    for defense in (NONE, {"name": "trades"}):
        own = {"start": start | {"training": recipe}, "training": {"epochs": 10}, "defense": defense}
        assert start_label(trained(90, 10, **own).cell | {"data": "cifar10"}) == label


def test_one_start_of_models_with_different_defenses_is_no_difference():
    start = {"data": "mnist", "model": {"name": "smallcnn"}, "defense": NONE, "augmentation": "none", "seed": 0}
    own = {"start": start | {"training": {"epochs": 18}}, "training": {"epochs": 1}}
    records = [trained(90, 10, **own), trained(80, 40, **own, defense={"name": "trades", "eps": "0.3"})]
    rows = boards(Results(Path(), tuple(records), ()))[0].rows
    assert [row.extra for row in rows] == ["", ""]


def test_starts_that_would_be_called_the_same_are_told_apart():
    own = {"epochs": 1, "learning_rate": 0.1, "batch_size": 128}
    common = {"data": "mnist", "model": {"name": "smallcnn"}, "defense": NONE, "augmentation": "none", "seed": 0}
    fgsm = {"name": "fgsm-loss", "alpha": 0.5}
    starts = [
        {"training": own | {"epochs": 18}},
        {"training": own | {"epochs": 18, "learning_rate": 0.2}},
        {"training": own | {"learning_rate": 0.2}},
        {"training": own | {"batch_size": 64}},
        {"defense": fgsm | {"eps": "0.1"}},
        {"defense": fgsm | {"eps": "0.2"}},
        {"subset": "first-half"},
    ]
    results = Results(Path(), tuple(trained(90, 10, start=common | each, training=own) for each in starts), ())
    expected = [
        "undefended + 18 epochs", "undefended + 18 epochs (learning_rate 0.2)",
        "undefended + another recipe (learning_rate 0.2)", "undefended + another recipe (batch_size 64)",
        "fgsm-loss (eps 0.1)", "fgsm-loss (eps 0.2)", "first-half",
    ]  # fmt: skip
    assert {row.extra for row in boards(results)[0].rows} == {f"start {label}" for label in expected}
    labels = [results.names.model(record.cell) for record in results.current]
    assert labels == [f"smallcnn (from {label})" for label in expected]
    assert len({results.names.cell(record.cell) for record in results.current}) == len(starts)


def test_a_recipe_without_a_key_has_its_default():
    """The models were trained with averaged weights, and so was what one of them began with."""
    own = {"epochs": 1, "average": 0.9}
    start = {"data": "mnist", "model": {"name": "smallcnn"}, "defense": NONE, "augmentation": "none", "seed": 0}
    starts = [start | {"training": {"epochs": 18}}, start | {"training": {"epochs": 18, "average": 0.9}}]
    results = Results(Path(), tuple(trained(90, 10, start=each, training=own) for each in starts), ())
    labels = {row.extra for row in boards(results)[0].rows}
    assert labels == {"start undefended + 18 epochs (average 0.0)", "start undefended + 18 epochs"}


def test_seeds_of_a_model_that_began_with_other_weights_are_one_row():
    """Though each began with weights of its own seed."""
    start = {"data": "fashion-mnist", "model": {"name": "smallcnn"}, "defense": NONE, "augmentation": "none"}
    records = [trained(90 + seed, 10, seed=seed) for seed in range(3)]
    records += [trained(93 + seed, 10, seed=seed, start=start | {"seed": seed}) for seed in range(3)]
    results = Results(Path(), tuple(records), ())
    assert sorted((row.extra, len(row.seeds)) for row in boards(results)[0].rows) == [
        ("", 3),
        ("start fashion-mnist", 3),
    ]
    (text,) = contrast_sentences(boards(results)[0])
    assert "starting from weights of fashion-mnist changes the clean accuracy by +3.0 points [+3.0, +3.0]" in text


@pytest.mark.parametrize(("batch", "expected"), [({"steps": 1}, True), ({"steps": 7}, False), ({"eps": "0.2"}, False)])
def test_fgsm_images_in_the_loss_and_in_the_batch(batch, expected):
    one_step = defense("pgd-batch", steps=1, relative_step_size=1.0, random_start=False) | batch
    text = sentences(trained(90, 10, defense=defense("fgsm-loss", alpha=0.5)), trained(91, 30, defense=one_step))
    assert [one.startswith("For smallcnn, FGSM images in the batch instead of in the loss change") for one in text] == [
        True
    ] * expected


@pytest.mark.parametrize("early_stop", [False, True])
def test_attacks_of_few_and_many_gradients_are_compared_without_early_stop(early_stop):
    text = sentences(
        factory.robustness(CLEAN, right(50), attack=FGSM, early_stop=early_stop, images_per_second=1000.0),
        factory.robustness(CLEAN, right(45), attack={"name": "pgd", "steps": 10}, early_stop=early_stop),
        factory.robustness(CLEAN, right(40), attack=PGD, early_stop=early_stop, images_per_second=20.0),
        factory.robustness(CLEAN, right(90), attack=NOISE, early_stop=early_stop),
    )
    wanted = "On smallcnn, pgd with 40 gradients an image takes 50 × the time of fgsm with 1, and changes the robust "
    assert [one.startswith(wanted + "accuracy at ε = 0.3 by -10.0 points [") for one in text[1:]] == [True][
        : not early_stop
    ]


def test_an_attack_whose_gradients_were_not_counted_is_not_compared():
    """Its steps times restarts are a bound, no count."""
    records = [
        factory.robustness(CLEAN, right(50), attack=attack, early_stop=False, images_per_second=100.0)
        for attack in (FGSM, {"name": "pgd", "steps": 10}, PGD)
    ]
    counted = records[2].model_copy(
        update={"cost": {key: value for key, value in records[2].cost.items() if key != "gradients_per_image"}}
    )
    text = " ".join(sentences(records[0], records[1], counted))
    assert "pgd with 10 gradients an image takes" in text
    assert "40" not in text


def test_failed_cells_and_old_records_are_passed_over():
    assert sentences(factory.failed(), trained(90, 10, defense=defense("trades"))) == []


def test_the_sentences_open_the_report():
    results = Results(Path(), (trained(90, 10), trained(94, 16, augmentation="crop-flip")), ())
    assert any(
        "augmentation crop-flip changes the clean accuracy" in paragraph for paragraph in Content(results).reading
    )
