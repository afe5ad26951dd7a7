"""Every text has a contrast of 4.5, everything else that carries meaning one of 3 (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from contrast import ratio, variables

from epsbench.harness import report
from epsbench.harness.report.drawing.style import DARK, LIGHT, readable

FOLDER = Path(report.__file__).parent
PAGE = variables((FOLDER / "formats" / "page.css").read_text(encoding="utf-8"))
SITE = variables((FOLDER / "site" / "style.css").read_text(encoding="utf-8"))
TEXT, SHAPE = 4.5, 3.0
CONTROLS = ("accent", "control")
TEXTS = ("ink", "faint", "accent", "failed", "void", "warning", "robust")
LINES = tuple(f"c{index}" for index in range(7))
THEMES = ("light", "dark")


def test_the_ratio_is_that_of_the_standard():
    assert ratio("#000", "#ffffff") == pytest.approx(21)
    assert ratio("#777777", "#fff") == pytest.approx(4.478, abs=1e-3)
    assert ratio("#abcdef", "#abcdef") == 1


@pytest.mark.parametrize(("theme", "colour", "ground"), list(product(THEMES, TEXTS, ("paper", "raised"))))
def test_texts_of_the_page_can_be_read(theme, colour, ground):
    assert ratio(PAGE[theme][colour], PAGE[theme][ground]) >= TEXT


@pytest.mark.parametrize(("theme", "state"), list(product(THEMES, ("failed", "void"))))
def test_the_labels_of_failed_and_void_cells_can_be_read(theme, state):
    assert ratio(PAGE[theme][state], PAGE[theme][f"{state}-paper"]) >= TEXT


@pytest.mark.parametrize(("theme", "colour"), list(product(THEMES, (*CONTROLS, *LINES, "fill"))))
def test_curves_bars_and_the_borders_of_controls_can_be_seen(theme, colour):
    assert ratio(PAGE[theme][colour], PAGE[theme]["paper"]) >= SHAPE


@pytest.mark.parametrize(("theme", "colour"), list(product(THEMES, ("ink", "faint", "link", "bad", "warn"))))
def test_texts_of_the_site_can_be_read(theme, colour):
    assert ratio(SITE[theme][colour], SITE[theme]["paper"]) >= TEXT


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_figures_have_the_colours_of_the_page_and_labels_that_can_be_read(theme):
    page = PAGE[theme.name]
    assert theme.lines == tuple(page[name] for name in LINES)
    assert (theme.paper, theme.ink) == (page["paper"], page["ink"])
    for text in (theme.ink, theme.faint, *(readable(colour, theme.paper) for colour in theme.lines)):
        assert ratio(text, theme.paper) >= TEXT
    # A colour that can be read already stays.
    assert readable(theme.lines[0], theme.paper) == theme.lines[0]
