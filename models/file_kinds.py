"""What a file or folder is, by its first bytes and its name: for messages about what is there in place of another.

Nothing here needs torch, and nothing of a file is run or unpickled.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

_HEAD = 512  # bytes that are looked at
_MOST = 4  # names in a message
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Usual endings of files of weights."""

CUT = "damaged: its end is missing"
_MAGIC = (
    (b"version https://git-lfs", "lfs", "a pointer of Git LFS, not the file itself"),
    (b"\x93NUMPY", "npy", "an array of NumPy (.npy)"),
    (b"\x89HDF\r\n", "hdf5", "an HDF5 file, as Keras and h5py write it"),
    (b"\x1f\x8b", "packed", "a gzip file"),
    (b"\xfd7zXZ\x00", "packed", "an xz file"),
    (b"BZh", "packed", "a bzip2 file"),
    (b"(\xb5/\xfd", "packed", "a Zstandard file"),
    (b"7z\xbc\xaf'\x1c", "packed", "a 7-Zip archive"),
    (b"Rar!", "packed", "a RAR archive"),
    (b"\x89PNG", "image", "a PNG image"),
    (b"\xff\xd8\xff", "image", "a JPEG image"),
    (b"GIF8", "image", "a GIF image"),
    (b"%PDF", "other", "a PDF document"),
    (b"PAR1", "parquet", "a Parquet table"),
    (b"GGUF", "gguf", "a GGUF file of a language model"),
    (b"MATLAB 5.0", "matlab", "a file of MATLAB"),
    (b"SQLite format 3", "other", "an SQLite database"),
)
_TENSORFLOW = re.compile(r"\.(index|meta|pb|tflite|data-\d{5}-of-\d{5})$")


@dataclass(frozen=True)
class FileKind:
    """What a file is."""

    code: str
    """One word, such as ``"npz"``, ``"onnx"``, ``"text"``, ``"torch"``; empty where nothing is known."""

    text: str = ""
    """In words, for a message: ``"a NumPy archive (arrays images, labels)"``."""


def kind_of(path: Path) -> FileKind:
    """What a file or folder is. Raises `OSError` where it cannot be read."""
    if path.is_dir():
        return _of_folder(path)
    with path.open("rb") as file:
        head = file.read(_HEAD)
        size = file.seek(0, 2)
    if not head:
        return FileKind("empty", "empty")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return FileKind("html", "a web page")
    known = next((FileKind(code, text) for magic, code, text in _MAGIC if head.startswith(magic)), None)
    if known is not None:
        return known
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _of_archive(path)
    return _of_safetensors(head, size) or _of_protobuf(path, head) or _of_text(path, head)


def cannot_read_weights(path: Path | str, error: Exception) -> ValueError:
    """The error for a file of weights that is not there, or cannot be opened."""
    reason = getattr(error, "strerror", None) or error
    return ValueError(f"weights {path}: cannot be read ({reason}); give the path of a file")


def _of_folder(path: Path) -> FileKind:
    names = sorted(each.name for each in path.iterdir())
    if "saved_model.pb" in names:
        return FileKind("tensorflow", "a SavedModel of TensorFlow")
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        return FileKind("distributed", "a distributed checkpoint of torch")
    weights = [name for name in names if name.endswith(WEIGHTS)]
    return FileKind("folder", f"a folder{f' (with {_some(weights)})' if weights else ''}")


def _of_archive(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return FileKind("cut", CUT)
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        return FileKind("torchscript", "a TorchScript archive, which holds a program")
    if "data.pkl" in ends:
        return FileKind("torch", "a file of torch.save")
    if not names:
        return FileKind("zip", "an empty archive")
    if all(name.endswith(".npy") for name in names):
        arrays = _some([name.removesuffix(".npy") for name in names])
        return FileKind("npz", f"a NumPy archive ({'array' if len(names) == 1 else 'arrays'} {arrays})")
    if "model.weights.h5" in ends:
        return FileKind("hdf5", "a model of Keras")
    return FileKind("zip", f"a zip archive (with {_some(names)})")


def _of_safetensors(head: bytes, size: int) -> FileKind | None:
    """A safetensors file begins with the length of its header, eight bytes, and with the header, JSON."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length >= 2**27:
        return None
    return FileKind("safetensors", "a safetensors file") if length + 8 <= size else FileKind("cut", CUT)


def _of_protobuf(path: Path, head: bytes) -> FileKind | None:
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and b"pytorch" in head[:32]):
        return FileKind("onnx", "an ONNX model, which holds a program")
    if _TENSORFLOW.search(path.name) or head[4:8] == b"TFL3":
        return FileKind("tensorflow", "a file of TensorFlow")
    return None


def _of_text(path: Path, head: bytes) -> FileKind:
    try:
        # A character may be cut at the end of what was read.
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        text = "\x00"
    if any(not character.isprintable() and character not in "\r\n\t\f" for character in text):
        return FileKind("")
    if "model_checkpoint_path" in text:
        return FileKind("tensorflow", "the index of a checkpoint of TensorFlow")
    if path.name.endswith(".index.json"):
        return FileKind("shards", "the index of weights that lie in several files")
    return FileKind("text", "a text file")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
