"""Checkpoints as other tools leave them: one rule, and a message where it does not decide."""

from __future__ import annotations

import argparse
import zipfile
from collections import Counter, defaultdict, deque
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
import torch
from torch import nn

from epsbench.harness.plan.data import DATASETS
from epsbench.models.catalogue import Custom, FromFile, ResNet18, SmallCNN
from epsbench.models.checkpoints import load_checkpoint, load_into
from epsbench.models.hub import preprocessing_of
from epsbench.models.preprocessing import preprocessing_text
from epsbench.models.weight_files import load_state

DIGITS = DATASETS["digits"]
X = torch.rand(3, 1, 8, 8)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return SmallCNN().build(DIGITS).eval()


def prefixed(state, *prefixes):
    return {f"{prefix}{name}": value for prefix in prefixes for name, value in state.items()}


def noise(state):
    return {name: torch.randn_like(value) for name, value in state.items()}


TODAY = date(2026, 1, 1)
OPTIMIZER = {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}
SHAPES = {
    "plain": lambda s: s,
    "lightning": lambda s: {"state_dict": prefixed(s, "model."), "epoch": 1, "pytorch-lightning_version": "2.4"},
    "compiled and parallel": lambda s: prefixed(s, "_orig_mod.module."),
    "madry": lambda s: {"model": prefixed(s, "module.model.", "module.attacker.model.")},
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 3},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": OPTIMIZER},
    "nested": lambda s: {"checkpoint": {"model": prefixed(s, "module.")}},
    "numbers of NumPy and a namespace": lambda s: {"state_dict": s, "best": np.float64(0.93), "epoch": np.int64(4),
                                                  "args": argparse.Namespace(lr=0.1, arch="smallcnn")},
    "half precision": lambda s: {name: value.half() for name, value in s.items()},
    "containers and numbers of Python": lambda s: {"model": s, "history": defaultdict(list), "lr": Fraction(1, 3),
                                                   "seen": frozenset({1}), "when": datetime.now(UTC), "run": uuid4()},
    "the same twice": lambda s: {"state_dict": s, "model": prefixed(s, "module.")},
    "a scheduler and a path": lambda s: {"state_dict": s, "args": argparse.Namespace(out=Path("runs"), when=TODAY),
                                         "scheduler": {"milestones": Counter([30, 60])}},
    "arrays beside the weights": lambda s: {"net": s, "losses": np.arange(3.0), "confusion": np.eye(3, dtype=int)},
    "averaged weights": lambda s: {"n_averaged": torch.tensor(3), **prefixed(s, "module.")},
    "weights and an accuracy": lambda s: (s, 93.1),
    "weights as arrays": lambda s: {"params": {name: value.numpy() for name, value in s.items()}},
    "four levels down": lambda s: {"a": {"b": {"c": {"model": s}}}},
    "other plain values": lambda s: {"model": s, "cfg": SimpleNamespace(lr=0.1)},
    "bfloat16": lambda s: {name: value.bfloat16() for name, value in s.items()},
    "double precision": lambda s: {name: value.double() for name, value in s.items()},
    "lightning fabric": lambda s: {"model": prefixed(s, "_forward_module."), "iter": 3},
    "parameters": lambda s: {name: nn.Parameter(value) for name, value in s.items()},
    "an epoch beside the tensors": lambda s: {**s, "epoch": 3},
    "a normalisation like ours": lambda s: prefixed(s, "1.") | {"0.mean": torch.tensor([0.305]),
                                                              "0.std": torch.tensor([[[0.376]]])},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_what_other_tools_save_loads(tmp_path, trained, shape):
    torch.save(SHAPES[shape](trained.state_dict()), tmp_path / "c.pt")
    network = FromFile(str(tmp_path / "c.pt"), "smallcnn").build(DIGITS).eval()
    tolerance = 1e-2 if shape in ("half precision", "bfloat16") else 1e-6
    torch.testing.assert_close(network(X), trained(X), rtol=tolerance, atol=tolerance)


def test_the_choice_is_named(tmp_path, trained):
    torch.save({"state_dict": prefixed(trained.state_dict(), "model.")}, tmp_path / "c.pt")
    chosen = "'state_dict' without the prefix 'model.'"
    assert load_checkpoint(SmallCNN().build(DIGITS), tmp_path / "c.pt").chosen == chosen
    assert FromFile(str(tmp_path / "c.pt"), "smallcnn").build(DIGITS).loaded_from == chosen


def test_two_sets_that_differ_have_to_be_named_apart(tmp_path, trained):
    state = trained.state_dict()
    torch.save({"state_dict": noise(state), "state_dict_ema": state}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"2 sets of weights fit .*'state_dict', 'state_dict_ema'.*key = "):
        FromFile(str(tmp_path / "c.pt"), "smallcnn").build(DIGITS)
    network = FromFile(str(tmp_path / "c.pt"), "smallcnn", "state_dict_ema").build(DIGITS).eval()
    torch.testing.assert_close(network(X), trained(X))
    with pytest.raises(ValueError, match="no weights under 'emma'; there are: 'state_dict', 'state_dict_ema'"):
        FromFile(str(tmp_path / "c.pt"), "smallcnn", "emma").build(DIGITS)


