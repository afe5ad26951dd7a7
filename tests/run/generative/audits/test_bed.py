"""The test bed: models that cheat or are broken get their code, honest ones get no finding."""

from __future__ import annotations

import copy

import cheating_parts  # noqa: F401 - adds to CHEATS
import degenerate_vaes  # noqa: F401
import more_cheats  # noqa: F401
import pytest
import torch
from cheating_vaes import CHEATS
from honest_vaes import HONEST, digits
from odd_vaes import ODD, binarised
from vae_bench import codes, measure

from epsbench.harness.finding_codes import CODES

"""Models that raise while they are measured make an audit raise, too."""
RAISING = {"fails_without_the_image"}


@pytest.mark.parametrize("name", CHEATS)
def test_a_model_that_cheats_or_is_broken_gets_its_code(honest, tmp_path, monkeypatch, name):
    code, make = CHEATS[name]
    record = measure(make(honest, digits()), digits(), tmp_path, monkeypatch)
    assert code in codes(record)
    assert ("audit-failed" in codes(record)) == (name in RAISING)
    assert record.status == ("void" if any(CODES[each].severity == "void" for each in codes(record)) else "ok")
    assert all(finding.evidence for finding in record.findings)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_gets_no_finding(tmp_path, monkeypatch, name):
    data = digits(100) if name == "overfitted" else digits()
    record = measure(HONEST[name](), data, tmp_path, monkeypatch)
    assert (record.status, record.findings) == ("ok", ())


@pytest.mark.parametrize("name", ODD)
def test_an_odd_honest_model_gets_no_finding(tmp_path, monkeypatch, name):
    data = binarised(digits()) if name == "binarised images" else digits()
    record = measure(ODD[name](), data, tmp_path, monkeypatch)
    assert (record.status, record.findings) == ("ok", ())


def test_what_a_decoder_learns_while_posteriors_are_refined_is_named_by_the_bounds(honest, tmp_path, monkeypatch):
    """No other bound shows it: the ELBO and the importance-weighted bounds ask copies that have learned nothing."""
    make = CHEATS["decoder_that_learns_while_posteriors_are_refined"][1]
    record = measure(make(honest, digits()), digits(), tmp_path, monkeypatch, refinement_steps=40)
    (low,) = [finding.evidence for finding in record.findings if finding.code == "bounds-out-of-order"]
    assert low["too_low"] == "the bound with refined posteriors"
    assert low["beside"] == "the importance-weighted bound with refined posteriors"
    assert low["bpd"] < low["bound_bpd"]


def test_a_loss_of_its_own_changes_no_number(honest, tmp_path, monkeypatch):
    plain = measure(honest, digits(), tmp_path, monkeypatch)
    for name in ("halved_loss", "rate_left_out"):
        record = measure(CHEATS[name][1](honest, digits()), digits(), tmp_path, monkeypatch)
        assert record.metrics == plain.metrics


def test_what_was_out_of_order_is_named(honest, tmp_path, monkeypatch):
    record = measure(CHEATS["last_images"][1](honest, digits()), digits(), tmp_path, monkeypatch)
    named = [finding.evidence for finding in record.findings if finding.code == "bounds-out-of-order"]
    assert {evidence["beside"] for evidence in named} >= {
        "the importance-weighted bound", "the long importance-weighted bound",
    }  # fmt: skip
    assert all(evidence["bpd"] + 1 < evidence["bound_bpd"] for evidence in named)


def test_samples_are_looked_at_where_no_bound_is_measured(honest, tmp_path, monkeypatch):
    off = dict.fromkeys(("importance_samples", "long_importance_samples", "prior_samples", "refinement_steps"), 0)
    assert measure(honest, digits(), tmp_path, monkeypatch, **off).findings == ()
    record = measure(CHEATS["memorised_training_images"][1](honest, digits()), digits(), tmp_path, monkeypatch, **off)
    assert codes(record) == {"memorised-images"}


def test_an_audit_that_raises_fails_no_measurement(honest, tmp_path, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    plain = measure(honest, digits(), tmp_path, monkeypatch)
    monkeypatch.setattr("epsbench.harness.run.generative.audits.auditor.audit_copies", broken)
    record = measure(honest, digits(), tmp_path, monkeypatch)
    assert (record.status, record.metrics, codes(record)) == ("ok", plain.metrics, {"audit-failed"})


def test_a_decoder_that_follows_the_image_does_not_sum_to_one(honest, tmp_path, monkeypatch):
    record = measure(CHEATS["last_images"][1](honest, digits()), digits(), tmp_path, monkeypatch)
    (sums,) = [each.evidence["sum"] for each in record.findings if each.code == "not-normalised-likelihood"]
    assert sums > 15  # of 16 grey levels, each of which is certain


def test_a_likelihood_that_is_replaced_does_not_sum_to_one(honest, tmp_path, monkeypatch):
    genuine = torch.nn.functional.cross_entropy
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda *args, **options: genuine(*args, **options) / 2)
    record = measure(honest, digits(), tmp_path, monkeypatch)
    assert (record.status, codes(record)) == ("void", {"not-normalised-likelihood"})


def test_a_model_that_raises_for_another_reason_fails(honest, tmp_path, monkeypatch):
    class Raises(torch.nn.Module):
        def forward(self, z):
            if len(z) > 32:
                raise ValueError("no more than 32")
            return honest.decoder(z)

    vae = copy.deepcopy(honest)
    vae.decoder = Raises()
    with pytest.raises(ValueError, match="no more than 32"):
        measure(vae, digits(), tmp_path, monkeypatch)
