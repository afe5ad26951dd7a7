"""Every format from synthetic records: hostile names are escaped, failures visible, the page self-contained."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import factory
import numpy as np
import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.findings import Finding
from epsbench.harness.records import record_path
from epsbench.harness.report.build import FORMATS, report
from epsbench.harness.report.content import Content
from epsbench.harness.report.formats.markdown import escape
from epsbench.harness.report.formats.text import text
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.results.names import Names

HOSTILE = "<script>alert('x')</script>\"'&|`*_$\\alpha$\x1b[31m\u202e=1+1\n## boo"
N = 200
CLEAN = np.arange(N) < 190


def pictures(k: int = 9, channels: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    original = rng.random((k, channels, 8, 8), dtype=np.float32)
    adversarial = np.clip(original + 0.03, 0, 1)
    labels = np.arange(k)
    return {
        "original": original,
        "adversarial": adversarial,
        "labels": labels,
        "predicted": labels,
        "fooled": labels > 3,
    }


def samples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {f"samples_epoch_{e:04d}": rng.random((64, 1, 8, 8), dtype=np.float32) for e in (0, 10, 80)}
    return made | {"reconstructions": rng.random((2, 10, 1, 8, 8), dtype=np.float32)}


@pytest.fixture
def results(tmp_path):
    robust = [
        factory.robustness(
            CLEAN,
            CLEAN & (np.arange(N) < 100 - 20 * step),
            attack={"name": "pgd", "steps": 10},
            eps=eps,
            pictures=step == 1,
            findings=(Finding(code="masked", severity="warning", message=HOSTILE, evidence={HOSTILE: HOSTILE}),),
        )
        for step, eps in enumerate(("2/255", "8/255"))
    ]
    hostile = factory.robustness(
        CLEAN, CLEAN, model={"name": HOSTILE, "path": HOSTILE}, attack={"name": HOSTILE, "steps": 3}, suite=HOSTILE
    )
    hostile = hostile.model_copy(update={"environment": {HOSTILE: HOSTILE, "device": "cpu"}})
    vae = factory.generation(pictures=True)
    bad = [factory.failed(HOSTILE, eps="0.1"), factory.void(CLEAN, CLEAN, eps="0.2")]
    return factory.write(
        tmp_path / "results", *robust, hostile, vae, *bad, pictures={robust[1].id: pictures(), vae.id: samples()}
    )


class Page(HTMLParser):
    """What a browser would load or run from a page, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.policy = ""
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"]
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("src", "href", "srcset", "data", "action"):
                self.links.append(value)

    def handle_data(self, data):
        self.text += data


def test_the_page_is_self_contained_and_only_its_own_script_runs(results):
    page = Page(report(results, "html"))
    assert page.tags.count("script") == 2  # its data, which do not run, and its script
    assert not {name for name in page.attributes if name.startswith("on")} | ({"style"} & page.attributes)
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    source = report(results, "html")
    style = re.search(r"<style>(.*)</style>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    script = re.search(r"<script>(.*)</script>", source, re.DOTALL).group(1)
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"style-src 'sha256-{digest}'; script-src 'sha256-{own}'; img-src data:"
    assert f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'" == page.policy
    assert "eval" not in re.sub(r'"[^"]*"', "", script).replace("evaluation", "")
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', source, re.DOTALL).group(1)
    )
    assert any(HOSTILE.partition("\x1b")[0] in cell["name"] for cell in data["cells"])
    outside = re.sub(r"data:image/[^\"]*", "", source).replace('"http://www.w3.org/2000/svg"', "")
    assert "http://" not in outside
    assert "https://" not in outside
    assert "\x1b" not in source
    assert "\u202e" not in source
    assert "<script>alert('x')</script>" in page.text


