"""Thousands of broken suites: each is a valid suite or an `InputError`, never anything else."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import load_suite, shipped_suites

FULL = """
description = "everything a suite can say"

[robustness]
data = "digits"
limit = 100
precision = "float32"
early_stop = true
training = { epochs = 3, optimizer = "sgd", learning_rate = 0.1, schedule = "step", step_epochs = 2, gamma = 0.5 }

[robustness.matrix]
model = ["smallcnn", { name = "resnet18", width = 8 }]
defense = ["none", { name = "pgd-batch", eps = "8/255" }]
augmentation = ["none", "shift"]
subset = "first-half"
source = { seed = 1 }
attack = ["noise", { name = "pgd", steps = 3, random_start = true, restarts = 2 }]
norm = ["linf", "l2"]
eps = ["8/255", 0.1]
seed = [0, 1]

[[robustness.exclude]]
model = "resnet18"
norm = "l2"

[[robustness.include]]
model = "smallcnn"
defense = "none"
augmentation = "none"
attack = "fgsm"
norm = "l2"
eps = 1
seed = 7

[[robustness.expect]]
where = { attack = { name = "pgd", steps = 3 }, eps = ["8/255", "0.1"], defense = "none" }
robust_accuracy = { min = 0.1, max = 0.9 }
strict = true

[generation]
data = "mnist"
training = { epochs = 1 }

[generation.matrix]
model = "vae"
z_dim = [2, 20]
beta = 1.0

[[generation.expect]]
where = { z_dim = 2 }
test_bpd = { max = 1.0 }
"""

VOCABULARY = [
    "pgd", "pdg", "none", "linf", "eps", "name", "8/255", "1/0", "-1", "1e999999", "nan", "", "a:b", "x.py:Y", "timm:",
    "timm:resnet18", "file:gone", "builtins:dict", "os:path", ":", "..:x", "steps", "digits", "\0", "é", "\x1b[31m",
    "a\nb",
]  # fmt: skip
SCALARS = st.one_of(
    st.sampled_from(VOCABULARY), st.text(max_size=8), st.booleans(), st.floats(), st.integers(-3, 300), st.integers(),
    st.just(10**30),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(VOCABULARY) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything within a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """The full suite with one to four of its places replaced, removed, renamed or doubled."""
    document = copy.deepcopy(tomllib.loads(FULL))
    for _ in range(draw(st.integers(1, 4))):
        spots = list(places(document))
        if not spots:
            break
        *above, last = draw(st.sampled_from(spots))
        parent: Any = document
        for key in above:
            parent = parent[key]
        change = draw(st.sampled_from(["replace", "remove", "rename", "double", "wrap"]))
        if change == "replace":
            parent[last] = draw(VALUES)
        elif change == "remove":
            del parent[last]
        elif change == "wrap":
            parent[last] = [parent[last]]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        else:
            parent[draw(st.sampled_from(VOCABULARY) | st.text(max_size=6))] = copy.deepcopy(parent[last])
            if change == "rename":
                parent.pop(last)
    return document


def to_toml(value: Any) -> str:
    """A value as inline TOML: JSON's strings are TOML's basic strings, once DEL is escaped too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(str(key))} = {to_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007F")
    return repr(value).lower()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "suite.toml"


def valid_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        suite = load_suite(str(path))
    except InputError as error:
        messages = error.messages
    else:
        assert suite.cells
        assert len({cell.id for cell in suite.cells}) == len(suite.cells)
        return
    assert messages
    assert all(line.startswith(f"{path}: ") and line.isprintable() for line in messages)


def test_the_suite_the_mutants_come_from_is_valid(path):
    document = tomllib.loads(FULL)
    text = "\n".join(f"{key} = {to_toml(value)}" for key, value in document.items())
    assert tomllib.loads(text) == document
    path.write_text(FULL)
    assert len(load_suite(str(path)).cells) == 99


@settings(max_examples=1500)
@given(mutants())
def test_a_mutated_document_is_valid_or_refused(path, document):
    text = "\n".join(f"{to_toml(key)} = {to_toml(value)}" for key, value in document.items())
    valid_or_refused(path, text.encode("utf-8", "surrogatepass"))


@settings(max_examples=700)
@given(st.data())
def test_a_mutated_text_is_valid_or_refused(path, data):
    source = data.draw(st.sampled_from([FULL, *(suite.read_text() for suite in shipped_suites().values())])).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(source)))
        length = data.draw(st.sampled_from([0, 1, 1, 5, 40]))
        source = source[:start] + data.draw(st.binary(max_size=4)) + source[start + length :]
    valid_or_refused(path, source)


@settings(max_examples=200)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xef\xbb\xbf[robustness]")
def test_arbitrary_bytes_are_refused(path, content):
    valid_or_refused(path, content)
