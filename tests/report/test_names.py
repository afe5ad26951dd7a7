"""Names with markup, of any length, in every format and width."""

from __future__ import annotations

import factory
import pytest

from epsbench.harness.report.build import FORMATS
from epsbench.harness.report.content import Content
from epsbench.harness.report.formats.text import text
from epsbench.harness.report.results.loading import load_results

MARKUP = "[bold]x[/bold] [/red] :smile: $a_b$ <b>\u202e\x1b[31m"
LONG = "a_very_long_name_" * 15


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> Content:
    right = [True] * 9
    records = [
        factory.robustness(right, right, model={"name": "smallcnn", "note": note}, eps=eps, suite="[bold]s")
        for note in (MARKUP, LONG)
        for eps in ("0.1", "0.2")
    ]
    records.append(factory.failed("[/bold] boom", model={"name": LONG + MARKUP}))
    records.append(factory.generation(0.5, model={"name": "vae", "note": MARKUP}, epochs=2))
    return Content(load_results(factory.write(tmp_path_factory.mktemp("names"), *records)))


@pytest.mark.parametrize("fmt", sorted(FORMATS.keys() - {"csv", "json"}))  # these hold values, not texts
def test_every_format_is_written_without_control_characters(content, fmt):
    written = FORMATS[fmt](content)
    assert "\x1b" not in written
    assert "\u202e" not in written


@pytest.mark.parametrize("width", [20, 40, 80, 120, 300])
@pytest.mark.parametrize("colour", [False, True])
def test_text_fits_any_width_and_interprets_no_markup(content, width, colour):
    written = text(content, width=width, colour=colour)
    if not colour:
        assert max(map(len, written.splitlines())) <= width
    if width == 300 and not colour:
        assert MARKUP.partition("<b>")[0] in written


def test_a_part_of_a_model_is_named_with_its_parameters(tmp_path):
    model = {"name": "vae", "encoder": {"name": "mine.py:Encoder", "hidden": 16}, "prior": "mine.py:Laplace"}
    other = model | {"encoder": {"name": "mine.py:Encoder", "hidden": 32}}
    records = [factory.generation(0.5, model=each, epochs=2) for each in (model, other)]
    written = text(Content(load_results(factory.write(tmp_path, *records))), width=300)
    assert "encoder=mine.py:Encoder(hidden=16)" in written
    assert '{"' not in written
