"""What holds for any input to the suite parser, the record reader and the report renderer.

pytest runs some examples of each property, and atheris, through Hypothesis's ``fuzz_one_input``, as many as one
likes (``fuzz_*.py``).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("report", "plan")]

import factory  # noqa: E402
import test_mutations  # noqa: E402

from epsbench.harness.digest import cell_id  # noqa: E402
from epsbench.harness.errors import InputError  # noqa: E402
from epsbench.harness.findings import Finding  # noqa: E402
from epsbench.harness.records import Record, read_record, record_path  # noqa: E402
from epsbench.harness.report.build import FORMATS, report  # noqa: E402
from epsbench.harness.report.gates.compare import compare  # noqa: E402

FOLDER = tempfile.TemporaryDirectory(prefix="epsbench-fuzz-")
QUICK = [name for name in FORMATS if name != "html"]
BITS = np.arange(40) % 3 > 0
RECORDS = [
    factory.robustness(np.ones(40, dtype=bool), BITS, eps="2/255"),
    factory.robustness(np.ones(40, dtype=bool), BITS, eps="8/255", seed=1,
                       findings=(Finding(code="masked", severity="warning", message="m", evidence={"a": [1]}),)),
    factory.generation(0.52, epochs=3),
    factory.failed(eps="0.1"),
    factory.void(BITS, BITS, eps="0.2"),
    factory.robustness(np.ones(40, dtype=bool), BITS, eps="0.2", subset="first-half", early_stop=False,
                       source={"model": {"name": "smallcnn"}, "defense": {"name": "none"}, "augmentation": "none",
                               "subset": "second-half", "seed": 0}),
]  # fmt: skip
TREES = [json.loads(record.model_dump_json()) for record in RECORDS]

STRANGE: list[Any] = [
    None, True, -1, 0, 2**63, 10**400, 1e308, 5e-324, -0.0, "", "0", "1/0", "nan", "inf", "9" * 5000, "\x00", "\ud800",
    "\u202e", "<script>", "a\nb|c", "=1+1", "../../x", "2026-01-01T00:00:00+00:00", "ok", "robustness", "generation",
    {}, [], {"name": ""}, {"name": 1}, {"name": "x", "steps": "many", "restarts": None},
]  # fmt: skip
values = st.recursive(
    st.sampled_from(STRANGE) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def tested(check: Callable[[st.DataObject], None], examples: int) -> Callable[[], None]:
    """A property as a Hypothesis test of so many examples."""
    eased = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    return eased(given(data=st.data())(check))


def mutate(data: st.DataObject, tree: dict[str, Any], most: int = 3) -> dict[str, Any]:
    """A copy with a few places replaced, removed or doubled."""
    tree = json.loads(json.dumps(tree))
    for _ in range(data.draw(st.integers(1, most))):
        *above, last = data.draw(st.sampled_from(list(test_mutations.places(tree))))
        parent: Any = tree
        for key in above:
            parent = parent[key]
        change = data.draw(st.sampled_from(["replace", "remove", "double"]))
        if change == "remove":
            del parent[last]
        elif change == "double" and isinstance(parent, list):
            parent.append(parent[last])
        elif change == "double":
            parent[data.draw(st.text(max_size=5))] = parent[last]
        else:
            parent[last] = data.draw(values)
        if not tree:
            break
    return tree


def under_its_id(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with the id of its own cell and code: else a mutated cell would be refused for that alone."""
    return tree | {"id": cell_id(tree.get("cell", {}), tree.get("code", {}))}


def suite_is_valid_or_refused(data: st.DataObject) -> None:
    """Cells with ids of their own, or messages that name the file, each one printable line."""
    if data.draw(st.booleans()):
        document = data.draw(test_mutations.mutants())
        text = "\n".join(
            f"{test_mutations.to_toml(key)} = {test_mutations.to_toml(value)}" for key, value in document.items()
        )
        content = text.encode("utf-8", "surrogatepass")
    else:
        content = _edited(data, test_mutations.FULL.encode())
    test_mutations.valid_or_refused(Path(FOLDER.name) / "suite.toml", content)


def record_is_read_or_refused(data: st.DataObject) -> None:
    """A record under its own id whose verdicts unpack, or one message that names the file."""
    tree = data.draw(st.sampled_from(TREES))
    tree = under_its_id(mutate(data, tree)) if data.draw(st.booleans()) else tree
    path = record_path(Path(FOLDER.name) / "one", tree["id"])
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(tree).encode()
    path.write_bytes(_edited(data, content) if data.draw(st.booleans()) else content)
    try:
        record = read_record(path)
    except InputError as error:
        (message,) = error.messages
        assert message.startswith(f"{path}: ")
        assert message.isprintable()
        return
    assert record.id == path.stem
    if record.verdicts is not None:
        assert all(len(bits) == record.verdicts.n for bits in record.verdicts.unpack())
    assert Record.model_validate_json(record.model_dump_json()) == record


def printable(error: InputError) -> None:
    """The message holds no control character that a terminal would act on."""
    assert error.messages
    assert all(message.isprintable() for message in error.messages)


def _render(folder: Path, form: str) -> None:
    try:
        output = report(folder, form, folder / "output")  # without a file, text has the page drawn as well
    except InputError as error:
        printable(error)
        return
    assert output
    output.encode()


def _results(data: st.DataObject, folder: Path) -> Path:
    """A folder of all the records, one to three of them mutated."""
    cells = folder / "cells"
    if cells.exists():
        shutil.rmtree(cells)
    cells.mkdir(parents=True)
    changed = data.draw(st.lists(st.integers(0, len(TREES) - 1), min_size=1, max_size=3, unique=True))
    for index, tree in enumerate(TREES):
        kept = under_its_id(mutate(data, tree, 2)) | {"schema_version": 1} if index in changed else tree
        (cells / f"{kept['id']}.json").write_text(json.dumps(kept))
    return folder


def report_is_rendered_or_refused(data: st.DataObject) -> None:
    """Every quick format of a folder with mutated records, and its comparison with a sound one."""
    folder, sound = Path(FOLDER.name) / "many", Path(FOLDER.name) / "sound"
    if not sound.exists():
        factory.write(sound, *RECORDS)
    _results(data, folder)
    _render(folder, data.draw(st.sampled_from(QUICK)))
    try:
        code, output = compare(*data.draw(st.sampled_from([(folder, sound), (sound, folder)])))
    except InputError as error:
        printable(error)
    else:
        assert code in (0, 1, 2)
        assert output


def page_is_rendered_or_refused(data: st.DataObject) -> None:
    """The HTML page, whose figures take their time."""
    _render(_results(data, Path(FOLDER.name) / "page"), "html")


def _edited(data: st.DataObject, content: bytes) -> bytes:
    for _ in range(data.draw(st.integers(1, 3))):
        start, length = data.draw(st.integers(0, len(content))), data.draw(st.sampled_from([0, 1, 1, 5, 40]))
        content = content[:start] + data.draw(st.binary(max_size=4)) + content[start + length :]
    return content
