"""What somebody gives in place of weights or data: one message that says what it is, and what to give."""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from epsbench.harness.cli import main
from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.data import read_data
from epsbench.models.checkpoints import load_checkpoint
from epsbench.models.file_kinds import kind_of
from epsbench.models.weight_files import load_state

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.4.0:\x80\x01"


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name in names:
            made.writestr(name, b"x")
    return buffer.getvalue()


def arrays(**named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **named)
    return buffer.getvalue()


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def safetensors() -> bytes:
    from safetensors.torch import save

    return save({"0.weight": torch.ones(40, 40)})


IMAGES = {"images": np.zeros((4, 3, 8, 8), np.float32), "labels": np.arange(4)}
FILES = {
    "test.npz": (arrays(**IMAGES), "a NumPy archive (arrays images, labels)"),
    "best.pt": (arrays(**IMAGES), "a NumPy archive (arrays images, labels)"),
    "w.npy": (array(), "an array of NumPy (.npy)"),
    "empty.pt": (b"", "empty"),
    "pointer.pt": (LFS, "a pointer of Git LFS"),
    "page.pt": (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
    "net.onnx": (ONNX, "an ONNX model"),
    "renamed.bin": (ONNX, "an ONNX model"),
    "net.h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    "net.keras": (archive("config.json", "model.weights.h5"), "a model of Keras"),
    "model.ckpt.index": (b"\x00\x00\x05", "a file of TensorFlow"),
    "model.ckpt.data-00000-of-00001": (bytes(99), "a file of TensorFlow"),
    "checkpoint": (b'model_checkpoint_path: "model.ckpt-3"\n', "the index of a checkpoint of TensorFlow"),
    "saved_model.pb": (b"\x08\x01\x12\xff\xff", "a file of TensorFlow"),
    "net.tflite": (bytes(4) + b"TFL3" + bytes(9), "a file of TensorFlow"),
    "notes.pt": ("Größe: 3 Mio. Gewichte\n".encode() * 40, "a text file"),
    "model.safetensors.index.json": (b'{"weight_map": {}}', "the index of weights that lie in several files"),
    "weights.pt.gz": (gzip.compress(b"abc" * 99), "a gzip file"),
    "weights.zip": (archive("weights.pt", "README.md"), "a zip archive (with weights.pt, README.md)"),
    "cut.pt": (saved({"a": torch.ones(999)})[:2000], "damaged: its end is missing"),
    "cut.safetensors": (safetensors()[:40], "damaged: its end is missing"),
    "cat.png": (picture(), "a PNG image"),
    "net.torchscript": (archive("net/data.pkl", "net/constants.pkl"), "a TorchScript archive"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_weights_is_named_with_a_remedy(tmp_path, name):
    content, text = FILES[name]
    (tmp_path / name).write_bytes(content)
    assert text in kind_of(tmp_path / name).text
    with pytest.raises(ValueError, match=r"^weights ") as caught:
        load_state(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"weights {tmp_path / name}: ")
    assert message.count(str(tmp_path)) == 1
    assert text in message
    assert ";" in message.partition(text)[2]  # the remedy
    assert "\n" not in message


def test_a_file_that_is_called_otherwise_is_read_all_the_same(tmp_path):
    network = nn.Sequential(nn.Linear(40, 40, bias=False))
    (tmp_path / "pytorch_model.bin").write_bytes(safetensors())
    assert load_checkpoint(network, tmp_path / "pytorch_model.bin").chosen == "the whole file"
    (tmp_path / "model.safetensors").write_bytes(saved({"0.weight": torch.zeros(40, 40)}))
    load_checkpoint(network, tmp_path / "model.safetensors")
    assert not network[0].weight.any()


def test_safetensors_that_lack_their_last_tensor_are_damaged(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(safetensors()[:-9])
    with pytest.raises(ValueError, match="neither safetensors nor a state dict, or damaged"):
        load_state(tmp_path / "cut.safetensors")


def shell(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["epsbench", "evaluate", *arguments, "--attack", "fgsm"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "test.npz").write_bytes(arrays(**IMAGES))
    return folder


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ("test.npz", "it is a NumPy archive (arrays images, labels), not weights; images and labels are data"),
        ("folder", "is a folder (with best.pt); give the path of a file"),
        ("saved", "is a SavedModel of TensorFlow; give the path of a file"),
        ("model.ckpt", "is a checkpoint of TensorFlow; save the weights as a state dict"),
        ("nowhere.pt", "cannot be read (No such file or directory)"),
    ],
)
def test_the_shell_says_what_the_weights_are(place, monkeypatch, capsys, weights, wanted):
    (place / "folder").mkdir()
    (place / "folder" / "best.pt").write_bytes(b"x")
    (place / "saved").mkdir()
    (place / "saved" / "saved_model.pb").write_bytes(b"x")
    (place / "model.ckpt.index").write_bytes(b"x")
    shown = shell(monkeypatch, capsys, "smallcnn", "--weights", weights, "--data", "test.npz")
    assert wanted in " ".join(shown.split())
    assert len(shown.strip().splitlines()) == 1


OF_DATA = {
    "best.pt": (saved({"a": torch.ones(3)}), "is a file of torch.save, and that is no data; give a .npz file"),
    "net.onnx": (ONNX, "is an ONNX model, which holds a program, and that is no data"),
    "labels.csv": (b"file,label\na.png,3\n", "is a text file, and that is no data; give a .npz file"),
    "photos.zip": (archive("a/0.png"), "is a zip archive (with a/0.png), and that is no data; unpack it, and give"),
    "cat.png": (picture(), "is a PNG image, and that is no data; give the folder with one folder of images for each"),
    "pointer.bin": (LFS, "fetch it with `git lfs pull`, and give"),
    "table.parquet": (b"PAR1xxxx", 'is a Parquet table; say that it is one: { name = "hf", path = "table.parquet" }'),
    "mine.py": (b"X = 3\n", "is code; name the object in it that is the data: mine.py:Object"),
    "unknown.dat": (bytes(range(128, 256)), "is no data that epsbench reads; give a .npz file"),
    "pointer.npz": (LFS, "is no NumPy file, it is a pointer of Git LFS, not the file itself; fetch it with"),
    "page.npz": (b"<html>", "is no NumPy file, it is a web page; download the file itself"),
    "weights.npz": (saved({"a": torch.ones(3)}), "is no NumPy file, it is a file of torch.save; save the images and"),
    "photos.npz": (archive("a/0.png"), "is no NumPy file, it is a zip archive (with a/0.png); unpack it"),
    "empty.npz": (b"", "is no NumPy file, it is empty; copy or download it again"),
    "cut.npz": (arrays(**IMAGES)[:900], "is no NumPy file, it is damaged: its end is missing; copy"),
    "only-weights.npz": (arrays(**{"layer.weight": np.ones(3)}), 'has no array of images; known: layer.weight; name'),
    "text.npz": (b"no array at all\n", "is no NumPy file, it is a text file; save the images"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_DATA)
def test_what_is_no_data_is_named_with_a_remedy(place, name):
    content, wanted = OF_DATA[name]
    (place / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_data(name, place)
    (message,) = caught.value.messages
    assert message.startswith(str(place / name))
    assert wanted in message
    assert "\n" not in message


def test_a_file_is_no_folder_and_a_folder_no_file(place):
    with pytest.raises(InputError, match=r"test\.npz: is a file, not a folder of images"):
        read_data({"name": "folder", "path": "test.npz"}, place)
    (place / "photos.npz").mkdir()
    with pytest.raises(InputError, match=r"photos\.npz: is no NumPy file, it is a folder"):
        read_data("photos.npz", place)
