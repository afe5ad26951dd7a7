"""The content of a report, computed once and in one order for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from epsbench.harness.report.drawing.table import Table
from epsbench.harness.report.generative.settings import Setting, settings
from epsbench.harness.report.generative.tables import GenerativeTables, generative_tables
from epsbench.harness.report.overview import cells_table, environment_table, findings_table
from epsbench.harness.report.reading import reading
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import and_list
from epsbench.harness.report.robustness.attack_board import attack_tables
from epsbench.harness.report.robustness.classes import Seen, by_class_table, classes_table, seen
from epsbench.harness.report.robustness.corruptions import corruption_tables
from epsbench.harness.report.robustness.cost import cost_table
from epsbench.harness.report.robustness.distances import distances_table
from epsbench.harness.report.robustness.given import given_table
from epsbench.harness.report.robustness.leaderboard import Board, boards
from epsbench.harness.report.robustness.movement import movement_tables
from epsbench.harness.report.robustness.parts import parts_table
from epsbench.harness.report.robustness.tables import leaderboard_table
from epsbench.harness.report.robustness.training_cost import training_table
from epsbench.harness.report.robustness.transfer import Matrix, matrices, transfer_table

MOST_BY_CLASS = 6
"""Models whose classes are all shown."""


@dataclass(frozen=True)
class Content:
    """A report before it has a format."""

    results: Results
    """The records it is made from."""

    @property
    def title(self) -> str:
        """The suite with its description; of several suites their names; without a suite, the folder's name."""
        questions = self.results.questions
        named = (
            [": ".join(filter(None, texts)) for texts in questions.items()] if len(questions) == 1 else list(questions)
        )
        return and_list(named) or self.results.folder.resolve().name

    @cached_property
    def boards(self) -> list[Board]:
        """The leaderboards, one for every data set and norm."""
        return boards(self.results)

    @cached_property
    def movements(self) -> list[Table]:
        """The effect of the kind of ε curve, one table for every leaderboard that has several kinds."""
        return movement_tables(self.boards, self.results)

    @cached_property
    def corruptions(self) -> list[Table]:
        """The accuracy on corrupted images, one table a data set."""
        return corruption_tables(self.results)

    @cached_property
    def matrices(self) -> list[Matrix]:
        """Robust accuracy on images made on another model, one matrix an attack."""
        return matrices(self.results)

    @cached_property
    def transfers(self) -> list[Table]:
        """These matrices as tables."""
        return [transfer_table(matrix) for matrix in self.matrices]

    @cached_property
    def parts(self) -> Table | None:
        """What each part of an ensemble of attacks adds."""
        return parts_table(self.results)

    @cached_property
    def distances(self) -> Table | None:
        """The distribution of the smallest adversarial distances."""
        return distances_table(self.results)

    @cached_property
    def attacks(self) -> list[Table]:
        """The leaderboards of attacks, one for every data set and norm."""
        return attack_tables(self.boards)

    @cached_property
    def seen(self) -> list[Seen]:
        """What each model answers class by class, where records hold it."""
        return seen(self.boards)

    @cached_property
    def classes(self) -> Table | None:
        """Least robust classes, confusion and calibration."""
        return classes_table(self.seen)

    @cached_property
    def cost(self) -> Table | None:
        """What an attack costs."""
        return cost_table(self.results)

    @cached_property
    def training_cost(self) -> Table | None:
        """What training a classifier costs."""
        return training_table(self.boards)

    @cached_property
    def settings(self) -> list[Setting]:
        """The generative models, the seeds of each together."""
        return settings(self.results)

    @cached_property
    def generative(self) -> GenerativeTables:
        """The tables of the generative models."""
        return generative_tables(self.settings)

    @cached_property
    def reading(self) -> list[str]:
        """The opening paragraphs."""
        return reading(self.results, self.boards, self.matrices, self.settings)

    @cached_property
    def tables(self) -> list[Table]:
        """The tables of text and Markdown, in the order of reading."""
        leaderboards = [leaderboard_table(board) for board in self.boards]
        leaderboards += self.corruptions
        last = [
            self.distances,
            *self.attacks,
            self.parts,
            self.classes,
            self.cost,
            self.training_cost,
            *self.generative.all,
            given_table(self.results),
            findings_table(self.results),
        ]
        return [*leaderboards, *self.movements, *self.transfers, *(table for table in last if table is not None)]

    @cached_property
    def details(self) -> list[Table]:
        """The tables for reference: the environment, all cells, and every class of the first models."""
        environment = environment_table(self.results)
        by_class = [by_class_table(model) for model in self.seen[:MOST_BY_CLASS]]
        return [*([environment] if environment else []), cells_table(self.results), *by_class]
