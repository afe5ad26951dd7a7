"""How the threads of torch's OpenMP wait for each other, decided before torch is loaded. No torch.

Torch's wheels for Linux come with GNU's OpenMP, whose threads spin for milliseconds at the end of each small operation.
On a machine that does something else too, the thread that all wait for does not get a core meanwhile. On two cores that
were shared with other work (torch 2.14, medians of 3 interleaved rounds, a small CNN on 8×8 images in batches of 64):
one training took 6.7 s spinning and 3.8 s waiting passively, two at once 40 s and 4.2 s. On two cores that did nothing
else, `epsbench run quickstart` took 56 s spinning and 60 s waiting passively, and two of them at once 74 s (one run of
each).
"""

from __future__ import annotations

import os
import sys

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Where any of these is set, the user has decided."""
PASSIVELY = {"OMP_WAIT_POLICY": "PASSIVE"}


def wait_passively() -> None:
    """Let threads that wait sleep. Does nothing once torch is loaded, or where the user has set how they wait."""
    if "torch" not in sys.modules and not any(name in os.environ for name in SETTINGS):
        os.environ.update(PASSIVELY)
