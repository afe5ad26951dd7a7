"""What text and Markdown need of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from epsbench.harness.report.drawing.table import Table


class Document(Protocol):
    """A report before it has a format."""

    @property
    def title(self) -> str:
        """The headline."""

    @property
    def reading(self) -> Sequence[str]:
        """The opening paragraphs."""

    @property
    def tables(self) -> Sequence[Table]:
        """The tables, in the order of reading."""

    @property
    def details(self) -> Sequence[Table]:
        """The tables for reference, which Markdown folds away and text leaves out."""
