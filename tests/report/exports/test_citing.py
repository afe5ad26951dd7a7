"""Methods paragraphs: every built-in name is cited, the numbers are the record's, and BibTeX reads the entries."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import factory
import numpy as np
import pytest
from texts import HOSTILE

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.report.exports.citing.describe import describe
from epsbench.harness.report.exports.citing.works import MEASURES, SOFTWARE, WORKS, bibliography, works

CLEAN = np.arange(200) < 190
REFERENCE = Path(__file__).parents[3] / "results" / "reference"


def test_every_built_in_name_is_in_the_table_of_works():
    for kind in ("attack", "defense", "model"):
        assert set(KINDS[kind].built_in) <= set(WORKS[kind]), kind
    assert set(DATASETS) <= set(WORKS["data"])


def test_every_key_has_an_entry():
    keys = {key for names in WORKS.values() for cites in names.values() for key in cites}
    keys |= {key for cites in MEASURES.values() for key in cites} | set(SOFTWARE)
    assert keys <= set(bibliography())
    for key, entry in bibliography().items():
        assert re.match(r"@\w+\{" + key, entry)
        assert {"title", "author", "year"} <= set(re.findall(r"^  (\w+) = \{.*\},$", entry, re.M)), key


def test_the_paragraph_says_what_was_measured(tmp_path):
    record = factory.robustness(
        CLEAN, CLEAN & (np.arange(200) < 100), defense={"name": "trades", "beta": 6.0},
        attack={"name": "autoattack", "version": "standard"}, eps="8/255", data="cifar10",
    )  # fmt: skip
    text = describe(record.id[:6], factory.write(tmp_path, record))
    for part in (
        "on cifar10 for 10 epochs on 45,000 images", "trades (beta = 6.0) [zhang2019theoretically]", "ε = 8/255",
        "Clean accuracy is 95.0 % [91.0, 97.3] and robust accuracy 50.0 % [43.1, 56.9]",
        "@inproceedings{croce2020reliable",
        "@inproceedings{andriushchenko2020square", "@techreport{krizhevsky2009learning", record.id,
    ):  # fmt: skip
        assert part in text, part
    assert "lecun1998gradient" not in text


def test_a_void_cell_shows_its_finding_and_no_accuracy(tmp_path):
    record = factory.void(CLEAN, CLEAN)
    text = describe(record.id, factory.write(tmp_path, record))
    assert "An audit remarks (void, no-op): nothing moved" in text
    assert "accuracy" not in text.partition("@")[0]


def test_a_users_own_names_are_reported(tmp_path):
    record = factory.robustness(CLEAN, CLEAN, attack={"name": "mine.py:Attack"}, model={"name": "timm:resnet18"})
    text = describe(record.id, factory.write(tmp_path, record))
    assert "No work is known for attack mine.py:Attack; describe and cite it yourself." in text
    assert "wightman2019timm" in text


def test_a_generative_cell(tmp_path):
    text = describe(factory.generation().id, factory.write(tmp_path, factory.generation()))
    assert "20 latent dimensions" in text
    assert "0.520 [0.516, 0.524] bits per dimension" in text
    assert "kingma2014auto" in text


@pytest.mark.parametrize(
    ("cell", "message"),
    [("zz", "no id of a cell"), ("0" * 16, "no such cell"), ("", "no id of a cell"), ("a.json", "not a record")],
)
def test_a_cell_that_is_not_there(tmp_path, cell, message):
    factory.write(tmp_path, factory.generation())
    with pytest.raises(InputError, match=message):
        describe(cell, tmp_path)


def test_a_beginning_of_several_ids_is_refused(tmp_path):
    records = [factory.robustness(CLEAN, CLEAN, seed=seed) for seed in range(17)]  # two of them begin alike
    factory.write(tmp_path, *records)
    first = [record.id[0] for record in records]
    double = next(each for each in first if first.count(each) > 1)
    with pytest.raises(InputError, match=f"the beginning of {first.count(double)} ids"):
        describe(double, tmp_path)


@pytest.mark.skipif(
    shutil.which("pdflatex") is None or shutil.which("bibtex") is None, reason="needs pdflatex and bibtex (texlive)"
)
def test_latex_and_bibtex_read_it(tmp_path):
    autoattack = next(
        path for path in sorted((REFERENCE / "mnist-autoattack" / "cells").glob("*.json"))
        if '"autoattack"' in path.read_text(encoding="utf-8")
    )  # fmt: skip
    vae = next(iter(sorted((REFERENCE / "vae-mnist" / "cells").glob("*.json"))))
    named = factory.robustness(CLEAN, CLEAN, model={"name": "".join(HOSTILE)})
    hostile = factory.write(tmp_path / "results", named) / "cells" / f"{named.id}.json"
    texts = [describe(str(path), None, latex=True, bib=tmp_path / f"{at}.bib") for at, path in
             enumerate((autoattack, vae, hostile))]  # fmt: skip
    (tmp_path / "all.bib").write_text("\n".join(bibliography().values()), encoding="utf-8")
    body = "\n\n".join(texts) + r"\nocite{*}\bibliographystyle{plain}\bibliography{all}"
    preamble = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{url}"
    source = f"{preamble}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "paper.tex").write_text(source, encoding="utf-8")
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"]
    for command in (latex, ["bibtex", "paper"], latex, latex):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-1500:]
    assert b"undefined" not in done.stdout
    assert (tmp_path / "paper.bbl").read_text(encoding="utf-8").count("\\bibitem") == len(bibliography())
    assert works(named)


def test_every_model_whose_gradients_are_followed_is_cited():
    model = {"model": {"name": "timm:resnet18"}, "defense": {"name": "none"}, "seed": 0}
    further = {**model, "model": {"name": "smallcnn"}, "defense": {"name": "trades"}}
    first = {**model, "data": "cifar100", "defense": {"name": "n-fgsm"}}
    named = works(factory.robustness(CLEAN, CLEAN, source={**model, "with": [further], "start": first}))
    for name in ("timm", "trades", "cifar100", "n-fgsm"):
        assert set(named) >= {key for kind in WORKS.values() for key in kind.get(name, ())}, name