def test_two_prefixes_that_differ_are_not_guessed_at(tmp_path, trained):
    state = trained.state_dict()
    torch.save(prefixed(state, "student.") | prefixed(noise(state), "teacher."), tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"2 sets of weights fit .*'student\.'.*'teacher\.'"):
        FromFile(str(tmp_path / "c.pt"), "smallcnn").build(DIGITS)


def test_a_set_for_another_network_beside_ours_does_not_disturb(tmp_path, trained):
    other = ResNet18(width=4).build(DIGITS).state_dict()
    torch.save({"generator": other, "classifier": trained.state_dict()}, tmp_path / "c.pt")
    assert load_checkpoint(SmallCNN().build(DIGITS), tmp_path / "c.pt").chosen.endswith("'classifier'")


def test_a_checkpoint_that_would_load_partly_is_an_error(trained):
    state = trained.state_dict()
    first = next(iter(state))
    with pytest.raises(
        ValueError, match=rf"no tensor '{first}' \(1 missing, 0 unknown\); missing: '{first}'; the file has '"
    ):
        load_into(SmallCNN().build(DIGITS), {name: value for name, value in state.items() if name != first}, "c.pt")
    with pytest.raises(ValueError, match=r"a tensor 'extra\.weight' that does not belong there \(0 missing, 1 unknown"):
        load_into(SmallCNN().build(DIGITS), state | {"extra.weight": torch.ones(2)}, "c.pt")


def test_another_normalisation_than_ours_is_an_error(trained):
    state = trained.state_dict() | {"normalize.mean": torch.tensor([0.5])}
    with pytest.raises(ValueError, match=r"normalize.mean is \[0.5\], and the model normalises with \[0.305\]"):
        load_into(SmallCNN().build(DIGITS), state, "c.pt")


def test_a_normalisation_of_another_number_of_channels_is_an_error():
    network = SmallCNN(width=2, hidden=4).build(DATASETS["cifar10"])
    state = network.state_dict() | {"normalize.mean": torch.full((4,), 0.5)}
    with pytest.raises(ValueError, match=r"normalize.mean is \[0.5, 0.5, 0.5, 0.5\], and the model normalises with"):
        load_into(network, state, "c.pt")


def test_old_batch_norms_without_a_counter_load(trained):
    network = ResNet18(width=4).build(DIGITS)
    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    load_into(ResNet18(width=4).build(DIGITS), state, "old.pt")


def test_a_network_without_tensors_takes_an_empty_set():
    load_into(nn.Flatten(), {}, "none.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>Virus scan warning</html>", "it is a web page"),
    ],
)
def test_what_is_there_in_place_of_weights_is_named(tmp_path, content, message):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_state(tmp_path / "c.pt")


def test_a_file_that_was_cut_a_program_and_tensors_without_data_are_named(tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="its end is missing"):
        load_state(tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "s.pt", "w") as archive:  # as torch.jit.save lays it out
        archive.writestr("s/constants.pkl", b"")
    with pytest.raises(ValueError, match=r"TorchScript archive.*torch\.jit\.load\('s\.pt'\)"):
        load_state(tmp_path / "s.pt")
    torch.save({name: value.to("meta") for name, value in trained.state_dict().items()}, tmp_path / "m.pt")
    with pytest.raises(ValueError, match="no data"):
        load_checkpoint(SmallCNN().build(DIGITS), tmp_path / "m.pt")


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_floats_are_refused(tmp_path, trained, kind):
    """Quantised weights would load as whole numbers, and without their scale mean nothing."""
    torch.save({name: value.to(kind) for name, value in trained.state_dict().items()}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=f"is {kind} in the file and torch.float32 here; save the weights as floats"):
        load_checkpoint(SmallCNN().build(DIGITS), tmp_path / "c.pt")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_floats_are_loaded(tmp_path, trained, kind):
    torch.save({name: value.to(kind) for name, value in trained.state_dict().items()}, tmp_path / "c.pt")
    network = SmallCNN().build(DIGITS)
    load_checkpoint(network, tmp_path / "c.pt")
    for name, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], value.to(kind).to(value.dtype))


def test_a_whole_pickled_module_is_refused_unrun(tmp_path, trained):
    torch.save(trained, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="refused: it is no plain state dict"):
        load_state(tmp_path / "c.pt")


def test_the_nearest_name_is_suggested(trained):
    state = {name.replace(".", "_"): value for name, value in trained.state_dict().items()}
    with pytest.raises(
        ValueError,
        match=r"no tensor 'layers\.0\.bias' \(8 missing, 8 unknown\); missing: 'layers\.0\.bias' \(nearest in the "
        r"file: 'layers_0_bias'\), .* and 4 more; unknown: 'layers_0_bias'",
    ):
        load_into(SmallCNN().build(DIGITS), state, "c.pt")


