"""The exception for faulty input, whose messages the user sees without a traceback; and what her code may raise."""

from __future__ import annotations

from collections.abc import Iterable

FAILURES = (Exception, SystemExit)
"""What the user's code may end with: it may raise anything through no fault of epsbench, or even try to exit."""


class InputError(Exception):
    """Something that the user gave cannot be used: a suite, a name, a file, a folder.

    Every message says where the fault is (file and key), what is wrong, and what to write instead. The command line
    prints the messages, one a line, and exits with 2. Characters that are not printable, such as a terminal's escapes
    in a file's keys, are escaped.
    """

    def __init__(self, messages: str | Iterable[str]) -> None:
        self.messages: tuple[str, ...] = tuple(map(printable, [messages] if isinstance(messages, str) else messages))
        super().__init__("\n".join(self.messages))


def printable(text: str) -> str:
    """The text on one line. Control characters are written out, such as ``\\x1b`` for an escape."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; empty where it has none."""
    return str(error).splitlines()[0] if str(error) else ""


def summary(error: BaseException) -> str:
    """Type and first line of an exception."""
    return f"{type(error).__name__}: {first_line(error)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'pgd'?"`` when a known name is similar, else ``"; known: fgsm, noise, pgd"``."""
    from difflib import get_close_matches

    names = sorted(known)
    # Two letters that changed places are the likelier mistake: difflib finds "pdpgd" nearer to "pdg" than "pgd" is.
    turned = [other for other in names if other != name and sorted(other) == sorted(name)]
    same = [other for other in names if other.casefold() == name.casefold()]
    near = same or turned or get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
