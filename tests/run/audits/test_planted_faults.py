"""The test bed: every planted fault is caught, by the right code."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import broken_models as broken
import numpy as np
import pytest
import torch
from torch import nn
from zoo import DIGITS, codes, digits, measure, probe_of, trained

from epsbench.harness.findings import Finding
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records, write_record
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.audits.attack import audit_outcome
from epsbench.harness.run.audits.normalisation import audit_normalisation, labelled
from epsbench.harness.run.runner import run_suite
from epsbench.models.base import DataShape
from epsbench.models.catalogue import SmallCNN
from epsbench.models.defenses import FGSMLoss
from epsbench.models.layers import Normalise

HERE = Path(__file__).parent
WEAK = ('"noise"', '"fgsm"')

VOID_MODELS = [
    (broken.AlwaysTraining, "train-mode"),
    (broken.DropoutLayerOn, "train-mode"),
    (broken.BatchStatistics, "batch-dependent"),
    (broken.SameNoiseEachTime, "batch-dependent"),
    (broken.DropoutOn, "not-deterministic"),
    (broken.RandomShift, "not-deterministic"),
    (broken.RandomNoise, "not-deterministic"),
    (broken.Softmax, "probabilities"),
    (broken.NotFinite, "not-finite"),
]


@pytest.mark.parametrize(("wrapper", "code"), VOID_MODELS, ids=lambda value: getattr(value, "__name__", value))
def test_a_model_that_is_no_function_to_logits_is_void(honest, tmp_path, wrapper, code):
    records = measure(wrapper(honest), tmp_path, WEAK)
    assert {record.status for record in records} == {"void"}
    assert all(code in codes([record]) for record in records)


def test_batch_norm_without_stored_statistics_is_void(tmp_path):
    network = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(64, 10)).eval()
    (record,) = measure(network, tmp_path, ['"fgsm"'], [0.1])
    assert (record.status, codes([record])) == ("void", {"train-mode"})


WARNED_MODELS = [
    (lambda network: broken.Scaled(network, 1000.0), {"zero-gradient", "masked"}),
    (broken.Quantised, {"zero-gradient", "masked", "no-op"}),
    (broken.Shattered, {"shattered"}),
    (broken.NotNormalised, {"not-normalised"}),
    (lambda network: nn.Sequential(Normalise(DIGITS.mean, DIGITS.std), network), {"normalised-twice"}),
]
IDS = ["temperature", "quantised", "shattered", "not normalised", "two layers normalise"]


@pytest.mark.parametrize(("wrapper", "expected"), WARNED_MODELS, ids=IDS)
def test_a_model_that_hides_its_gradients_or_its_pixels_is_reported(honest, tmp_path, wrapper, expected):
    records = measure(wrapper(honest), tmp_path, ['"fgsm"', '"pgd"'])
    assert all(expected <= codes([record]) for record in records)


def normalisation_of(network: nn.Module, shape: DataShape, n: int = 256, trained: bool = False) -> list[Finding]:
    """Findings about the normalisation of a model of digits."""
    probe = probe_of(network, n)
    images = None if trained else labelled(probe, None, None, None)
    return list(audit_normalisation(probe, images, shape))


def test_a_normalisation_outside_the_model_is_reported_where_it_hurts(honest):
    """As arithmetic it is no layer to be seen; undoing it once makes the model better."""
    shape = replace(DIGITS, mean=(0.9,), std=(0.1,))
    (finding,) = normalisation_of(broken.NormalisedOutside(honest, 0.9, 0.1), shape)
    assert finding.code == "normalised-twice"
    assert finding.evidence["accuracy_then"] > finding.evidence["accuracy"] + 0.2


BRIEFLY_TRAINED = """
[robustness]
data = "digits"
[robustness.training]
epochs = 3
[robustness.matrix]
model = { name = "smallcnn", width = 8 }
defense = { name = "pgd-batch", eps = 0.1, steps = 2 }
attack = "fgsm"
eps = 0.1
"""


def test_a_model_that_was_trained_here_lacks_no_normalisation(honest, tmp_path):
    """It may do better on images that are normalised once more, where it was trained too briefly."""
    (tmp_path / "brief.toml").write_text(BRIEFLY_TRAINED, encoding="utf-8")
    run_suite(load_suite(tmp_path / "brief.toml"), tmp_path / "out", Options(device="cpu", quiet=True))
    (record,) = read_records(tmp_path / "out")
    assert not {"not-normalised", "normalised-twice"} & codes([record])
    assert [each.code for each in normalisation_of(broken.NotNormalised(honest), DIGITS)] == ["not-normalised"]
    assert not normalisation_of(broken.NotNormalised(honest), DIGITS, trained=True)


@pytest.mark.usefixtures("units_for_low_precision")
def test_gradients_lost_in_half_precision_are_reported(honest, tmp_path):
    saturated = broken.Scaled(honest, 5.0)
    (low,) = measure(saturated, tmp_path, ['"fgsm"'], [0.1], precision="fp16")
    (full,) = measure(saturated, tmp_path, ['"fgsm"'], [0.1])
    assert "precision-masked" in codes([low])
    assert not codes([full])
    (evidence,) = [f.evidence for f in low.findings if f.code == "precision-masked"]
    assert evidence["fp16"] > 0.01 > evidence["float32"]
    assert low.metrics["robust_accuracy"].value > full.metrics["robust_accuracy"].value


@pytest.fixture(scope="module")
def overfitted() -> nn.Module:
    """Trained on nothing but FGSM images of a large ε, without random starts."""
    return trained(lambda: SmallCNN().build(DIGITS), FGSMLoss(eps=Fraction(2, 5), alpha=0.0), epochs=40)


def test_a_catastrophically_overfitted_model_is_reported_by_fgsm_against_pgd(overfitted, tmp_path):
    records = measure(overfitted, tmp_path, ['"fgsm"', '"pgd"'], [0.4], data=digits(500))
    assert "catastrophic-overfitting" not in codes(records[:1])
    assert "catastrophic-overfitting" in codes(records[1:])


def attack(name: str, **parameters: object) -> str:
    more = "".join(f", {key} = {value}" for key, value in parameters.items())
    return f'{{ name = "{HERE}/broken_attacks.py:{name}"{more} }}'


ALONE = [
    ("Nothing", {}, "void", "no-op"),
    ("OneStepShort", {"steps": 1}, "void", "no-op"),
    ("NotANumber", {}, "void", "not-finite"),
    ("OwnNorm", {}, "void", "outside-ball"),
    ("Bytes", {}, "void", "not-pixels"),
    ("Normalises", {}, "void", "not-pixels"),
    ("FarAwayAtOnce", {}, "void", "not-pixels"),
    ("Overshoots", {}, "ok", "beyond-ball"),
    ("OneStepShort", {"steps": 3}, "ok", "one-step-short"),
    ("Descends", {}, "ok", "no-ascent"),
    ("Forgets", {}, "ok", "lost-iterate"),
    ("SkipsSome", {}, "ok", "unmoved"),
    ("NeedsManyClasses", {}, "ok", "few-classes"),
]


@pytest.mark.parametrize(("name", "parameters", "status", "code"), ALONE, ids=[f"{a[0]}-{a[3]}" for a in ALONE])
def test_a_broken_attack_is_reported(honest, tmp_path, name, parameters, status, code):
    (record,) = measure(honest, tmp_path, [attack(name, **parameters)], [0.1])
    assert (record.status, code in codes([record])) == (status, True)


def test_an_attack_that_returns_the_original_where_it_fails_is_no_void(honest, tmp_path):
    """Every image that it did move fooled the model, so its number counts."""
    (record,) = measure(honest, tmp_path, [attack("GivesUp")], [0.02])
    (share,) = [finding.evidence["share"] for finding in record.findings if finding.code == "unmoved"]
    assert record.status == "ok"
    assert 0.5 < share < 1
    (same,) = measure(honest, tmp_path, ['"fgsm"'], [0.02])
    assert record.metrics["robust_accuracy"] == same.metrics["robust_accuracy"]


def test_an_attack_that_fails_on_all_images_and_returns_the_originals_is_no_void(honest, tmp_path):
    """It asked about changed copies of every image, and none fooled. An attack that asks about none changes nothing."""
    (record,) = measure(honest, tmp_path, [attack("GivesUp")], [1e-5])
    (share,) = [finding.evidence["share"] for finding in record.findings if finding.code == "unmoved"]
    assert (record.status, share) == ("ok", 1.0)
    assert record.metrics["robust_accuracy"] == record.metrics["clean_accuracy"]
    (idle,) = measure(honest, tmp_path, [attack("Nothing")], [1e-5])
    assert idle.status == "void"


@pytest.mark.parametrize(
    ("name", "reason"), [("Raises", "planted"), ("InPlace", "in place"), ("WidensItsBall", "in pl")]
)
def test_an_attack_that_raises_or_writes_into_its_arguments_has_failed(honest, tmp_path, name, reason):
    (record,) = measure(honest, tmp_path, [attack(name)], [0.1])
    assert record.status == "failed"
    assert reason in record.failure.message


@pytest.mark.parametrize(("name", "expected"), [("FarAway", set()), ("FarAwayAtOnce", {"not-pixels"})])
def test_the_engine_keeps_a_cheater_in_the_ball_and_the_box(honest, tmp_path, name, expected):
    (record,) = measure(honest, tmp_path, [attack(name)], [0.1])
    assert codes([record]) == expected


def test_an_attack_far_weaker_than_another_is_reported_at_the_later_cell(honest, tmp_path):
    for order in ([attack("Timid"), '"pgd"'], ['"pgd"', attack("Timid")]):
        first, second = measure(honest, tmp_path, order, [0.2])
        assert "weaker-than-peers" not in codes([first])
        (finding,) = [each for each in second.findings if each.code == "weaker-than-peers"]
        assert finding.evidence["with"] == first.id
        assert "Timid" in finding.message.split(" and ")[0]


def test_too_few_steps_are_reported(honest, tmp_path):
    short, long = measure(honest, tmp_path, ['{ name = "pgd", steps = 2 }', '"pgd"'], [0.15])
    assert "unconverged" in codes([short])
    assert not codes([long])


@pytest.mark.parametrize(
    ("weak", "strong", "eps", "code"),
    [
        ('"fgsm"', '{ name = "pgd", relative_step_size = 0.02 }', [0.15], "one-step-beats-many"),
        ('"noise"', attack("Descends"), [0.5], "noise-beats-gradient"),
        (attack("RandomSearch"), attack("Descends"), [0.3], "black-box-beats-gradient"),
    ],
)  # fmt: skip
def test_a_weak_attack_that_beats_a_strong_one_is_reported_at_the_later_cell(honest, tmp_path, weak, strong, eps, code):
    for order in ([weak, strong], [strong, weak]):
        first, second = measure(honest, tmp_path, order, eps)
        assert code not in codes([first])
        assert code in codes([second])
        assert next(f for f in second.findings if f.code == code).evidence["with"] == first.id


def test_robust_accuracy_that_rises_with_eps_is_reported(honest, tmp_path):
    small, large = measure(honest, tmp_path, [attack("TurnsBack")], [0.2, 0.3])
    assert "eps-not-monotone" not in codes([small])
    assert "eps-not-monotone" in codes([large])


def test_an_earlier_run_counts(honest, tmp_path):
    """What is on the disk of the same weights is remembered when a job is resumed."""
    weak = '{ name = "pgd", relative_step_size = 0.02 }'
    (first,) = measure(honest, tmp_path, [weak], [0.15], weights="abc")
    write_record(tmp_path / "results", first)
    (same,) = measure(honest, tmp_path, ['"fgsm"'], [0.15], weights="abc")
    (other,) = measure(honest, tmp_path, ['"fgsm"'], [0.15], weights="other")
    assert "one-step-beats-many" in codes([same])
    assert "one-step-beats-many" not in codes([other])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size": 0.1001}, "outside-ball"), ({"low": -0.01}, "outside-box"), ({"high": 1.01}, "outside-box"),
        ({"size": np.nan}, "not-finite"), ({"size": 0.0}, "no-op"),
    ],
)  # fmt: skip
def test_what_no_attack_can_reach_through_the_engine_is_caught_all_the_same(change, code):
    findings = audit_outcome(outcome_of(Fraction(1, 10), **change), column(1.0))
    assert [(finding.code, finding.severity) for finding in findings] == [(code, "void")]


@pytest.mark.parametrize(("eps", "size", "broken"), [(60, 60.0001, []), (60, 60.01, ["outside-ball"]), (0, 1e-6, [])])
def test_rounding_in_a_large_ball_is_no_broken_ball(eps, size, broken):
    """A sum of 150,000 changes in float32 is off by a part of itself."""
    assert [each.code for each in audit_outcome(outcome_of(Fraction(eps), size=size), column(1.0))] == broken


def column(value: float) -> np.ndarray:
    return np.full(10, value, dtype=np.float32)


def outcome_of(eps: Fraction, **change: float) -> Outcome:
    """What became of ten images that were fooled."""
    values = {"size": 0.1, "low": 0.0, "high": 1.0, "loss": 2.0} | change
    return Outcome(
        eps, np.ones(10, bool), np.ones(10, bool), images=torch.zeros(0), predicted=np.zeros(10),
        confidence=np.ones(10), **{name: column(value) for name, value in values.items()},
    )  # fmt: skip
