"""The one exception that reaches a user as a message and not as a traceback."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave cannot be used: a suite, a name, a file, a folder.

    Every message names where (file and key), what is wrong, and what would be right.
    The command line prints the messages, one a line, and exits with 2. What is not printable in them, such as a
    terminal's escapes in a file's keys, is escaped.
    """

    def __init__(self, messages: str | Iterable[str]) -> None:
        self.messages: tuple[str, ...] = tuple(map(printable, [messages] if isinstance(messages, str) else messages))
        super().__init__("\n".join(self.messages))


def printable(text: str) -> str:
    """The text on one line, with ``\\x1b`` and the like for what a terminal would act on."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'pgd'?"`` for a near miss, else ``"; known: fgsm, noise, pgd"``."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
