"""The tables of generative models: one likelihood a table, and every number is that of the record."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from statistics import mean, stdev

import factory
import generative_factory as generative
import pytest
from generative_factory import column, made, refined, tables
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.findings import finding
from epsbench.harness.report.build import report
from epsbench.harness.report.generative.likelihood import bpd_tables
from epsbench.harness.report.overview import findings_table
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import ABSENT, duration, magnitude


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["vae", "autoencoder", "module:Other"]),
            st.sampled_from(["mnist", "cifar10"]),
            st.sampled_from([16, 256, None]),
            st.integers(1, 30),
        ),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_a_table_of_bits_holds_one_likelihood_and_no_autoencoder(ways):
    records = []
    for index, (name, data, levels, z_dim) in enumerate(ways):
        shape = {"name": name} | ({} if levels is None else {"levels": levels})
        make = factory.generation if name != "autoencoder" else generative.autoencoder
        axes = {"data": data, "z_dim": z_dim} | ({"model": shape} if name != "autoencoder" else {})
        bits = {} if name == "autoencoder" else {"test_bpd": 1 + index}
        records.append(make(**bits, **axes))
    shown = {}
    for table in bpd_tables(made(*records)):
        for row in table.rows:
            shown[float(row[6].text)] = table.title
    for index, (name, data, levels, _) in enumerate(ways):
        expected = f"VAE on {data}" + ("" if levels is None else f", {levels} grey levels")
        assert shown.get(float(1 + index)) == (None if name == "autoencoder" else expected)


def test_the_bits_are_those_of_the_record():
    record = generative.model(0.52, gap=0.0123)
    bits, bounds = tables(record).likelihood
    assert len(bits.columns) == 11
    assert column(bits, "IWAE-100 bpd") == ["0.508 [0.504, 0.512]"]
    assert column(bits, "gap to ELBO") == ["0.0123 [0.0121, 0.0125]"]
    assert bounds.title == "How tight the bounds are: mnist, 16 grey levels"
    assert column(bounds, "ELBO") == ["0.520 [0.516, 0.524]"]
    assert column(bounds, "Monte Carlo, L = 10,000")[0].startswith("0.840 [")
    assert column(bounds, "ELBO, first 1,000")[0].startswith("0.524 [")
    assert column(bounds, "IWAE-5,000, first 1,000")[0].startswith("0.508 [")


def test_several_seeds_are_their_mean_and_standard_deviation():
    values = [0.517, 0.5184, 0.5196]
    table = tables(*(generative.model(value, seed=seed) for seed, value in enumerate(values))).likelihood[0]
    assert column(table, "seeds") == ["3"]
    assert column(table, "test bpd") == [f"{mean(values):.3f} ±{stdev(values):.4f}"]
    assert "standard deviation over seeds" in table.caption


def test_a_seed_that_failed_is_counted():
    good = generative.model(seed=0)
    bad = factory.of_cell(factory.failed("diverged"), good.cell | {"seed": 1})
    assert column(tables(good, bad).likelihood[0], "seeds") == ["1 of 2"]


def test_counts_that_differ_stand_in_their_rows():
    other = generative.EVALUATION | {"importance_samples": 500, "long_images": 200}
    bits, bounds = tables(generative.model(), generative.model(z_dim=5, evaluation=other)).likelihood
    for output in (column(bits, "IWAE bpd"), column(bits, "gap to ELBO"), column(bounds, "IWAE")):
        assert sorted(entry.partition("], ")[2] for entry in output) == ["k = 100", "k = 500"]
    assert all("=" not in entry for entry in column(bounds, "Monte Carlo, L = 10,000"))
    output = column(bounds, "IWAE-5,000, first images")
    assert sorted(entry.partition("], ")[2] for entry in output) == ["first 1,000", "first 200"]


def test_a_refined_bound_stands_beside_the_amortisation_gap():
    table = tables(refined(), generative.model(0.6, z_dim=5)).likelihood[1]
    assert column(table, "ELBO refined by 50 steps, first 1,000") == ["–", "0.490 [0.488, 0.492]"]
    assert column(table, "amortisation gap, first 1,000") == ["–", "0.0200 [0.0198, 0.0202]"]
    assert "refined ELBO" in table.caption
    assert "refined" not in tables(generative.model()).likelihood[1].caption


def test_a_count_of_a_measure_that_was_left_out_is_no_difference():
    none = {"importance_bpd", "importance_gap_bpd"}
    record = generative.model(z_dim=5, evaluation=generative.EVALUATION | {"importance_samples": 500})
    without = {name: metric for name, metric in record.metrics.items() if name not in none}
    table = tables(generative.model(), record.model_copy(update={"metrics": without})).likelihood[0]
    assert set(column(table, "IWAE-100 bpd")) == {"0.508 [0.504, 0.512]", "–"}


def test_the_latent_space_is_that_of_the_record():
    record = generative.model(z_dim=20, active=12)
    (table,) = tables(record, generative.autoencoder()).latent
    assert column(table, "active units") == ["12 of 20", "–"]
    assert column(table, "linear probe")[0].startswith(f"{100 * record.metrics['probe_accuracy'].value:.1f} % [")
    assert table.notes == ()


@pytest.mark.parametrize(
    ("information", "n", "marks"),
    [(9.0, 10_000, ("≥ ", "≤ ")), (8.3, 10_000, ("≥ ", "≤ ")), (8.1, 10_000, ("", "")), (8.1, 2000, ("≥ ", "≤ "))],
)
def test_what_the_number_of_images_caps_is_marked_as_a_bound(information, n, marks):
    record = generative.model()
    moved = {
        "mutual_information_nats": generative.metric(information, 0.05, n),
        "marginal_kl_nats": generative.metric(36.0, 0.05, n),
    }
    (table,) = tables(record.model_copy(update={"metrics": record.metrics | moved})).latent
    assert column(table, "mutual information")[0].startswith(f"{marks[0]}{information:.2f} [")
    assert column(table, "marginal KL")[0].startswith(f"{marks[1]}36.00 [")
    assert "at most ln n (9.21 nats for 10,000)" in table.caption


def test_without_information_nothing_is_marked():
    (table,) = tables(generative.model(), generative.autoencoder()).latent
    assert column(table, "marginal KL")[1] == "–"


def test_a_rate_that_two_ways_disagree_on_is_noted():
    record = generative.model()
    moved = {"kl_closed_nats": generative.metric(1.0)}
    (table,) = tables(record.model_copy(update={"metrics": record.metrics | moved})).latent
    assert len(table.notes) == 1
    assert "outside the interval" in table.notes[0]


def test_quality_ends_with_the_floor_and_names_its_features():
    (table,) = tables(generative.model(), generative.model(z_dim=2), generative.autoencoder()).quality
    assert column(table, "Fréchet distance") == ["21.7", "21.7", "86.8", "0.42"]
    assert column(table, "kernel distance") == ["0.0123", "0.0123", "0.0492", "1.10 × 10⁻⁴"]
    assert column(table, "distance to neighbour") == ["5.20", "5.20", "20.80", "4.90"]
    assert table.rows[-1][0].text == "test images against training images"
    assert "weights 01234567, test accuracy 99.1 %" in table.caption
    assert "FID" not in json.dumps([table.title, table.caption, [shown.title for shown in table.columns]])


def test_the_floor_of_several_seeds_has_no_spread():
    (table,) = tables(*(generative.model(seed=seed) for seed in range(3))).quality
    assert column(table, "precision") == ["71.0 % ±0.0", "96.0 %"]


def test_distances_of_different_features_never_share_a_table():
    shown = tables(generative.model(), generative.model(z_dim=2, features="f" * 64)).quality
    assert [table.title for table in shown] == [
        "Sample quality on mnist, features ffffffff",
        "Sample quality on mnist, features 01234567",
    ]
    assert [len(table.rows) for table in shown] == [2, 2]


def test_distances_of_different_numbers_of_images_never_share_a_table():
    few = generative.model(z_dim=2, evaluation=generative.EVALUATION | {"generated": 2000})
    moved = {name: metric.model_copy(update={"n": 2000}) for name, metric in few.metrics.items()}
    moved["floor_frechet_distance"] = generative.metric(1.9, None, 2000)
    shown = tables(generative.model(), few.model_copy(update={"metrics": moved})).quality
    assert {table.title: column(table, "Fréchet distance") for table in shown} == {
        "Sample quality on mnist, n = 10,000": ["21.7", "0.42"],
        "Sample quality on mnist, n = 2,000": ["21.7", "1.9"],
    }
    assert all(f"on {table.title.split('= ')[1]} samples and as many images" in table.caption for table in shown)


def test_estimators_are_compared_with_the_reparameterised_one():
    (table,) = tables(generative.model()).estimators
    assert column(table, "reparameterised") == ["812"]
    assert column(table, "score function") == ["8.12 × 10⁹ (1.00 × 10⁷ ×)"]
    assert column(table, "score function, baseline") == ["4.06 × 10⁵ (500 ×)"]


def test_training_is_one_line_a_setting():
    (table,) = tables(generative.model(), generative.autoencoder()).training
    assert column(table, "training") == ["4 min 0 s"] * 2
    assert column(table, "evaluation") == ["1 min 30 s"] * 2


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_seconds_that_are_no_number_break_no_table(seconds):
    record = generative.model()
    (table,) = tables(record.model_copy(update={"training": record.training | {"seconds": seconds}})).training
    assert column(table, "training") == [ABSENT]
    assert duration(seconds) == str(seconds)


def test_records_without_an_evaluation_have_a_table_of_bits_only():
    shown = tables(factory.generation(0.52))
    assert [table.title for table in shown.all] == [
        "VAE on mnist, 16 grey levels",
        "What training a generative model costs",
    ]
    assert not {"gap to ELBO", "IWAE bpd"} & {c.title for c in shown.likelihood[0].columns}


def test_every_format_holds_the_tables_and_exports_the_metrics(tmp_path):
    record = generative.model()
    results = factory.write(tmp_path, record, generative.autoencoder())
    for fmt in ("text", "markdown", "html"):
        output = report(results, fmt)
        for title in ("How tight the bounds are", "The latent space", "Sample quality", "Gradient estimators"):
            assert title in output
    rows = list(csv.DictReader(io.StringIO(report(results, "csv"))))
    row = next(row for row in rows if row["id"] == record.id)
    columns = {name: f"metric.{name}" if name in record.cell else name for name in record.metrics}
    assert {name: row[column] for name, column in columns.items()} == {
        name: str(metric.value) for name, metric in record.metrics.items()
    }
    assert row["precision"] == record.cell["precision"]  # the parameter, not the precision of samples
    assert row["evaluation.importance_samples"] == "100"
    listed = {shown["id"]: shown for shown in json.loads(report(results, "json"))}
    assert listed[record.id]["evaluation"]["feature_weights_sha256"] == generative.FEATURES


@pytest.mark.parametrize(("value", "output"), [(0, "0"), (812.0, "812"), (8.12e9, "8.12 × 10⁹"), (2e-7, "2.00 × 10⁻⁷")])
def test_magnitudes_are_short(value, output):
    assert magnitude(value) == output


def void(**axes):
    sees = finding("sees-the-image", "the decoder gave another answer", different=3)
    return generative.model(**axes).model_copy(update={"status": "void", "findings": (sees,)})


def test_a_void_model_takes_no_place_in_a_comparison():
    cheat, honest, other = void(test_bpd=0.01, z_dim=5), generative.model(0.52), generative.model(0.6, z_dim=2)
    shown = tables(cheat, honest, other)
    bits = shown.likelihood[0]
    assert column(bits, "test bpd") == ["0.520 [0.516, 0.524]", "0.600 [0.596, 0.604]", "void"]
    assert column(bits, "z") == ["20", "2", "5"]
    assert bits.rows[-1][-1].state == "void"
    assert "takes no part in any comparison" in bits.caption
    for table in shown.all[1:]:
        assert "5" not in column(table, "z")
    assert "takes no part" not in tables(honest, other).likelihood[0].caption


def test_a_seed_that_is_void_is_counted_and_not_averaged():
    table = tables(generative.model(0.52), void(test_bpd=0.01, seed=1)).likelihood[0]
    assert column(table, "seeds") == ["1 of 2"]
    assert column(table, "test bpd") == ["0.520 [0.516, 0.524]"]


def test_the_findings_of_generative_models_are_listed_as_those_of_classifiers():
    warned = generative.model(0.6, z_dim=2)
    warned = warned.model_copy(update={"findings": (finding("memorised-images", "9 of 10 are copies", copied=0.9),)})
    table = findings_table(Results(Path("results"), (void(), warned), ()))
    assert [row[0].text for row in table.rows] == ["void", "warning"]
    assert table.rows[0][2].text.startswith("sees-the-image: the decoder gave another answer; let the decoder")
    assert "copied 0.9" in table.rows[1][2].text


def test_bits_are_compared_only_where_the_records_have_the_same_grey_levels():
    own = {"name": "mine.py:VAE"}
    two, many = (
        generative.model(bpd, z_dim=z, model=own) for bpd, z in ((0.2, 2), (0.5, 20))
    )  # fmt: skip
    two = two.model_copy(update={"evaluation": two.evaluation | {"grey_levels": 2}})
    many = many.model_copy(update={"evaluation": many.evaluation | {"grey_levels": 256}})
    titles = {table.title for table in bpd_tables(made(two, many))}
    assert titles == {"VAE on mnist, 2 grey levels", "VAE on mnist, 256 grey levels"}
