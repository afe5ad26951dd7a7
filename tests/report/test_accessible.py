"""Everybody can read and reach a page: contrast as the browser paints it, names, order of focus, headings."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

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
    picture = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    kept = {
        "original": picture, "adversarial": np.clip(picture + 0.1, 0, 1), "labels": np.arange(4),
        "predicted": np.arange(4) + 1, "fooled": np.full(4, True), "scores_before": np.eye(4),
        "scores_after": np.eye(4),
    }  # fmt: skip
    records[-1] = records[-1].model_copy(update={"pictures": True})
    void = factory.void(clean, clean, model={"name": "mlp"}, eps="8/255")
    failed = factory.failed(model={"name": "cnn"}, eps="8/255")
    return factory.write(out, *records, void, failed, pictures={records[-1].id: kept})


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


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, which the pages' own policy keeps out: it is evaluated from outside."""
    reason = "axe-core is not installed: pip install axe-playwright-python"
    package = pytest.importorskip("axe_playwright_python", reason=reason)
    return (files(package) / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Any, axe: str) -> list[str]:
    """Every rule of axe-core that the page breaks, best practices included, with the elements."""
    page.evaluate(axe)
    broken = page.evaluate("axe.run(document, { resultTypes: ['violations'], preload: false })")["violations"]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in broken for node in rule["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_axe_finds_nothing(browser, pages, axe, width, scheme):
    for path in pages:
        with opened(browser, path, width=width) as page:
            page.emulate_media(color_scheme=scheme)
            page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
            assert not violations(page, axe), path.name


def test_axe_finds_nothing_in_an_open_cell(browser, pages, axe):
    with opened(browser, pages[0]) as page:
        page.locator("a.cell").first.click()
        assert not violations(page, axe)


def tree(page: Any) -> list[dict[str, Any]]:
    """What a screen reader is given: Chromium's accessibility tree without what it leaves out."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    return [node for node in nodes if not node.get("ignored")]


def role(node: dict[str, Any]) -> str:
    return str(node["role"]["value"])


def name(node: dict[str, Any]) -> str:
    return str(node.get("name", {}).get("value", ""))


def test_a_screen_reader_finds_landmarks_tables_and_heads(browser, pages):
    for path in pages:
        with opened(browser, path) as page:
            nodes = tree(page)
            roles = [role(node) for node in nodes]
            for landmark in ("banner", "main", "contentinfo"):
                assert roles.count(landmark) == 1, (path.name, landmark)
            assert roles.count("navigation") == 1
            tables = [name(node) for node in nodes if role(node) == "table"]
            assert all(tables), path.name
            assert len(tables) == len(set(tables)), path.name
            numbers = page.evaluate(
                """() => [...document.querySelectorAll("tbody tr")].filter((row) => row.checkVisibility()
                     && row.querySelector("td.number") && !row.querySelector("th[scope=row]"))
                     .map((row) => row.textContent.trim().slice(0, 60))"""
            )
            assert not numbers, path.name


def test_heads_are_read_without_the_arrows_that_show_their_order(browser, pages):
    with opened(browser, pages[0]) as page:
        buttons = [name(node) for node in tree(page) if role(node) == "button"]
        assert "worst case, ε 8/255" in buttons
        assert not [text for text in buttons if set(text) & set("↕↑↓")]
        head = page.locator("table.board").first.locator("th[data-name='worst case, ε 8/255']")
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "descending"


def test_the_first_press_of_tab_leads_past_the_head(browser, pages):
    for path in pages:
        with opened(browser, path) as page:
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "skip", path.name
            page.keyboard.press("Enter")
            page.keyboard.press("Tab")
            behind = "document.querySelector('header').contains(document.activeElement)"
            assert not page.evaluate(behind), path.name


def test_an_open_cell_keeps_the_focus(browser, pages):
    """Tab goes round in the dialog, or to the browser's own window, and never to the page behind it."""
    with opened(browser, pages[0]) as page:
        page.locator("a.cell").first.click()
        [dialog] = [node for node in tree(page) if role(node) == "dialog"]
        assert name(dialog) == page.locator("#cell-name").inner_text()
        for key in ["Tab"] * 12 + ["Shift+Tab"] * 12:
            page.keyboard.press(key)
            assert page.evaluate(
                "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
            )


def spoken(page: Any) -> str:
    """The texts of all live regions."""
    return " | ".join(text for text in page.locator("[role=status]").all_text_contents() if text.strip())


def test_what_changes_is_said(browser, pages):
    with opened(browser, pages[0]) as page:
        assert spoken(page) == ""
        page.locator("#choose-eps").select_option("2/255")
        assert "best on mnist, L∞ ε = 2/255: " in spoken(page)
        page.locator("#choose-eps").select_option("")
        table = page.locator("#details details").nth(1)
        table.locator("summary").first.click()
        table.locator("input[type=search]").fill("fgsm")
        assert "4 of " in spoken(page)
        chart = page.locator("svg.live").first
        chart.focus()
        page.keyboard.press("ArrowRight")
        assert "%" in spoken(page)
        assert "image " not in spoken(page)
        page.locator(".strip button").nth(2).click()
        assert "image 3: fooled" in spoken(page)


def test_the_pages_fit_narrow_windows_and_large_letters(browser, pages):
    """640 pixels are 1,280 at twice the size of letters, 320 at four times: nothing is cut or scrolls sideways."""
    for path in pages:
        for width in (320, 640):
            with opened(browser, path, width=width) as page:
                page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path.name, width)
        with opened(browser, path) as page:
            page.evaluate("document.documentElement.style.fontSize = '200%'")
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280, path.name


def test_nothing_moves_by_itself(browser, pages):
    moving = """() => [...document.querySelectorAll("*")].filter((element) => {
        const style = getComputedStyle(element);
        const changes = parseFloat(style.transitionDuration) > 0 || style.animationName !== "none";
        return changes || style.scrollBehavior === "smooth";
    }).length + document.getAnimations().length"""
    for path in pages:
        with opened(browser, path) as page:
            page.emulate_media(reduced_motion="reduce")
            assert page.evaluate(moving) == 0
