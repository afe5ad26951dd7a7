"""`epsbench.evaluate` and `epsbench.attack`: what comes out, and that it is what a suite gives."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import epsbench
from epsbench.attacks import PGD


@pytest.fixture(scope="module")
def result(network, x, y):
    return epsbench.evaluate(network, x, y, attack="pgd:steps=5", eps=["4/255", 0.1])


def test_the_accuracies_are_those_of_a_plain_loop(network, x, y, result):
    """FGSM-like sign steps, written out: same step size, start and ball as the attack `pgd`."""
    right = network(x).argmax(1) == y
    assert result.clean_accuracy == pytest.approx(right.float().mean().item())
    for point, eps in zip(result, (4 / 255, 0.1), strict=True):
        moved = x.clone()
        fooled = ~right
        for _ in range(5):
            moved = moved.detach().requires_grad_(True)
            loss = nn.functional.cross_entropy(network(moved), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = (moved + PGD(steps=5).relative_step_size * eps * gradient.sign()).detach()
            moved = x + (moved - x).clamp(-eps, eps)
            moved = moved.clamp(0, 1)
            fooled |= network(moved).argmax(1) != y
        assert point.robust.tolist() == (~fooled).tolist()
        assert point.robust_accuracy == pytest.approx(1 - fooled.float().mean().item())
        assert point.robust_accuracy.low < point.robust_accuracy < point.robust_accuracy.high


def test_the_images_fool_and_lie_in_the_ball(network, x, y, result):
    for point, eps in zip(result, (4 / 255, 0.1), strict=True):
        images = torch.from_numpy(point.per_image["images"])
        assert (images - x).abs().max() <= eps + 1e-6
        assert 0 <= images.min() <= images.max() <= 1
        predicted = network(images).argmax(1)
        assert (predicted == y).tolist() == point.robust.tolist()
        assert predicted.tolist() == point.per_image["adversarial_class"].tolist()


def test_the_frame_has_a_row_for_each_image(result, x, y, network):
    frame = result.frame()
    assert len(frame) == 2 * len(x)
    last = frame[frame.eps == 0.1]
    assert last.label.tolist() == y.tolist()
    assert last.clean_class.tolist() == network(x).argmax(1).tolist()
    assert (last.fooled_by == "pgd").tolist() == (last.attacked & last.fooled).tolist()
    assert last.distance[last.attacked].max() <= 0.1 + 1e-6
    assert last.distance[~last.attacked].isna().all()
    confusion = result.confusion()
    assert confusion.to_numpy().sum() == len(x)
    assert np.trace(confusion) == last.robust.sum()


def test_it_shows_itself(result, x):
    text = str(result)
    assert f"of {len(x)} images" in text
    assert "pgd linf ε 4/255" in text
    assert "<td>pgd linf ε 0.1</td>" in result._repr_html_()
    latex = result.to_latex("Mine & yours")
    assert "\\toprule" in latex
    assert "Mine \\& yours" in latex
    assert len(result.table()) == 2


def test_attacks_of_one_name_are_told_apart_by_what_differs(network, x, y):
    both = epsbench.evaluate(network, x, y, attack=["pgd:steps=2", "pgd:steps=5", "fgsm"], eps="4/255")
    names = ["pgd(steps=2)", "pgd(steps=5)", "fgsm"]
    assert [point.attack for point in both] == names
    assert list(both.table()["attack"]) == list(both.frame()["attack"].unique()) == names
    for name in names:
        assert f"{name} linf" in str(both)
        assert f"{name} linf" in both._repr_html_()
        assert f"{name} linf" in both.to_latex()


def test_the_model_comes_back_as_it_was(x, y):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10)).train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    epsbench.evaluate(model, x, y, attack="fgsm")
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("form", ["arrays", "dataset", "loader", "function", "suite"])
def test_every_form_gives_the_same(network, x, y, form, tmp_path, monkeypatch):
    arguments = {
        "arrays": (network, x.double().numpy(), y.numpy().astype(np.uint8)),
        "dataset": (network, TensorDataset(x, y)),
        "loader": (network, DataLoader(TensorDataset(x, y), batch_size=17)),
        "function": (lambda images: network(images), x, y),
        "suite": (network, "test.npz"),
    }[form]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    np.savez("test.npz", images=x.numpy(), labels=y.numpy())
    first = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1)
    other = epsbench.evaluate(*arguments, attack={"name": "fgsm"}, eps=np.float32(0.1))
    assert other[0].robust.tolist() == first[0].robust.tolist()
    assert other[0].void == first[0].void


def test_an_honest_model_of_this_process_that_withstands_has_no_finding(network, x, y):
    """The audits of models that withstand an attack build them again elsewhere, which this one cannot be."""
    result = epsbench.evaluate(network, x, y, attack="pgd:steps=5", eps=0.01)
    assert result.robust_accuracy > 0.5
    assert not result.findings


def test_a_number_that_means_nothing_is_no_number(x, y):
    random = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5))
    random.eval = lambda: random  # it stays random under attack
    torch.manual_seed(0)

    def noisy(images):
        return random(images) + torch.randn(len(images), 10)

    result = epsbench.evaluate(noisy, x, y, attack="fgsm")
    assert np.isnan(result.robust_accuracy)
    assert "void" in str(result)
    assert result.findings


def test_adversarial_images_alone(network, x, y):
    images = epsbench.attack(network, x, y, attack="fgsm", eps=0.1)
    assert images.shape == x.shape
    assert 0.05 < (images - x).abs().max() <= 0.1 + 1e-6


def test_import_brings_next_to_nothing():
    """It takes 5 ms. Counted in modules, because a busy machine makes seconds longer, and never modules more."""
    script = (
        "import sys; before = set(sys.modules); import epsbench; new = sys.modules.keys() - before; "
        "assert len(new) < 10, sorted(new)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
