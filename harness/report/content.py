"""What every written format tells, gathered once and in one order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from epsbench.harness.report.cost import cost_table
from epsbench.harness.report.generative.settings import Setting, settings
from epsbench.harness.report.generative.tables import GenerativeTables, generative_tables
from epsbench.harness.report.leaderboard import Board, boards
from epsbench.harness.report.movement import movement_tables
from epsbench.harness.report.reading import reading
from epsbench.harness.report.results import Results
from epsbench.harness.report.table import Table
from epsbench.harness.report.tables import cells_table, environment_table, findings_table, leaderboard_table
from epsbench.harness.report.training_cost import training_table
from epsbench.harness.report.transfer import Matrix, matrices, transfer_table
from epsbench.harness.report.units import enumerate_words


@dataclass(frozen=True)
class Content:
    """A report before it has a format."""

    results: Results

    @property
    def title(self) -> str:
        """The suite the records come from and what it asks, the names of several, or the folder's name."""
        asked = self.results.questions
        named = [": ".join(filter(None, words)) for words in asked.items()] if len(asked) == 1 else list(asked)
        return enumerate_words(named) or self.results.folder.resolve().name

    @cached_property
    def boards(self) -> list[Board]:
        return boards(self.results)

    @cached_property
    def movements(self) -> list[Table]:
        return movement_tables(self.boards, self.results)

    @cached_property
    def matrices(self) -> list[Matrix]:
        """What images made on one model do to another, an attack at a time."""
        return matrices(self.results)

    @cached_property
    def transfers(self) -> list[Table]:
        return [transfer_table(matrix) for matrix in self.matrices]

    @cached_property
    def cost(self) -> Table | None:
        return cost_table(self.results)

    @cached_property
    def training_cost(self) -> Table | None:
        return training_table(self.boards)

    @cached_property
    def settings(self) -> list[Setting]:
        """The generative models, seeds together."""
        return settings(self.results)

    @cached_property
    def generative(self) -> GenerativeTables:
        return generative_tables(self.settings)

    @cached_property
    def reading(self) -> list[str]:
        return reading(self.results, self.boards, self.matrices, self.settings)

    @cached_property
    def tables(self) -> list[Table]:
        """The tables of the short formats, in the order of reading."""
        leaderboards = [leaderboard_table(board) for board in self.boards]
        last = [self.cost, self.training_cost, *self.generative.all, findings_table(self.results)]
        return [*leaderboards, *self.movements, *self.transfers, *(table for table in last if table is not None)]

    @cached_property
    def details(self) -> list[Table]:
        """The tables that are looked up rather than read."""
        environment = environment_table(self.results)
        return ([environment] if environment else []) + [cells_table(self.results)]
