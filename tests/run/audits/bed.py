"""Which models of the test bed are measured: some of each kind, or with ``EPSBENCH_FULL=1`` all (`make audit-bed`)."""

from __future__ import annotations

import os
from collections.abc import Mapping

FULL = os.environ.get("EPSBENCH_FULL") == "1"


def chosen(models: Mapping[str, object], some: set[str]) -> list[str]:
    """Names of ``models``: ``some`` of them, or all in a full run."""
    assert some <= models.keys()
    return [name for name in models if FULL or name in some]
