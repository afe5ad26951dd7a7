"""The sentences that open a report. They repeat numbers of the tables and add none."""

from __future__ import annotations

from collections.abc import Sequence

from epsbench.harness.report.generative.sentences import generative_sentences
from epsbench.harness.report.generative.settings import Setting
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import plural
from epsbench.harness.report.robustness.contrasts import contrast_sentences
from epsbench.harness.report.robustness.leaderboard import Board
from epsbench.harness.report.robustness.sentences import board_sentences, one_step_sentences
from epsbench.harness.report.robustness.transfer import Matrix, transfer_sentences


def reading(
    results: Results, leaderboards: list[Board], matrices: Sequence[Matrix], models: Sequence[Setting]
) -> list[str]:
    """A few short paragraphs: what was measured, which model is the most robust, and what failed or is missing."""
    questions = results.questions
    paragraphs = [[f"{name}: {text}"] for name, text in questions.items() if text and len(questions) > 1]
    for board in leaderboards:
        paragraphs += [board_sentences(board), contrast_sentences(board), one_step_sentences(board)]
    paragraphs += [*transfer_sentences(matrices), *generative_sentences(models), _status(results)]
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def _status(results: Results) -> list[str]:
    counts = {state: sum(record.status == state for record in results.current) for state in ("failed", "void")}
    sentences = [f"{plural(count, 'cell')} {state}." for state, count in counts.items() if count]
    warnings = sum(f.severity == "warning" for record in results.current for f in record.findings)
    if warnings:
        sentences.append(f"The audits raised {plural(warnings, 'warning')}.")
    if results.conflicts:
        sentences.append(
            f"{plural(len(results.conflicts), 'cell')} measured differently in several folders; the newest record of "
            "each is shown."
        )
    if results.superseded:
        sentences.append(f"{plural(len(results.superseded), 'record')} of earlier code or weights left out.")
    return sentences or [f"{plural(len(results.current), 'cell')} measured, none failed or void."]
