"""All tables of a report as one file that a paper includes."""

from __future__ import annotations

from collections.abc import Sequence

from epsbench.harness.latex import DEFINITION, PACKAGES
from epsbench.harness.report.drawing.table import Table
from epsbench.harness.report.formats.latex.leaderboard import leaderboard_tables
from epsbench.harness.report.formats.latex.tables import plain_table
from epsbench.harness.report.robustness.leaderboard import Board

SETUP = r"\sisetup{separate-uncertainty=true,table-align-uncertainty=false,detect-weight=true}"
HEAD = f"""% Tables of epsbench, for \\input. In the preamble:
%   {PACKAGES}\\usepackage{{array}}
% pdfLaTeX shows characters that its fonts lack by their numbers; LuaLaTeX and XeLaTeX show them as they are.
{DEFINITION}
{SETUP}"""


def latex(boards: Sequence[Board], tables: Sequence[Table]) -> str:
    """The leaderboards, one table an ε, then the other tables of the report."""
    parts = [HEAD]
    parts += [table for board in boards for table in leaderboard_tables(board)]
    parts += [plain_table(table) for table in tables if table.rows]
    return "\n\n".join(parts) + "\n"
