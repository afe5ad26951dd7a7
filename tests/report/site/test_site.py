"""The site: every link is relative and leads to a file, names are shown as they are, history and watching work."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

import factory
import numpy as np
import pytest
from hypothesis import given, settings

from epsbench.harness.errors import InputError
from epsbench.harness.findings import Finding
from epsbench.harness.report.content import Content
from epsbench.harness.report.formats.html import html
from epsbench.harness.report.page import page_parts
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.results.units import visible
from epsbench.harness.report.site import build
from epsbench.harness.report.site.build import publish, watch
from epsbench.harness.report.site.pages import content_pages

sys.path.insert(0, str(Path(__file__).parents[1] / "exports"))

from texts import HOSTILE, NAMES

N = 200
CLEAN = np.arange(N) < 190


class Page(HTMLParser):
    """A page's links, its texts, and what it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given_attributes = dict(attributes)
        self.tags.append(tag)
        if tag == "a":
            self.links.append(given_attributes["href"])
        if tag == "link":
            self.loaded.append(given_attributes["href"])

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """The pages of whole folders are those of `epsbench report`: drawing them takes most of the time."""
    monkeypatch.setattr(build, "page_parts", lambda content: content)
    monkeypatch.setattr(build, "html", lambda content, hint: f"<p>{content.results.folder.name}</p>")


def keeping(images: int, **axes: object):
    return factory.robustness(CLEAN, CLEAN & (np.arange(N) < images), **axes)


@pytest.fixture
def folders(tmp_path):
    finding = Finding(code="off-grid", severity="warning", message="<b>odd</b>")
    one = [keeping(120, eps="8/255"), keeping(20, eps="8/255", defense={"name": "trades", "beta": 6.0}),
           keeping(100, eps="8/255", attack={"name": "fgsm"}, findings=(finding,))]  # fmt: skip
    two = [factory.generation(), *(keeping(50, data="cifar10", model={"name": name}) for name in HOSTILE)]
    return [factory.write(tmp_path / "one", *one), factory.write(tmp_path / "two", *two)]


def test_every_link_is_relative_and_leads_to_a_page_of_the_site(tmp_path, folders):
    out = tmp_path / "site"
    files = publish(folders, out)
    reached, waiting = set(), [out / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        if path.parent.name == "reports":
            continue
        page = Page(path)
        assert "script" not in page.tags
        for link in [*page.links, *page.loaded]:
            assert "://" not in link
            assert not link.startswith("/")
            if not link.startswith("#"):
                target = (path.parent / link).resolve()
                assert target.is_file(), link
                waiting += [target] if target.suffix == ".html" else []
    pages = {path for path in files if path.suffix == ".html"}
    assert reached == pages
    assert len(list((out / "models").iterdir())) == 2 + len(HOSTILE)
    assert len(list((out / "attacks").iterdir())) == 3  # two on one board, one on the other


def test_names_are_shown_as_they_are(tmp_path, folders):
    out = tmp_path / "site"
    publish(folders, out)
    shown = "".join(Page(out / "index.html").texts)
    titles = ["".join(Page(path).texts) for path in (out / "models").iterdir()]
    for name in HOSTILE:
        assert visible(name) in shown
        assert any(visible(name) in title for title in titles)


@settings(max_examples=30)
@given(NAMES)
def test_any_name_has_a_page(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("site")
    record = keeping(50, model={"name": name})
    pages = content_pages(Content(load_results(factory.write(folder / "results", record))))
    [page] = [page for page in pages if page.path.startswith("models/")]
    assert page.path.isascii()
    (folder / "page.html").write_text(build._rendered(page), encoding="utf-8", newline="")
    assert visible(name) in "".join(Page(folder / "page.html").texts)


def test_the_full_report_of_a_folder_is_part_of_the_site(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "page_parts", page_parts)
    monkeypatch.setattr(build, "html", html)
    publish([factory.write(tmp_path / "results", keeping(50, model={"name": "模型 $x$"}))], tmp_path / "site")
    [report] = (tmp_path / "site" / "reports").iterdir()
    assert "模型 $x$" in "".join(Page(report).texts)


def test_the_numbers_are_the_records(tmp_path, folders):
    out = tmp_path / "site"
    publish(folders, out)
    texts = [text for text in Page(out / "index.html").texts if text.strip()]
    at = texts.index("smallcnn")
    assert texts[at : at + 5] == ["smallcnn", "1", "95.0 %", "[91.0, 97.3]", "50.0 %"]
    attacks = texts.index("fgsm")
    assert texts[attacks : attacks + 3] == ["fgsm", "50.0 %", "0.0"]
    [page] = (out / "attacks").glob("fgsm-*.html")
    assert "50.0 %" in Page(page).texts
    models = ["".join(Page(path).texts) for path in (out / "models").glob("smallcnn-*.html")]
    assert any("<b>odd</b>" in text for text in models)


def test_history_shows_what_changed_over_commits(tmp_path):
    def at(images: int, commit: str, day: int, code: str):
        record = keeping(images, started=f"2026-01-{day:02}T00:00:00+00:00", code={"attack": code})
        return record.model_copy(update={"environment": {"git": {"commit": commit * 40, "dirty": commit == "b"}}})

    old = factory.write(tmp_path / "old", at(100, "a", 1, "1"))
    new = factory.write(tmp_path / "new", at(104, "b", 2, "2"), at(150, "c", 3, "3"))
    publish([new, old], tmp_path / "site")
    texts = [text for text in Page(tmp_path / "site" / "history.html").texts if text.strip()]
    assert [text for text in texts if text.rstrip("+") in ("a" * 10, "b" * 10, "c" * 10)] == [
        "a" * 10, "b" * 10 + "+", "c" * 10,
    ]  # fmt: skip
    assert "+2.0" in texts
    assert texts[texts.index("+23.0") + 1].strip() == "intervals apart"


def test_pages_of_models_that_are_gone_are_deleted(tmp_path, folders):
    out = tmp_path / "site"
    publish(folders, out)
    (out / "mine.html").write_text("kept")
    publish(folders[:1], out)
    assert len(list((out / "models").iterdir())) == 2
    assert len(list((out / "reports").iterdir())) == 1
    assert (out / "mine.html").read_text() == "kept"


def test_watching_waits_for_a_run_and_publishes_each_change(tmp_path, monkeypatch):
    results, out, lines, naps = tmp_path / "results", tmp_path / "site", [], []

    def sleep(_: float) -> None:
        naps.append(len(lines))
        if len(naps) == 1:
            factory.write(results, keeping(120))
        elif len(naps) == 3:
            factory.write(results, keeping(20, defense={"name": "trades"}))
        elif len(naps) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(build.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watch([results], out, 1.0, lines.append)
    assert lines[0].startswith("waiting: ")
    assert naps == [1, 2, 2, 3, 3], "one line for each change, none where nothing changed"
    assert len(list((out / "models").iterdir())) == 2


def test_a_folder_that_cannot_be_written(tmp_path, folders):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .* choose another --out"):
        publish(folders, tmp_path / "file")
