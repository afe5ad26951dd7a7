"""Lists of classes: what the outputs of a model stand for, where a folder has images of some of its classes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from epsbench.harness.errors import InputError

IMAGENET = "imagenet"
"""The 1,000 classes of ILSVRC 2012, in the order of their WordNet ids: that of torchvision's and timm's models."""

_WORDNET = re.compile(r"[nvars]\d{8}$")
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class ClassList:
    """The classes of a model, in the order of its outputs."""

    labels: Mapping[str, int]
    """The output (an integer from 0) of each class folder."""
    names: tuple[str, ...]
    """What each class is called."""
    source: str

    def label(self, folder: Path) -> int:
        """The output of a class folder. Raises `InputError` where the list has none for it."""
        if folder.name in self.labels:
            return self.labels[folder.name]
        near = get_close_matches(folder.name, self.labels, n=1)
        what = f"the nearest is {near[0]!r}" if near else f"such as {', '.join(map(repr, list(self.labels)[:_SHOWN]))}"
        raise InputError(
            f"{folder}: is none of the {len(self.names)} classes of {self.source} ({what}); rename the folder, or "
            "correct the list"
        )


def class_list(classes: str, base: Path) -> ClassList:
    """The classes that ``classes`` names: `IMAGENET`, or a text file with a class folder's name on each line.

    What a class is called may follow the name, after a tab; after a WordNet id, after a space as well. Raises
    `InputError` where there is no such file, or where it names a class twice.
    """
    if classes == IMAGENET and not (base / classes).is_file():
        return _imagenet()
    path = base / classes
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the list of classes cannot be read ({getattr(error, 'strerror', None) or error}); give a text "
            f"file with the name of a class folder on each line, in the order of the model's outputs, or {IMAGENET!r}"
        ) from error
    return _of_lines(path.name, filter(None, map(str.strip, text.splitlines())))


def _of_lines(source: str, lines: Iterable[str]) -> ClassList:
    labels: dict[str, int] = {}
    names: list[str] = []
    for line in lines:
        words = line.split(maxsplit=1)
        if len(words) == 2 and _WORDNET.match(words[0]):
            folder, called = words
        else:
            folder, _, called = map(str.strip, line.partition("\t"))
        if folder in labels:
            raise InputError(f"{source}: names the class {folder!r} twice; name each once")
        labels[folder] = len(names)
        names.append(called or folder)
    if len(names) < 2:
        raise InputError(f"{source}: names {len(names)} classes; a classifier needs two")
    return ClassList(labels, tuple(names), source)


def _imagenet() -> ClassList:
    """From timm's files, without importing timm."""
    spec = importlib.util.find_spec("timm")
    folder = Path(str(spec.origin if spec else "")).parent / "data" / "_info"
    try:
        ids = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
        lemmas = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"classes: this version of timm has no list of ImageNet's classes ({error}); give a text file of them"
        ) from error
    called = dict(line.split("\t", 1) for line in lemmas)
    # Two classes are called "crane": the id makes them different.
    return _of_lines(IMAGENET, (f"{each} {called[each].split(',')[0]} ({each})" for each in ids))
