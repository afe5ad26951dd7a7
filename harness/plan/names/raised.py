"""What the user's code raises, as one line of a message."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from traceback import walk_tb

from epsbench.harness.plan.names.packages import package_of
from epsbench.harness.plan.names.roots import OWN_FOLDERS, OWN_ROOT

_LONGEST = 300  # characters of an exception's message
_LIBRARIES = tuple({str(Path(sysconfig.get_paths()[key])) for key in ("purelib", "platlib", "stdlib")})
_HINTS = {
    "Boolean value of Tensor with more than one value": "; a Python `if` asks for one truth value, and every row has "
    "its own: choose with torch.where",
}


def what_was_raised(error: BaseException) -> str:
    """``KeyError: 3 (victim.py, line 12)``: type, message and the place in the user's code, on one line."""
    text = " ".join(str(error).split())[:_LONGEST]
    hint = next((hint for part, hint in _HINTS.items() if part in text), "")
    return f"{type(error).__name__}{': ' if text else ''}{text}{raised_at(error)}{hint}"


def raised_at(error: BaseException) -> str:
    """`` (victim.py, line 12)``: the innermost line of a user's code that an error passed through; or nothing."""
    lines = [(frame.f_globals, frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    hers = [(file, line) for names, file, line in lines if package_of(str(names.get("__name__", "")))]
    hers = hers or [(file, line) for _, file, line in lines if _is_hers(file)]
    return f" ({Path(hers[-1][0]).name}, line {hers[-1][1]})" if hers else ""


def _is_hers(file: str) -> bool:
    """Whether a file is neither epsbench's nor a library's: code that called `epsbench.evaluate`, or lies beside it."""
    place = Path(file)
    library = any(place.is_relative_to(folder) for folder in _LIBRARIES) or "site-packages" in place.parts
    own = place.parent == OWN_ROOT or any(place.is_relative_to(OWN_ROOT / folder) for folder in OWN_FOLDERS)
    return place.is_file() and not library and not own
