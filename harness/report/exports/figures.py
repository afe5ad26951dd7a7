"""The figures of a report as files for a paper: PDF, and the numbers of the curves for pgfplots."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.files import write_atomically
from epsbench.harness.report.content import Content
from epsbench.harness.report.drawing.illustration import Illustration
from epsbench.harness.report.drawing.style import LIGHT, as_pdf
from epsbench.harness.report.exports.pgfplots import accuracy_plots, training_plots
from epsbench.harness.report.generative.illustrations import latent_figures, likelihood_figures, training_figures
from epsbench.harness.report.robustness.attack_board import attack_figures
from epsbench.harness.report.robustness.class_figures import class_figures
from epsbench.harness.report.robustness.illustrations import price_figures, robustness_figures


def write_figures(content: Content, folder: Path) -> list[Path]:
    """Write every figure of a report as PDF, and accuracy over ε and training curves as pgfplots data and plots.

    Returns the files. Raises `InputError` where one cannot be written.
    """
    files = {f"{name}.pdf": pdf for name, pdf in _pdfs(content)}
    for board in content.boards:
        files |= accuracy_plots(board) | training_plots(board)
    for name, written in files.items():
        try:
            write_atomically(folder / name, written)
        except OSError as error:
            raise InputError(
                f"{folder / name}: cannot be written ({error.strerror or error}); choose another folder for --figures"
            ) from error
    return [folder / name for name in files]


def _pdfs(content: Content) -> Iterator[tuple[str, bytes]]:
    for number, figure in enumerate(_illustrations(content), 1):
        if figure.draw is not None:
            yield f"{number:02}-{slug(figure.title)}", as_pdf(partial(figure.draw, theme=LIGHT))


def _illustrations(content: Content) -> Iterator[Illustration]:
    yield from robustness_figures(content.boards)
    yield from price_figures(content.boards)
    yield from attack_figures(content.boards)
    yield from class_figures(content.seen)
    for figures in (likelihood_figures, latent_figures, training_figures):
        yield from figures(content.settings)


def slug(text: str, longest: int = 60) -> str:
    """A text as part of a file's name: lower-case ASCII letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("∞", "inf"))[:longest].strip("-") or "figure"
