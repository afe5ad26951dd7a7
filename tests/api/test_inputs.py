"""What `epsbench.evaluate` makes of numbers, paths, mapped files and datasets that a program has in hand."""

from __future__ import annotations

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import epsbench
from epsbench.harness import api
from epsbench.harness.errors import InputError
from epsbench.harness.plan.epsilon import parse_epsilon
from epsbench.harness.run.data import load


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float16, torch.bfloat16, torch.float32])
def test_eps_of_any_type_is_the_number_that_was_meant(kind):
    """A rounded 0.1 is 0.1, alone and in an array; in types that hold it apart from its neighbours, 8/255 is 8/255."""
    wide = kind in (np.float32, np.float64, torch.float32)
    values = [0.1, 0.3, 0.03, 1 / 3 if wide else 0.5, 8 / 255 if wide else 0.25]
    wanted = [Fraction(1, 10), Fraction(3, 10), Fraction(3, 100), *(
        [Fraction(1, 3), Fraction(8, 255)] if wide else [Fraction(1, 2), Fraction(1, 4)]
    )]  # fmt: skip
    array = torch.tensor(values, dtype=kind) if isinstance(kind, torch.dtype) else np.array(values, dtype=kind)
    assert [parse_epsilon(each) for each in api._plain_numbers(array)] == wanted
    assert [parse_epsilon(api._plain_numbers(each)) for each in array] == wanted


def test_numbers_of_numpy_are_numbers(network, x, y):
    plain = epsbench.evaluate(network, x, y, attack="pgd:steps=2,random_start=true", eps=0.1, seed=3, limit=30)
    other = epsbench.evaluate(network, x, y, attack="pgd:steps=2,random_start=true", eps=0.1, seed=np.int64(3),
                              limit=np.int32(30), batch_size=np.int64(7), early_stop=np.bool_(True),
                              classes=np.int64(10))  # fmt: skip
    assert other[0].robust.tolist() == plain[0].robust.tolist()


def test_a_norm_may_be_given_by_its_p(network, x, y):
    result = epsbench.evaluate(network, x[:8], y[:8], attack="fgsm", norm=[1, 2.0, np.inf], eps=0.1)
    assert [point.norm for point in result] == ["l1", "l2", "linf"]


def test_the_file_of_data_may_be_a_path(network, x, y, tmp_path):
    np.savez(tmp_path / "test.npz", images=x.numpy(), labels=y.numpy())
    result = epsbench.evaluate(network, tmp_path / "test.npz", attack="fgsm", eps=0.1)
    assert result.clean_accuracy.n == len(x)


@pytest.mark.parametrize("streamed", [False, True])
def test_images_in_a_file_that_is_only_read(network, x, y, tmp_path, streamed, monkeypatch):
    """``numpy.load`` with ``mmap_mode="r"`` gives memory that nobody may write to. Warnings are errors here."""
    if streamed:
        monkeypatch.setattr(load, "_fits", lambda size, device: False)
    np.save(tmp_path / "x.npy", x.numpy())
    before = (tmp_path / "x.npy").read_bytes()
    result = epsbench.evaluate(network, np.load(tmp_path / "x.npy", mmap_mode="r"), y, attack="fgsm", eps=0.1)
    assert result[0].robust.tolist() == epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1)[0].robust.tolist()
    assert (tmp_path / "x.npy").read_bytes() == before


def test_images_are_saved_in_files_of_their_own(network, x, y, tmp_path):
    """Not over another file, and not in place of a folder; over an earlier file of images, yes."""
    result = epsbench.evaluate(network, x, y, attack="fgsm", eps=0.1)
    (tmp_path / "weights.npz").write_text("precious")
    for place, wanted in (
        ("weights.npz", "no file of adversarial images; save them under"),
        (".", "is a folder; name"),
    ):
        with pytest.raises(InputError, match=wanted):
            result.save_images(tmp_path / place)
    assert (tmp_path / "weights.npz").read_text() == "precious"
    for _ in range(2):
        result.save_images(tmp_path / "images.npz")
    with np.load(tmp_path / "images.npz") as saved:
        assert np.array_equal(saved["images"], result.images)


def test_a_report_needs_a_folder():
    with pytest.raises(InputError, match="report: give the results folder of a run"):
        epsbench.report()


def test_a_model_is_checked_on_arrays(network, x, y):
    epsbench.testing.check_model(network, x.numpy())
    epsbench.testing.check_model(network, x.numpy(), y.numpy())


class InDoublePrecision(torch.nn.Module):
    """A network in float64, which converts the images."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network).double()

    def forward(self, images):
        return self.network(images.double())


@pytest.mark.parametrize("attack", ["pgd:steps=5", "square:steps=20", "fmn"])
def test_a_model_in_double_precision_that_converts_the_images_is_taken(network, x, y, attack):
    wanted, double = (
        epsbench.evaluate(model, x, y, attack=attack, eps=0.1) for model in (network, InDoublePrecision(network))
    )
    assert not double[0].void
    assert (wanted[0].robust == double[0].robust).mean() > 0.95  # float32 rounds otherwise
    if wanted[0].distances is not None:
        np.testing.assert_allclose(double[0].distances, wanted[0].distances, rtol=1e-2)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
def test_logits_that_are_whole_numbers_are_named_by_their_type(network, x, y, kind):
    """Not by a number of classes, which would be that of the labels: here two of ten."""
    model = torch.nn.Sequential(network)
    model.forward = lambda images: (network(images) * 10).to(kind)
    low = y < 2
    with pytest.raises(InputError, match=f"gives {kind} outputs: logits are floating-point numbers"):
        epsbench.evaluate(model, x[low], y[low], attack="square:steps=2", eps=0.1)


class WithNames(TensorDataset):
    """A dataset that says what its classes are called, as torchvision's do."""

    def __init__(self, x, y, classes):
        super().__init__(x, y)
        self.classes = classes


@pytest.mark.parametrize("loader", [False, True])
def test_a_dataset_names_its_classes(network, x, y, loader):
    def first(classes, **more):
        data = WithNames(x, y, classes)
        result = epsbench.evaluate(network, DataLoader(data, 9) if loader else data, attack="fgsm", eps=0.1, **more)
        return result.frame().get("label_name", [None])[0]

    names = [f"number {digit}" for digit in range(10)]
    assert first(names) == names[y[0]]
    assert first(names, class_names=list("abcdefghij")) == "abcdefghij"[y[0]]
    for others in (names[:4], [*names, "ten"], 10, None):  # names of other classes than the model's, or no names
        assert first(others) is None
