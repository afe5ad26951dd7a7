"""The one exception that reaches a user as a message and not as a traceback."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave cannot be used: a suite, a name, a file, a folder.

    Every message names where (file and key), what is wrong, and what would be right.
    The command line prints the messages, one a line, and exits with 2.
    """

    def __init__(self, messages: str | Iterable[str]) -> None:
        self.messages: tuple[str, ...] = (messages,) if isinstance(messages, str) else tuple(messages)
        super().__init__("\n".join(self.messages))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'pgd'?"`` for a near miss, else ``"; known: fgsm, noise, pgd"``."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
