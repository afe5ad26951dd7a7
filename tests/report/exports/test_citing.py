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

from epsbench.attacks.losses import LOSSES
from epsbench.attacks.norms import NORMS
from epsbench.harness.errors import InputError
from epsbench.harness.finding_codes import CODES
from epsbench.harness.findings import Finding
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.names.aliases import ALIASES
from epsbench.harness.plan.names.augmentations import AUGMENTATIONS
from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.records.predictions import Answers, Predictions
from epsbench.harness.report.exports.citing.bibliography import bibliography
from epsbench.harness.report.exports.citing.describe import describe
from epsbench.harness.report.exports.citing.measures import AUDITS, CALIBRATION, MEASURES, OUR_OWN, SOFTWARE
from epsbench.harness.report.exports.citing.paragraph import works
from epsbench.harness.report.exports.citing.works import (
    BETA,
    CORRUPTION,
    OPTIONS,
    RANDOMNESS,
    SEVERAL_SOURCES,
    TRANSFER,
    WORKS,
)

CLEAN = np.arange(200) < 190
ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "results" / "reference"
REFERENCES = (ROOT / "harness" / "report" / "exports" / "citing" / "references.bib").read_text(encoding="utf-8")


REQUIRED = {
    "article": {"author", "title", "journal", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "techreport": {"author", "title", "institution", "year"},
    "misc": {"author", "title", "howpublished", "year"},
}
"""What the standard styles want of each type, and of `misc` that it says where it is."""
OPTIONAL = {"volume", "number", "pages"}


@pytest.fixture(scope="module")
def parsed():
    """The entries as bibtexparser reads them."""
    bibtexparser = pytest.importorskip("bibtexparser", reason="needs bibtexparser: pip install bibtexparser")
    library = bibtexparser.parse_string(REFERENCES)
    assert not library.failed_blocks  # keys that are there twice are such blocks, too
    return [
        {"ID": entry.key, "ENTRYTYPE": entry.entry_type} | {field.key: field.value for field in entry.fields}
        for entry in library.entries
    ]


def test_every_entry_has_the_fields_of_its_type_and_a_key_of_its_own(parsed):
    keys = re.findall(r"^@\w+\{([^,]+),$", REFERENCES, re.M)
    assert len(keys) == len(set(keys))
    assert [entry["ID"] for entry in parsed] == keys == list(bibliography())
    for entry in parsed:
        fields = set(entry) - {"ID", "ENTRYTYPE"}
        assert REQUIRED[entry["ENTRYTYPE"]] <= fields <= REQUIRED[entry["ENTRYTYPE"]] | OPTIONAL, entry["ID"]
        assert all(entry.values()), entry["ID"]
        assert re.fullmatch(r"(19|20)\d\d", entry["year"])
        assert entry["ID"].startswith(re.sub(r"\W", "", entry["author"].partition(",")[0].split()[0].lower())[:3])
        assert re.fullmatch(r"\d+(--\d+)?", entry.get("pages", "1"))


def test_authors_are_last_name_then_first_and_none_is_left_out(parsed):
    for entry in parsed:
        if entry["author"].startswith("{"):
            continue  # the name of a group
        for author in entry["author"].split(" and "):
            last, _, first = author.partition(", ")
            assert last, entry["ID"]
            assert first, f"{entry['ID']}: {author}"
        assert "others" not in entry["author"].split()


def test_capitals_of_titles_are_kept_by_braces(parsed):
    """A style writes titles in lower case; what stands in braces or in a formula stays."""
    for entry in parsed:
        free = re.sub(r"\{[^{}]*\}|\$[^$]*\$", "", entry["title"].replace("{\\", "{"))
        names = re.findall(r"\w*[a-z][A-Z]\w*|\b[A-Z]{2,}\w*", free)
        names += re.findall(r"\b(?:Bayes\w*|Nash|Nesterov|Gauss\w*|Attack(?=:))\b", free)
        assert not names, f"{entry['ID']}: {names}"


def test_the_entries_are_ascii_so_that_any_bibtex_reads_them():
    assert REFERENCES.isascii()


def test_every_built_in_name_has_works_or_explicitly_none():
    for kind, table in WORKS.items():
        if kind in KINDS:
            assert set(KINDS[kind].built_in) | set(KINDS[kind].prefixes) <= set(table), kind
    assert set(DATASETS) <= set(WORKS["data"])
    assert set(NORMS) == set(WORKS["norm"])
    assert set(LOSSES) == set(WORKS["loss"])
    assert set(AUGMENTATIONS) == set(WORKS["augmentation"])


def test_every_alias_of_an_attack_is_cited():
    for _, preset in ALIASES["attack"].values():
        assert set(preset) <= set(OPTIONS)


def test_every_measure_has_works_or_explicitly_none():
    text = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    table = text.partition("### `metrics`")[2].partition("### `cost`")[0]
    names = {name for line in re.findall(r"^\| (`.+?`) \|", table, re.M) for name in re.findall(r"`(\w+)`", line)}
    assert len(names) > 30
    assert {name.removeprefix("floor_") for name in names} == set(MEASURES)


def test_every_audit_has_works_or_is_our_own():
    assert set(AUDITS) | OUR_OWN == set(CODES)
    assert not set(AUDITS) & OUR_OWN


def test_every_key_has_an_entry_and_every_entry_is_cited():
    tables = (*WORKS.values(), OPTIONS, MEASURES, AUDITS)
    keys = {key for table in tables for cites in table.values() for key in cites}
    keys |= {*TRANSFER, *SEVERAL_SOURCES, *RANDOMNESS, *CORRUPTION, *BETA, *CALIBRATION, *SOFTWARE}
    assert keys == set(bibliography())


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
    model = {"model": {"name": "timm:resnet18"}, "defense": {"name": "none"}, "augmentation": "none", "seed": 0}
    further = {**model, "model": {"name": "smallcnn"}, "defense": {"name": "trades"}}
    first = {**model, "data": "cifar100", "defense": {"name": "n-fgsm"}}
    named = works(factory.robustness(CLEAN, CLEAN, source={**model, "with": [further], "start": first}))
    for name in ("timm", "trades", "cifar100", "n-fgsm"):
        assert set(named) >= {key for kind in WORKS.values() for key in kind.get(name, ())}, name


RANDOM = {"samples": 4, "votes": 5}
OTHER = {"model": {"name": "resnet18"}, "defense": {"name": "none"}, "augmentation": "none", "seed": 1}
CITED = {
    "randomness": ({"randomness": RANDOM}, ("athalye2018synthesizing",)),
    "corruption": ({"corruption": {"name": "fog", "severity": 3}}, ("hendrycks2019benchmarking",)),
    "l1": ({"norm": "l1", "attack": {"name": "apgd"}}, ("croce2021mind", "croce2020reliable")),
    "options": (
        {"attack": {"name": "mi-fgsm", "di": 0.5, "vmi": 20, "ti": 15, "si": 5, "samples": 3}},
        ("dong2018boosting", "xie2019improving", "wang2021enhancing", "dong2019evading", "lin2020nesterov",
         "athalye2018synthesizing"),
    ),
    "loss": ({"attack": {"name": "pgd", "loss": "margin"}}, ("madry2018towards", "carlini2017towards")),
    "ensemble": (
        {"attack": {"name": "ensemble", "parts": [{"name": "pgd", "loss": "dlr"}, "square"]}},
        ("madry2018towards", "croce2020reliable", "andriushchenko2020square"),
    ),
    "library": ({"attack": {"name": "foolbox:LinfPGD"}}, ("rauber2020foolbox",)),
    "several sources": ({"source": {**OTHER, "with": [OTHER]}}, ("liu2017delving", "he2016deep")),
    "start": ({"start": {"data": "cifar100", **OTHER}}, ("krizhevsky2009learning", "he2016deep")),
    "parts": (
        {"model": {"name": "vae", "prior": {"name": "mixture", "components": 5}, "likelihood": "discretised-logistic"}},
        ("tomczak2018vae", "salimans2017pixelcnn", "kingma2014auto"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CITED)
def test_what_a_cell_uses_is_cited_in_the_paragraph_and_has_its_entry(tmp_path, what):
    axes, keys = CITED[what]
    record = factory.robustness(CLEAN, CLEAN, **axes)
    text = describe(record.id, factory.write(tmp_path, record), latex=True, bib=tmp_path / "a.bib")
    cited = {key for keys in re.findall(r"\\cite\{([^}]*)\}", text) for key in keys.split(",")}
    entries = set(re.findall(r"^@\w+\{([^,]+),", (tmp_path / "a.bib").read_text(encoding="utf-8"), re.M))
    assert set(keys) <= cited
    assert cited == entries


def test_the_recipe_of_weights_to_start_from_is_stated(tmp_path):
    start = {"data": "cifar100", **OTHER}
    recipe = {"epochs": 18, "optimizer": "sgd", "learning_rate": 0.2}
    for own, expected in (
        ({}, "trained on cifar100 ["),
        ({"training": recipe}, "for 18 epochs (optimizer sgd, learning rate 0.2) ["),
        ({"training": recipe | {"epochs": 1}}, "for 1 epoch (optimizer sgd, learning rate 0.2) ["),
    ):
        record = factory.robustness(CLEAN, CLEAN, start=start | own)
        text = describe(record.id, factory.write(tmp_path, record))
        assert "on mnist for 10 epochs on 54,000 images (" in text
        assert "Training begins with weights that were trained on cifar100" in text
        assert expected in text


def test_a_parameter_of_the_model_is_named_once(tmp_path):
    prior = {"name": "mixture", "components": 5}
    record = factory.robustness(CLEAN, CLEAN, model={"name": "vae", "filters": 16, "prior": prior})
    text = describe(record.id, factory.write(tmp_path, record))
    assert text.startswith("We train vae (filters = 16, prior = mixture (components = 5)) with ")


def test_the_parts_of_an_ensemble_and_a_loss_are_named(tmp_path):
    attack = {"name": "ensemble", "parts": [{"name": "pgd", "loss": "dlr", "steps": 5}, "square"]}
    record = factory.robustness(CLEAN, CLEAN, attack=attack)
    text = describe(record.id, factory.write(tmp_path, record))
    assert "with ensemble, made of pgd (loss = dlr, steps = 5) and square, under L∞" in text


@pytest.mark.parametrize("parts", [4, [1, 2], [{"weight": 1}]])
def test_parts_that_are_no_attacks_are_a_parameter(tmp_path, parts):
    record = factory.robustness(CLEAN, CLEAN, attack={"name": "mine.py:Attack", "parts": parts})
    text = describe(record.id, factory.write(tmp_path, record))
    assert "with mine.py:Attack (parts = " in text


def test_a_corrupted_image_is_named(tmp_path):
    record = factory.robustness(CLEAN, CLEAN, corruption={"name": "fog", "severity": 3})
    text = describe(record.id, factory.write(tmp_path, record))
    assert "on 200 test images with fog of severity 3 with pgd" in text


def test_a_finding_is_cited_and_the_calibration_is_that_of_the_judge(tmp_path):
    finding = Finding(code="attack-misses-constructed-example", severity="warning", message="x")
    labels = np.zeros(200, dtype=int)
    seen = np.where(CLEAN, 0, 1)  # 95 % right, and always 50 % sure
    answers = Answers(labels, seen, seen, np.full(200, 0.5), np.where(CLEAN, 0.5, np.nan))
    record = factory.robustness(CLEAN, CLEAN, findings=(finding,))
    record = record.model_copy(update={"predictions": Predictions.pack(answers, 2)})
    text = describe(record.id, factory.write(tmp_path, record))
    assert "An audit remarks (warning, attack-misses-constructed-example): x [zimmermann2022increasing]." in text
    assert "The expected calibration error is 45.0 percentage points without an attack [guo2017calibration]." in text


def test_a_users_own_parts_and_losses_are_reported(tmp_path):
    model = {"name": "vae", "prior": "mine.py:Prior", "likelihood": "categorical"}
    attack = {"name": "pgd", "loss": "mine.py:Loss"}
    record = factory.robustness(CLEAN, CLEAN, model=model, attack=attack, data={"name": "npz", "file": "a.npz"})
    text = describe(record.id, factory.write(tmp_path, record))
    record = factory.robustness(CLEAN, CLEAN, attack={"name": "ensemble", "parts": ["pgd", {"name": "mine.py:Part"}]})
    text += describe(record.id, factory.write(tmp_path / "other", record))
    for own in ("prior mine.py:Prior", "loss mine.py:Loss", "data npz", "attack mine.py:Part"):
        assert own in text
    assert not {"categorical", "attack pgd"} & set(re.split(r" is known for |, |; ", text))
