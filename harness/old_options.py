"""Options under the names that they had before: they still work, and a line says what to write. No torch."""

from __future__ import annotations

from collections.abc import Sequence

OLD_OPTIONS: dict[str, dict[str, str]] = {
    "run": {"--data": "--data-folder", "--weights": "--weights-folder"},
    "evaluate": {"--data-dir": "--data-folder"},
    "audit": {"--data-dir": "--data-folder"},
}
"""Verb → old option → new option. In `run` two options were folders that elsewhere name one thing."""


def renamed(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a command with today's options, and a line for each option that was written as before."""
    verb = next((each for each in arguments if not each.startswith("-")), "")
    old, now, lines = OLD_OPTIONS.get(verb, {}), list(arguments), []
    for position, argument in enumerate(arguments):
        if argument == "--":
            break
        option, equals, value = argument.partition("=")
        if option in old:
            now[position] = f"{old[option]}{equals}{value}"
            lines.append(f"{option} of {verb} is called {old[option]} now; the old name still works")
    return now, lines
