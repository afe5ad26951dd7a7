"""LaTeX: names are set as they are, the tables have the records' numbers, and pdfLaTeX compiles all of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import factory
import numpy as np
import pytest
from hypothesis import given
from texts import HOSTILE, NAMES, read_back

from epsbench.harness.latex import PACKAGES, escape
from epsbench.harness.records import Part, pack_bits
from epsbench.harness.report.build import report
from epsbench.harness.report.content import Content
from epsbench.harness.report.exports.pgfplots import accuracy_plots
from epsbench.harness.report.formats.latex.leaderboard import best
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness.scores import Score

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
N = 400
CLEAN = np.arange(N) < 380
NEEDS_LATEX = pytest.mark.skipif(
    shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None
    or not subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True, text=True, check=False).stdout,
    reason="needs pdflatex with siunitx (Debian: texlive-latex-extra, texlive-science)",
)  # fmt: skip


def keeping(images: int, **axes: object):
    return factory.robustness(CLEAN, CLEAN & (np.arange(N) < images), **axes)


def compiled(folder: Path, body: str, engine: str = "pdflatex") -> str:
    """The text of the PDF that LaTeX makes of this body; any error fails."""
    preamble = f"\\documentclass{{article}}{PACKAGES}\\usepackage{{array,pgfplots}}\\usepgfplotslibrary{{fillbetween}}"
    lmodern = subprocess.run(["kpsewhich", "lmodern.sty"], capture_output=True, text=True, check=False).stdout
    preamble += r"\usepackage{lmodern}" if lmodern else ""
    source = f"{preamble}\\pgfplotsset{{compat=1.17}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (folder / "paper.tex").write_text(source, encoding="utf-8")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-2000:]
    if shutil.which("pdftotext") is None:
        pytest.skip("compiled; reading the PDF back needs pdftotext (Debian: poppler-utils)")
    done = subprocess.run(["pdftotext", "-raw", "paper.pdf", "-"], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode()


@given(NAMES)
def test_every_name_is_set_as_it_is(name):
    shown = name.replace("\n", " ").replace("\t", " ").replace("\xa0", " ")
    assert read_back(escape(name)) == shown
    assert read_back(escape(name, breakable=True)) == shown


def test_a_long_name_can_break():
    assert escape("n" * 200, breakable=True).count(r"\allowbreak{}") == 10
    assert r"\allowbreak" not in escape("n" * 200)


def scores(*values: tuple[float, float, float] | None) -> list[Score]:
    return [Score("failed") if value is None else Score("ok", *value) for value in values]


def test_bold_needs_intervals_that_separate():
    assert best(scores((0.5, 0.4, 0.6), (0.8, 0.7, 0.9))) == 1
    assert best(scores((0.6, 0.5, 0.71), (0.8, 0.7, 0.9))) is None
    assert best(scores((0.5, 0.4, 0.6), None, (0.8, 0.7, 0.9))) == 2
    assert best(scores((0.8, 0.7, 0.9))) is None
    bound = Score("ok", 0.8, 0.7, 0.9, bound=True, note="without pgd")
    assert best([*scores((0.5, 0.4, 0.6)), bound]) is None
    assert best(scores((0.5, 0.4, 0.6), (0.5, 0.4, 0.6))) is None


def test_the_table_has_the_records_numbers(tmp_path):
    strong = keeping(300, defense={"name": "trades", "beta": 6.0})
    weak = keeping(40)
    bad = factory.failed("no memory", defense={"name": "n-fgsm"})
    table = report(factory.write(tmp_path, strong, weak, bad), "latex").split(r"\end{table}")[0]
    assert r"smallcnn + trades & 95.0 +- 2.2 & \bfseries 75.0 +- 4.2" in table
    assert r"smallcnn & 95.0 +- 2.2 & 10.0 +- 3.0" in table
    assert re.search(r"smallcnn \+ n-fgsm & \{failed\} & \{failed\}", table)
    assert "400 test images" in table
    assert r"\usepackage{booktabs" not in table.replace("% ", "", 1).split("\n", 3)[3]


def test_an_ensemble_has_a_column_for_each_part(tmp_path):
    def ensemble(kept: tuple[int, int, int], **axes: object):
        parts = tuple(
            Part(
                name=name, robust_accuracy=factory.proportion(CLEAN & (np.arange(N) < left)), attacked=380,
                fooled=pack_bits(np.zeros(N, dtype=bool)), cost={"seconds": 60.0},
            ) for name, left in zip(("apgd-ce", "apgd-t", "square"), kept, strict=True)
        )  # fmt: skip
        record = keeping(kept[-1], attack={"name": "autoattack", "version": "standard"}, **axes)
        return record.model_copy(update={"parts": parts, "cost": {**record.cost, "seconds": 180.0}})

    records = [ensemble((200, 160, 120)), ensemble((300, 280, 260), defense={"name": "trades"})]
    table = report(factory.write(tmp_path, *records), "latex").split(r"\end{table}")[0]
    assert r"\multicolumn{3}{c}{autoattack}" in table
    assert r"\cmidrule(lr){3-5}" in table
    row = next(line for line in table.splitlines() if line.startswith("smallcnn &"))
    assert [cell.split(" +-")[0].strip() for cell in row.rstrip(" \\").split("&")] == [
        "smallcnn", "95.0", "50.0", "40.0", "30.0", "3.0",
    ]  # fmt: skip


def test_every_table_of_the_report_is_there():
    content = Content(load_results(REFERENCE / "mnist-autoattack"))
    text = report(REFERENCE / "mnist-autoattack", "latex")
    assert text.count(r"\caption{Robust accuracy on mnist") == 3
    for table in content.tables[len(content.boards) :]:
        assert escape(f"{table.title}.") in text


@NEEDS_LATEX
def test_it_compiles_with_every_hostile_name(tmp_path):
    records = [
        keeping(300 - 10 * at, model={"name": f"a{name}z"}, defense={"name": "none"}) for at, name in enumerate(HOSTILE)
    ]
    text = report(factory.write(tmp_path / "results", *records), "latex")
    shown = "".join(compiled(tmp_path, text).split())
    for text in ("a<script>alert('x')</script>z", "\\end{tabular}#~``--,,?`", "=1+1", "C:\\new_table", "U+05E9"):
        assert "".join(text.split()) in shown, text
    # A long name breaks over several lines, which lie between other columns.
    assert shown.count("n" * 15) >= 6


@NEEDS_LATEX
def test_the_reference_tables_and_plots_compile(tmp_path):
    folder = REFERENCE / "mnist-autoattack"
    text = report(folder, "latex", figures=tmp_path)
    pdfs = sorted(tmp_path.glob("*.pdf"))
    assert len(pdfs) == 12
    assert all(path.read_bytes().startswith(b"%PDF") for path in pdfs)
    plots = "\n\n".join(f"\\input{{{path.name}}}" for path in sorted(tmp_path.glob("*.tex")))
    figures = "\n\n".join(f"\\includegraphics[width=5cm]{{{path.name}}}" for path in pdfs)
    shown = compiled(tmp_path, f"{text}\n{plots}\n{figures}")
    assert re.search(r"smallcnn \+ pgd-batch\(steps=7\) .*98\.9 ± 0\.7 .*90\.5 ± 1\.8 .*86\.3 ± 2\.1", shown)


def test_the_data_of_a_plot_is_that_of_the_board():
    [board] = Content(load_results(REFERENCE / "mnist-autoattack")).boards
    lines = accuracy_plots(board)["accuracy-mnist-linf.dat"].decode().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    table = {name: [float(row[index]) for row in rows[1:]] for index, name in enumerate(rows[0])}
    assert table["eps"] == [0.0, *(pytest.approx(float(eps)) for eps, _ in board.eps)]
    for number, row in enumerate(board.rows, 1):
        values = [row.clean, *(row.worst[eps] for eps, _ in board.eps)]
        assert table[f"worst{number}"] == [pytest.approx(100 * score.value, rel=1e-4) for score in values]
        assert table[f"worst{number}.low"] == [pytest.approx(100 * score.low, rel=1e-4, abs=1e-4) for score in values]