def test_the_page_shows_what_there_is(results):
    page = Page(report(results, "html"))
    for part in ("Leaderboard", "Accuracy against ε", "Adversarial examples", "What an attack costs", "VAE on mnist"):
        assert part in page.text
    for part in ("samples before training", "samples after epoch 80", "reconstructions", "failed", "void", "8/255"):
        assert part in page.text
    assert "difference × 10" in page.text
    assert sum(link.startswith("data:image/png") for link in page.links) == 6 * 3 + 4
    assert page.text.index("samples after epoch 80") < page.text.index("Bits per dimension")  # pictures, then tables
    assert {"#parts", "#cost", "#words"} - set(page.links) == {"#parts"}  # there is no ensemble here
    assert sum(link.startswith("data:image/svg") for link in page.links) == 3 * 2


def test_the_same_records_give_the_same_page(results):
    assert report(results, "html") == report(results, "html")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_text_holds_every_number_at_every_width_and_no_control_character(results, width):
    output = text(Content(load_results(results)), width=width, colour=False)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", output)
    assert "failed" in output
    assert "void" in output
    assert max(map(len, output.splitlines())) <= width
    assert "95.0 %" in output


def test_text_has_colour_only_where_asked(results):
    assert "\x1b[" in text(Content(load_results(results)), width=100, colour=True)


def test_markdown_tables_hold_hostile_names_in_their_cells(results):
    output = report(results, "markdown")
    assert "<script>" not in output
    for line in (line for line in output.splitlines() if line.startswith("|")):
        bars = len(re.findall(r"(?<!\\)\|", line))
        assert bars >= 3
    assert "**failed**" in output
    assert "\n## boo" not in output


def test_escape_is_one_line():
    assert escape("a|b\n<i>*") == r"a\|b &lt;i&gt;\*"


def test_csv_is_one_line_a_record_with_numbers(results):
    rows = list(csv.DictReader(io.StringIO(report(results, "csv"))))
    assert len(rows) == 6
    pgd = next(row for row in rows if row["eps"] == "2/255")
    assert float(pgd["robust_accuracy"]) == 0.5
    assert pgd["attack"] == "pgd"
    assert pgd["attack.steps"] == "10"
    assert next(row for row in rows if row["status"] == "failed")["robust_accuracy"] == ""


def test_json_is_the_records_in_one_list(results):
    listed = json.loads(report(results, "json"))
    assert {record["id"] for record in listed} == {path.stem for path in (results / "cells").iterdir()}
    by_id = {record["id"]: record for record in listed}
    absent = {"parts": [], "adapted": {}, "distances": None, "predictions": None}  # left out where they are empty
    for path in (results / "cells").iterdir():
        assert absent | by_id[path.stem] == absent | json.loads(path.read_text())


def test_text_writes_page_and_markdown_beside_the_records_and_says_where(results):
    output = report(results)
    assert output.rstrip().endswith(f"{results / 'report.html'}\n{results / 'report.md'}")
    assert (results / "report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("fmt", FORMATS)
def test_output_goes_where_it_is_asked_to(results, tmp_path, fmt):
    target = tmp_path / "out" / "report"
    assert target.parent.exists() is False
    output = report(results, fmt, target)
    assert target.read_text() == output
    assert not (results / "report.html").exists()


def test_bad_input_is_one_clear_message(results, tmp_path):
    with pytest.raises(InputError, match="did you mean 'html'"):
        report(results, "htm")
    with pytest.raises(InputError, match="epsbench run SUITE"):
        report(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no records"):
        report(tmp_path / "empty")
    with pytest.raises(InputError, match="--output"):
        report(results, "csv", tmp_path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"task": "poetry"}, "cell.task"),
        ({"eps": "1/0"}, "cell.eps"),
        ({"eps": 0.1}, "cell.eps"),
        ({"attack": "pgd"}, "cell.attack"),
        ({"seed": [1]}, "cell.seed"),
        ({"model": {}}, "cell.model"),
    ],
)
def test_a_record_of_no_known_cell_is_named(tmp_path, cell, message):
    record = factory.robustness(CLEAN, CLEAN)
    record = factory.of_cell(record, record.cell | cell)
    factory.write(tmp_path, record)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        report(tmp_path, "csv")
    assert str(record_path(tmp_path, record.id)) in str(caught.value)


