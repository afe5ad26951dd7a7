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
    pages = content_pages(Content(load_results(factory.write(folder / "results", record))), {})
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
    at = texts.index("smallcnn", texts.index("Robust accuracy on mnist, L∞"))
    assert texts[at : at + 5] == ["smallcnn", "1", "95.0 %", "[91.0, 97.3]", "50.0 %"]
    attacks = texts.index("fgsm")
    assert texts[attacks : attacks + 3] == ["fgsm", "50.0 %", "0.0"]
    [page] = (out / "attacks").glob("fgsm-*.html")
    assert "50.0 %" in Page(page).texts
    models = ["".join(Page(path).texts) for path in (out / "models").glob("smallcnn-*.html")]
    assert any("<b>odd</b>" in text for text in models)


def test_the_best_model_of_each_folder_stands_before_everything_else(tmp_path):
    attacks = ({"name": "fgsm"}, {"name": "pgd", "random_start": False, "restarts": 1, "steps": 10})
    one = [keeping(images + 5 * (attack["name"] == "fgsm"), attack=attack, defense={"name": name}, eps="8/255")
           for images, name in ((20, "none"), (100, "trades")) for attack in attacks]  # fmt: skip
    two = keeping(50, data="cifar10")
    folders = [factory.write(tmp_path / "one", *one), factory.write(tmp_path / "two", two)]
    publish(folders, tmp_path / "site")
    page = Page(tmp_path / "site" / "index.html")
    texts = [text.strip() for text in page.texts if text.strip()]
    first, second = texts.index("best on mnist, L∞ ε = 8/255"), texts.index("best on cifar10, L∞ ε = 0.3")
    shown = texts[first:second]
    assert shown[1:4] == ["smallcnn + trades", "worst case", "50.0 % [43.1, 56.9]"]
    assert shown[shown.index("ahead by") + 1].startswith("+40.0 points [+32.8, +46.4] over smallcnn")
    assert shown[shown.index("is it certain?") + 1] == "certain: the interval lies above 0"
    assert shown[shown.index("attack") + 1] == "worst case of fgsm and pgd(steps=10)"
    assert shown[shown.index("it took") + 1].endswith("of attacks")
    assert shown[-1] == str(folders[0])
    assert texts[second + 1] == "smallcnn"
    assert second < texts.index("Robust accuracy on mnist, L∞")
    assert page.tags.index("dl") < page.tags.index("table")


def test_the_best_models_at_other_eps_are_folded_and_lead_to_their_report(tmp_path):
    records = [keeping(images, eps=eps, defense={"name": name}) for images, name in ((100, "none"), (20, "trades"))
               for eps in ("2/255", "8/255")]  # fmt: skip
    publish([factory.write(tmp_path / "results", *records)], tmp_path / "site")
    page = Page(tmp_path / "site" / "index.html")
    assert page.tags.count("details") == 1
    texts = [text.strip() for text in page.texts if text.strip()]
    at = texts.index("mnist, L∞ ε = 2/255")
    assert texts[at + 1 : at + 4] == [str(tmp_path / "results"), "smallcnn", "50.0 % [43.1, 56.9]"]
    assert "8/255" in texts[texts.index("The best models") + 1]


def test_a_title_of_many_suites_says_how_many(tmp_path):
    records = [keeping(100 + seed, seed=seed, suite=f"suite-{seed}") for seed in range(5)]
    publish([factory.write(tmp_path / "results", *records)], tmp_path / "site")
    assert "5 suites on mnist" in Page(tmp_path / "site" / "index.html").texts


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


def watched(monkeypatch, folders, out, *changes) -> list[str]:
    """What `watch` says while these changes are made, one before each look, until it is interrupted."""
    lines, waiting = [], list(changes)

    def sleep(_: float) -> None:
        if not waiting:
            raise KeyboardInterrupt
        waiting.pop(0)()

    monkeypatch.setattr(build.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watch(folders, out, 1.0, lines.append)
    return lines


def test_watching_several_folders_publishes_those_that_have_records(tmp_path, monkeypatch):
    folders, out = [tmp_path / "one", tmp_path / "two"], tmp_path / "site"
    lines = watched(
        monkeypatch, folders, out,
        lambda: factory.write(folders[0], keeping(120)),
        lambda: factory.write(folders[1], keeping(20, defense={"name": "trades"})),
    )  # fmt: skip
    assert lines[0] == f"waiting: no records yet in {folders[0]} and {folders[1]}"
    assert lines[1].startswith(f"{out / 'index.html'}: ")
    assert lines[2] == f"waiting: no records yet in {folders[1]}"
    assert len(lines) == 4
    assert len(list((out / "models").iterdir())) == 2


def test_a_record_that_goes_away_while_it_is_looked_at_does_not_end_the_watch(tmp_path, monkeypatch):
    factory.write(tmp_path / "results", keeping(120), keeping(20, defense={"name": "trades"}))
    first, second = sorted((tmp_path / "results" / "cells").iterdir())
    look = Path.stat

    def stat(path: Path, **options: bool):
        if path == second:
            second.unlink(missing_ok=True)
        return look(path, **options)

    def once() -> None:
        monkeypatch.setattr(Path, "stat", stat)

    lines = watched(monkeypatch, [tmp_path / "results"], tmp_path / "site", once)
    assert len(lines) == 2, lines
    assert first.exists()
    assert len(list((tmp_path / "site" / "models").iterdir())) == 1


def test_a_file_that_stays_the_same_is_not_written_again(tmp_path, folders):
    out = tmp_path / "site"
    files = publish(folders, out)
    written = {path: path.stat().st_mtime_ns for path in files}
    assert publish(folders, out) == files
    assert {path: path.stat().st_mtime_ns for path in files} == written
    factory.write(folders[0], keeping(60, eps="8/255", defense={"name": "n-fgsm"}))
    publish(folders, out)
    changed = {path.relative_to(out).as_posix() for path in files if path.stat().st_mtime_ns != written[path]}
    assert "index.html" in changed
    assert "style.css" not in changed


def test_a_folder_that_cannot_be_written(tmp_path, folders):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .* choose another --out"):
        publish(folders, tmp_path / "file")
