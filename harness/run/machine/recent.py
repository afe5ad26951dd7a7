"""What is remembered for a while in this process, by a key."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

T = TypeVar("T")


class Recent(OrderedDict[str, T]):
    """At most so many things. The one that was kept, or asked for, the longest ago is forgotten first."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def recall(self, key: str) -> T | None:
        """What is remembered under a key; None where nothing is."""
        if key in self:
            self.move_to_end(key)
        return self.get(key)

    def remember(self, key: str, what: T) -> None:
        """Remember something from now on."""
        self[key] = what
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)
