"""Everybody can read and reach a page: contrast as the browser paints it, names, order of focus, headings."""

from __future__ import annotations

from pathlib import Path

import factory
import numpy as np
import pytest
from browser import chromium, opened

from epsbench.harness.records.predictions import Answers, Predictions
from epsbench.harness.report.build import report
from epsbench.harness.report.site.build import publish

PROBLEMS = (Path(__file__).parent / "accessibility.js").read_text(encoding="utf-8")
N = 200
LABELS = np.arange(N) % 4
NAMED = {"button", "link", "textbox", "searchbox", "combobox", "checkbox", "image", "region", "dialog", "navigation"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models, three attacks, a failed and a void cell, classes."""
    out = tmp_path_factory.mktemp("results")
    clean, records = np.arange(N) < 190, []
    for width in (1, 2):
        for attack, fooled in (({"name": "fgsm"}, 60), ({"name": "pgd", "steps": 10}, 120), ({"name": "noise"}, 5)):
            for eps in ("2/255", "8/255"):
                model = {"name": "smallcnn", "width": width}
                robust = clean & (np.arange(N) >= fooled * width * (1 if eps == "8/255" else 0.5))
                record = factory.robustness(clean, robust, model=model, attack=attack, eps=eps)
                seen = [np.where(bits, LABELS, (LABELS + 1) % 4) for bits in (clean, robust)]
                answers = Answers(LABELS, *seen, *np.random.default_rng(0).uniform(0.3, 1, (2, N)))
                records.append(record.model_copy(update={"predictions": Predictions.pack(answers, 4)}))
    void = factory.void(clean, clean, model={"name": "mlp"}, eps="8/255")
    return factory.write(out, *records, void, factory.failed(model={"name": "cnn"}, eps="8/255"))


@pytest.fixture(scope="module")
def pages(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("pages")
    report(folder, "html", out / "report.html")
    publish([folder], out / "site")
    models = sorted((out / "site" / "models").glob("*.html"))
    names = ("index", "attacks", "history", "reports")
    return [out / "report.html", *(out / "site" / f"{name}.html" for name in names), models[0]]


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_everything_can_be_read_and_has_its_place(browser, pages, width, scheme):
    for path in pages:
        with opened(browser, path, width=width) as page:
            page.emulate_media(color_scheme=scheme)
            page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
            problems = {what: which for what, which in page.evaluate(PROBLEMS).items() if which}
            assert not problems, path.name


def test_what_answers_to_keys_has_a_name_for_a_screen_reader(browser, pages):
    for path in pages:
        with opened(browser, path) as page:
            tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
            nodes = [node for node in tree if not node.get("ignored")]
            unnamed = [
                node for node in nodes
                if node["role"]["value"] in NAMED and not node.get("name", {}).get("value", "").strip()
            ]  # fmt: skip
            assert not unnamed, path.name
            assert sum(node["role"]["value"] in NAMED for node in nodes) > 3


def test_the_focus_goes_down_the_page_and_can_be_seen(browser, pages):
    """Each press of Tab goes to a later element of the document, which is visible and has an outline."""
    look = """() => {
        const at = document.activeElement;
        const style = getComputedStyle(at);
        const before = window.before;
        window.before = at;
        const box = at.getBoundingClientRect();
        return {
            body: at === document.body,
            later: !before || before === document.body || Boolean(before.compareDocumentPosition(at) & 4),
            outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
            seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
            name: at.outerHTML.slice(0, 90),
        };
    }"""
    for path in pages:
        with opened(browser, path) as page:
            stops = 0
            for _ in range(45):
                page.keyboard.press("Tab")
                stop = page.evaluate(look)
                if stop["body"]:
                    break
                stops += 1
                assert (stop["later"], stop["outline"], stop["seen"]) == (True, True, True), (path.name, stop["name"])
            assert stops >= 4


def test_a_cell_takes_the_focus_and_gives_it_back(browser, pages):
    with opened(browser, pages[0]) as page:
        link = page.locator("a.cell").first
        link.focus()
        page.keyboard.press("Enter")
        dialog = page.locator("dialog[open]")
        dialog.wait_for()
        assert dialog.evaluate("(dialog) => dialog.contains(document.activeElement)")
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        assert link.evaluate("(link) => link === document.activeElement")