def test_a_refused_file_says_what_it_holds(tmp_path, trained):
    torch.save({"model": trained}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"it holds epsbench\.models\.smallcnn\.SmallCNNNetwork.*state_dict\(\)"):
        load_state(tmp_path / "c.pt")


class Bare(nn.Sequential):
    """A network that leaves normalisation to its caller."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))


def test_mean_and_std_belong_to_a_network_that_does_not_normalise(tmp_path):
    bare = Bare()
    stored = {f"1.{name}": value for name, value in bare.state_dict().items()}
    torch.save(stored | {"0.mean": torch.tensor([0.3]), "0.std": torch.tensor([0.4])}, tmp_path / "c.pt")
    architecture = Custom(Bare)
    with pytest.raises(ValueError, match=r"0\.std is \[0\.4\], and the model normalises with \[0\.5\]"):
        FromFile(str(tmp_path / "c.pt"), architecture, mean=(0.3,), std=(0.5,)).build(DIGITS)
    network = FromFile(str(tmp_path / "c.pt"), architecture, mean=(0.3,), std=(0.4,)).build(DIGITS)
    torch.testing.assert_close(network(X), bare((X - 0.3) / 0.4))
    as_it_is = FromFile(str(tmp_path / "c.pt"), architecture, mean=(0.0,), std=(1.0,)).build(DIGITS)
    assert torch.equal(as_it_is(X), bare(X))
    with pytest.raises(ValueError, match="mean has 3 numbers, and the images of digits have 1 channels"):
        FromFile(str(tmp_path / "c.pt"), architecture, mean=(0.3,) * 3, std=(0.4,) * 3).build(DIGITS)
    with pytest.raises(ValueError, match="give both"):
        FromFile(str(tmp_path / "c.pt"), architecture, mean=(0.3,))


def test_the_mean_and_std_that_a_file_holds_beside_the_weights_count(tmp_path):
    bare = Bare()
    stored = {f"model.{name}": value for name, value in bare.state_dict().items()}
    stored |= {"normalize.mean": torch.tensor([[[0.3]]]), "normalize.std": torch.tensor([[[0.4]]])}
    torch.save({"state_dict": stored}, tmp_path / "c.pt")
    network = FromFile(str(tmp_path / "c.pt"), Custom(Bare)).build(DIGITS)
    torch.testing.assert_close(network(X), bare((X - 0.3) / 0.4))
    known = preprocessing_of(network)
    assert preprocessing_text(known.record()) == "normalises with mean 0.3 and std 0.4 (file)"
    assert network.loaded_from == "'state_dict' without the prefix 'model.'"


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"0.mean": [0.3]}, r"a mean and a standard deviation are needed for that, not 0\.mean; give mean and std"),
        ({"0.mean": [0.3], "0.std": [0.4], "1.mean": [0.1]}, r"not 0\.mean, 0\.std, 1\.mean"),
        ({"0.mean": [125.0], "0.std": [63.0]}, r"0\.mean is \[125\.0\], and is no statistic of pixels in \[0, 1\]"),
        ({"0.mean": [0.3], "0.std": [0.0]}, "is no statistic of pixels"),
        ({"0.mean": [0.3] * 3, "0.std": [0.4] * 3}, "mean has 3 numbers, and the images of digits have 1 channels"),
    ],
)
def test_statistics_of_a_file_that_are_not_clear_are_refused(tmp_path, statistics, message):
    tensors = {name: torch.tensor(value) for name, value in statistics.items()}
    torch.save(Bare().state_dict() | tensors, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=message):
        FromFile(str(tmp_path / "c.pt"), Custom(Bare)).build(DIGITS)


def test_one_number_of_a_file_is_for_all_channels(tmp_path):
    colour = replace(DIGITS, shape=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    bare = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    torch.save(bare.state_dict() | {"mean": torch.tensor(0.3), "std": torch.tensor(0.4)}, tmp_path / "c.pt")
    network = FromFile(str(tmp_path / "c.pt"), Custom(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10))))
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(network.build(colour)(x), bare((x - 0.3) / 0.4))


def test_weights_of_another_model_of_a_run_may_not_bring_a_normalisation():
    with pytest.raises(ValueError, match="weights of x: their model normalises its images"):
        load_into(Bare(), Bare().state_dict() | {"mean": torch.tensor([0.3]), "std": torch.tensor([0.4])}, "of x")


@pytest.mark.parametrize("content", [defaultdict(list, {"loss": [1.0]}), deque([1])], ids=["defaultdict", "deque"])
def test_a_container_that_torch_does_not_fill_is_named(tmp_path, trained, content):
    torch.save({"model": trained.state_dict(), "history": content}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=rf"it holds collections\.{type(content).__name__}\)"):
        load_state(tmp_path / "c.pt")