@pytest.mark.parametrize(
    "arrays",
    [{}, pictures() | {"original": np.zeros(3)}, {k: v for k, v in pictures().items() if k != "fooled"}],
)
def test_pictures_that_are_gone_or_wrong(tmp_path, arrays):
    record = factory.robustness(CLEAN, CLEAN, pictures=True)
    factory.write(tmp_path, record, pictures={record.id: arrays} if arrays else None)
    if not arrays:
        assert "Adversarial examples" not in Page(report(tmp_path, "html")).text
        return
    with pytest.raises(InputError, match="npz"):
        report(tmp_path, "html")


def test_superseded_records_are_left_out_and_counted(tmp_path):
    old = factory.robustness(CLEAN, CLEAN, code={"attack": "1"}, started="2025")
    new = factory.robustness(CLEAN, ~CLEAN, code={"attack": "2"}, started="2026")
    kept = load_results(factory.write(tmp_path, new, old))
    assert kept.current == (new,)
    assert kept.superseded == (old,)
    assert "1 record of earlier code or weights left out" in " ".join(Content(kept).reading)


@pytest.mark.parametrize("part", ["content", "weights", "model", "defense", "start"])
def test_a_model_that_has_changed_leaves_no_cell_behind(tmp_path, part):
    """One row must not have an earlier model's accuracy at one ε, or under one attack, beside a later one's."""
    versions = {"attack": "1", "model": "1"}
    old = versions | {part: "old"}
    before = [factory.robustness(CLEAN, CLEAN, code=old, started="2025", eps=eps) for eps in ("0.1", "0.2")]
    after = factory.robustness(CLEAN, ~CLEAN, code=versions | {part: "new"}, started="2026", eps="0.1")
    other = factory.robustness(CLEAN, CLEAN, code=old, started="2025", seed=1)
    kept = load_results(factory.write(tmp_path, *before, after, other))
    assert {record.id for record in kept.current} == {after.id, other.id}
    assert {record.id for record in kept.superseded} == {record.id for record in before}


def test_a_changed_attack_leaves_the_other_cells_of_its_model(tmp_path):
    versions = {"attack": "1", "model": "1"}
    old, other = (factory.robustness(CLEAN, CLEAN, code=versions, started="2025", eps=eps) for eps in ("0.1", "0.2"))
    new = factory.robustness(CLEAN, ~CLEAN, code=versions | {"attack": "2"}, started="2026", eps="0.1")
    kept = load_results(factory.write(tmp_path, old, other, new))
    assert {record.id for record in kept.current} == {other.id, new.id}


def test_names_show_the_parameters_that_tell_uses_apart():
    cells = [
        {"task": "x", "attack": {"name": "pgd", "steps": s, "size": 0.1, "start": b}} for s, b in ((10, 1), (10, 2))
    ]
    names = Names(cells)
    assert names.label("attack", cells[0]["attack"]) == "pgd(steps=10, start=1)"
    assert names.label("attack", {"name": "fgsm", "steps": 1}) == "fgsm"


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ({"name": "resnet18", "width": 64}, "resnet18"),
        ({"name": "resnet18", "width": 8}, "resnet18(width=8)"),
        ({"name": "smallcnn", "width": 16, "hidden": 50}, "smallcnn(hidden=50)"),
        ({"name": "mine.py:Model", "width": 8}, "mine.py:Model"),
    ],
)
def test_a_model_that_is_not_what_its_name_stands_for_says_so(model, label):
    assert Names([{"task": "x", "model": model}]).label("model", model) == label


def test_reading_a_report_never_imports_torch(results):
    code = f"""
import sys, pathlib
from epsbench.harness.report.gates import check, compare
from epsbench.harness.report.build import report
report(pathlib.Path({str(results)!r}))
assert "torch" not in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
