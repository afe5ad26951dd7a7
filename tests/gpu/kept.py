"""The folder of finished pieces: one JSON file each, so that a stopped run goes on after the last of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epsbench.harness.files import write_atomically


@dataclass(frozen=True)
class Settings:
    """What a run of pieces is done on."""

    out: Path
    """The folder of results."""
    device: str
    """Such as ``cuda`` or ``cpu``."""
    tiny: bool = False
    """Whether everything is as small as possible: to see that it runs."""
    seconds: float = 540.0
    """How long a piece may take."""

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")


@dataclass(frozen=True)
class Finished:
    """A piece that ended."""

    name: str
    status: str
    """``ok``, ``failed``, or ``unfinished``: it goes on when it is started again."""
    device: str
    tiny: bool
    seconds: float
    result: dict[str, Any] = field(default_factory=dict)
    """What it measured."""
    message: str = ""
    """Why it failed."""
    environment: dict[str, Any] = field(default_factory=dict)


def path_of(out: Path, name: str) -> Path:
    return out / "pieces" / f"{name}.json"


def keep(out: Path, finished: Finished) -> None:
    write_atomically(path_of(out, finished.name), (json.dumps(asdict(finished), indent=1) + "\n").encode())


def read(settings: Settings, name: str) -> Finished | None:
    """What is kept of a piece on this kind of device at this size; None where there is nothing, or it is damaged."""
    try:
        finished = Finished(**json.loads(path_of(settings.out, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    same = (finished.device, finished.tiny) == (settings.device, settings.tiny)
    return finished if same else None


def summary(settings: Settings, names: list[str]) -> str:
    """A Markdown table of all pieces."""
    lines = [f"# Pieces on {settings.device}{', tiny' if settings.tiny else ''}", "",
             "| piece | status | seconds | result |", "| --- | --- | --- | --- |"]  # fmt: skip
    for name in names:
        each = read(settings, name)
        if each is None:
            lines.append(f"| {name} | left | | |")
        else:
            text = each.message.splitlines()[-1] if each.message else json.dumps(each.result)
            lines.append(f"| {name} | {each.status} | {each.seconds:.1f} | {text.replace('|', '/')[:600]} |")
    return "\n".join(lines) + "\n"
