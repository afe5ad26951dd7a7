"""Figures and pictures of generative models: what is drawn for which records, and malformed files."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import factory
import generative_factory as generative
import numpy as np
import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.records import record_path
from epsbench.harness.report.build import report
from epsbench.harness.report.generative.illustrations import latent_figures, likelihood_figures, training_figures
from epsbench.harness.report.generative.pictures import MOST_BLOCKS, blocks
from epsbench.harness.report.generative.settings import settings
from epsbench.harness.report.results.loading import Results, load_results


def made(*records, folder: Path = Path("results")):
    return settings(Results(folder, records, ()))


def pictured(folder: Path, *records):
    """The settings of these records, each with pictures."""
    kept = [generative.with_pictures(record, seed, side=6) for seed, record in enumerate(records)]
    factory.write(folder, *(record for record, _ in kept), pictures={record.id: arrays for record, arrays in kept})
    return settings(load_results(folder))


def test_bounds_stand_side_by_side_over_z():
    shown = list(likelihood_figures(made(*(generative.model(z_dim=z) for z in (2, 5, 10, 20)))))
    assert [figure.title for figure in shown] == [
        "Bounds by number of samples: mnist, 16 grey levels",
        "Gain of importance weighting: mnist, 16 grey levels",
    ]
    assert [figure.wide for figure in shown] == [True, False]
    for figure in shown:
        assert ElementTree.fromstring(figure.light).tag.endswith("svg")
        assert figure.light != figure.dark


def test_the_caption_says_that_bands_are_over_images():
    bounds, _ = likelihood_figures(made(generative.model()))
    assert "95 % over images" in bounds.caption


def test_bounds_are_drawn_for_the_best_model_where_models_do_not_differ_in_z_alone():
    drawn = list(likelihood_figures(made(*(generative.model(beta=beta) for beta in (0.5, 1.0, 4.0)))))
    assert [figure.wide for figure in drawn] == [False, False]


def test_nothing_is_drawn_of_records_without_curves():
    old = made(factory.generation())
    assert list(likelihood_figures(old)) == []
    assert list(latent_figures(old)) == []
    assert len(list(training_figures(old))) == 1
    assert list(training_figures(made(generative.autoencoder()))) == []


@pytest.mark.parametrize(("betas", "drawn"), [((0.5, 1.0), 0), ((0.5, 1.0, 4.0), 1)])
def test_rate_and_distortion_need_three_betas(betas, drawn):
    shown = latent_figures(made(*(generative.model(beta=beta, rate=0.1 / (1 + beta)) for beta in betas)))
    assert sum(figure.title.startswith("Rate and distortion") for figure in shown) == drawn


def test_lines_of_one_shortened_name_are_all_drawn():
    records = [
        generative.model(beta=beta, model={"name": f"vae-with-a-name-too-long-for-a-figure-{end}", "levels": 16})
        for end in ("a", "b")
        for beta in (0.5, 1.0, 4.0)
    ]
    (plane,) = [figure for figure in latent_figures(made(*records)) if figure.title.startswith("Rate and distortion")]
    assert plane.light.count(b"(2)") == 1


def test_every_model_has_its_units_and_of_too_many_the_rest_are_counted():
    kept = made(*(generative.model(z_dim=z, active=0) for z in range(1, 15)))
    (units,) = [figure for figure in latent_figures(kept) if figure.title.startswith("Rate of each")]
    assert "2 more models not drawn." in units.caption
    (wide,) = [f for f in latent_figures(made(generative.model(z_dim=100))) if f.title.startswith("Rate of each")]
    assert ElementTree.fromstring(wide.dark).tag.endswith("svg")


@pytest.mark.parametrize(
    "curves",
    [
        {"importance_bpd": [0.5]},
        {"importance_bpd_error": []},
        {"importance_k": [5, 2, 1, 10, 20, 50, 100]},
        {"importance_k": [0, 2, 5, 10, 20, 50, 100]},
        {"prior_bpd_error": [-1.0] * 5},
        {"dimension_rate_nats": [1.0]},
        {"dimension_mean_variance": [1.0]},
    ],
)
def test_curves_of_different_length_or_order_are_named(tmp_path, curves):
    record = generative.model()
    factory.write(tmp_path, record.model_copy(update={"curves": record.curves | curves}))
    with pytest.raises(InputError, match=next(iter(curves))) as caught:
        report(tmp_path, "html")
    assert str(record_path(tmp_path, record.id)) in str(caught.value)


def test_one_model_has_all_its_pictures_in_one_open_block(tmp_path):
    (block,), more = blocks(pictured(tmp_path, generative.model()))
    assert more == 0
    assert block.essential
    assert [sheet.title for sheet in block.sheets] == [
        "samples before training",
        "samples after epoch 10",
        "samples after epoch 80",
        "test images above their reconstructions",
        "samples above their nearest training images",
        "from one test image to another through the latent space",
    ]


def test_sweeps_planes_and_the_autoencoder_have_blocks_and_the_rest_are_folded(tmp_path):
    kept = pictured(
        tmp_path,
        generative.model(0.52),
        generative.model(0.775, z_dim=2),
        generative.model(0.6, beta=4.0),
        generative.autoencoder(0.4),
    )
    shown, _ = blocks(kept)
    assert [(block.title.split(":")[0], len(block.sheets)) for block in shown if block.essential] == [
        ("mnist", 6),
        ("Samples at each β", 2),
        ("Samples at each z", 2),
        ("The latent plane on mnist", 1),
        ("Why an autoencoder is not generative", 2),
    ]
    beside = next(block for block in shown if block.title.startswith("Why"))
    assert [sheet.title for sheet in beside.sheets] == [
        "autoencoder, distortion 0.400 bits per dimension",
        "vae, distortion 0.437 bits per dimension",
    ]
    assert sum(not block.essential for block in shown) == 3


def test_of_several_seeds_the_first_is_shown(tmp_path):
    kept = pictured(tmp_path, *(generative.model(seed=seed) for seed in (2, 0, 1)))
    (block,), _ = blocks(kept)
    assert len(block.sheets) == 6
    alone, _ = blocks(pictured(tmp_path / "alone", generative.model(seed=1), generative.model(seed=0)))
    assert alone[0].sheets[1] == block.sheets[1]


def test_a_page_has_at_most_so_many_blocks(tmp_path):
    kept = pictured(tmp_path, *(generative.model(beta=float(beta)) for beta in range(1, MOST_BLOCKS + 3)))
    shown, more = blocks(kept)
    assert len(shown) == MOST_BLOCKS
    assert more == 3


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("samples_epoch_0080", np.zeros(3)),
        ("samples_epoch_0080", np.zeros((0, 1, 6, 6))),
        ("samples_epoch_0080", np.full((64, 1, 6, 6), "x")),
        ("reconstructions", np.zeros((2, 8, 2, 6, 6))),
        ("interpolations", np.zeros((8, 1, 6, 6))),
        ("neighbours", np.zeros((2, 8, 6, 6))),
        ("manifold", np.zeros((400, 36))),
    ],
)
def test_arrays_that_are_no_pictures_are_named(tmp_path, name, array):
    record, arrays = generative.with_pictures(generative.model(z_dim=2), side=6)
    factory.write(tmp_path, record, pictures={record.id: arrays | {name: array}})
    with pytest.raises(InputError, match=name) as caught:
        report(tmp_path, "html")
    assert f"{record.id}.npz" in str(caught.value)


def test_the_page_shows_and_folds(tmp_path):
    pictured(tmp_path, generative.model(), generative.model(z_dim=2), generative.autoencoder())
    page = report(tmp_path, "html")
    for part in ("Samples and reconstructions", "nearest training images", "not generative", "chart wide"):
        assert part in page
    assert page.count("<details><summary>mnist: ") == 2
    assert page == report(tmp_path, "html")
