"""Documents whose numbers come from records."""

from __future__ import annotations

from pathlib import Path

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.quoted import filled, main, shown

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results/reference"


def test_the_page_of_questions_has_the_numbers_of_the_records():
    """To renew it: python -m epsbench.harness.quoted docs/questions.in.md docs/questions.md."""
    template = (ROOT / "docs/questions.in.md").read_text(encoding="utf-8")
    assert filled(template, REFERENCE) == (ROOT / "docs/questions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("quotation", "text"),
    [
        ("{{mnist: robust_accuracy, defense=pgd-batch, attack=pgd, eps=0.3}}", "91.8 %"),
        ("{{vae-mnist: test_bpd}}", "0.520"),  # the mean of three seeds
        (
            "{{transfer: robust_accuracy, model=smallcnn, subset=first-half, source.model=, attack=pgd, eps=0.1}}",
            "42.8 %",
        ),
        ("{{resnet18-clean: training_seconds, attack=fgsm, training.unsmoothed_epochs=}}", "1 h 19 min"),
        ("no quotation, {one} pair of braces", "no quotation, {one} pair of braces"),
    ],
)
def test_quotations(quotation, text):
    assert filled(quotation, REFERENCE) == text


@pytest.mark.parametrize(
    ("quotation", "message"),
    [
        ("{{mnist}}", "a quotation is"),
        ("{{minst: robust_accuracy}}", "there is no folder 'minst'"),
        ("{{mnist: robust_acuracy, defense=none, attack=pgd, eps=0.3}}", "did you mean 'robust_accuracy'"),
        ("{{mnist: robust_accuracy, defence=none}}", "did you mean 'defense'"),
        ("{{mnist: robust_accuracy, defense=trades}}", "no cell fits"),
        ("{{mnist: robust_accuracy, defense=none}}", "cells fit that differ in more than their seed"),
    ],
)
def test_a_wrong_quotation_is_an_error_that_names_it(quotation, message):
    with pytest.raises(InputError) as refusal:
        filled(f"text {quotation} text {quotation}", REFERENCE)
    assert [quotation in error and message in error for error in refusal.value.messages] == [True, True]


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [
        ("coverage", 0.12345, "12.3 %"),
        ("attack_success_rate", 0.5, "50.0 %"),
        ("test_bpd", 0.51949, "0.519"),
        ("frechet_distance", 1031.75, "1,032"),
        ("training_seconds", 4725.9, "1 h 19 min"),
    ],
)
def test_how_numbers_are_written(measure, value, text):
    assert shown(measure, value) == text


def test_nothing_is_written_where_a_quotation_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (tmp_path / "in.md").write_text("{{mnist: nothing}}")
    assert main([str(tmp_path / "in.md"), str(tmp_path / "out.md")]) == 2
    assert "{{mnist: nothing}}" in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()
    (tmp_path / "in.md").write_text("{{vae-mnist: test_bpd}} bpd")
    assert main([str(tmp_path / "in.md"), str(tmp_path / "out.md")]) == 0
    assert (tmp_path / "out.md").read_text() == "0.520 bpd"
