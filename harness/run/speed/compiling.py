"""torch.compile, as everything here wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from epsbench.harness.run.speed.torch_private import private

Result = TypeVar("Result")

# Forms of one function that a process may hold, and of all its functions. Dynamo's own 8 are used up by the third
# width of one network, and what is asked for beyond them runs uncompiled without a word.
FORMS, ALL_FORMS = 256, 4096


def compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """``function``, compiled at its first call for the shapes it then gets.

    Raises what torch raises, now or at that call; a `RuntimeError` where torch has moved a private name.
    """
    config = private("dynamo_config")
    config.recompile_limit = max(config.recompile_limit, FORMS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, ALL_FORMS)
    return torch.compile(function, dynamic=False)
