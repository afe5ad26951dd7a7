"""The command line: its verbs, and how a message ends it.

The verbs are short functions, which import what they need, so that ``--help`` stays fast.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from epsbench.harness.choices import EXAMPLES, show_version
from epsbench.harness.errors import InputError
from epsbench.harness.gate_verbs import check, compare
from epsbench.harness.list_verbs import list_, plan, schema, show
from epsbench.harness.migrations import print_warnings
from epsbench.harness.old_options import renamed
from epsbench.harness.report_verbs import describe, export, publish, report
from epsbench.harness.run.machine.streams import guard_streams
from epsbench.harness.run_verbs import audit, evaluate, run
from epsbench.harness.waiting import wait_passively

app = typer.Typer(
    help="Measure how classifiers withstand adversarial examples, and how well VAEs model images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for verb in (run, evaluate, show, plan, report, publish, export, describe, check, compare, audit, list_, schema):
    name = verb.__name__.rstrip("_")  # `list` is a built-in of Python
    app.command(name, epilog=EXAMPLES[name])(verb)


NO_MEMORY = ("failed to map segment", "annot allocate memory")
"""What the dynamic linker says where a library does not fit in memory."""


def main() -> None:
    """The console script. An `InputError` is printed without a traceback and ends with exit code 2."""
    wait_passively()
    guard_streams()
    print_warnings()
    arguments, renames = renamed(sys.argv[1:])
    for line in renames:
        print(f"epsbench: {line}", file=sys.stderr)
    try:
        app(arguments, prog_name="epsbench")  # also as `python -m epsbench`
    except InputError as error:
        for message in error.messages:
            print(f"epsbench: {message}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and not any(sign in str(error) for sign in NO_MEMORY):
            raise
        print(f"epsbench: out of memory{f' ({error})' if str(error) else ''}; finished cells are kept: free memory or "
              "raise its limit (`ulimit -v`), and the same command goes on from there", file=sys.stderr)  # fmt: skip
        sys.exit(2)


if __name__ == "__main__":
    main()
