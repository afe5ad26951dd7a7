"""epsbench: benchmarks of adversarial robustness and of generative models.

The public names are imported when they are first used, so ``import epsbench`` loads neither torch nor anything else.

>>> import epsbench
>>> suite = epsbench.load_suite("quickstart")
>>> suite.cells[0].model.name
'smallcnn'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epsbench.harness.api import attack as attack
    from epsbench.harness.api import evaluate as evaluate
    from epsbench.harness.api import load_model as load_model
    from epsbench.harness.api import records as records
    from epsbench.harness.api import report as report
    from epsbench.harness.errors import InputError as InputError
    from epsbench.harness.frames import frame as frame
    from epsbench.harness.options import Options as Options
    from epsbench.harness.plan.plan import plan as plan
    from epsbench.harness.plan.suite import load_suite as load_suite
    from epsbench.harness.plan.suite import shipped_suites as shipped_suites
    from epsbench.harness.records import read_records as read_records
    from epsbench.harness.run.runner import run_suite as run_suite

__version__ = "0.1.0"

_PUBLIC = {
    "attack": "epsbench.harness.api",
    "evaluate": "epsbench.harness.api",
    "load_model": "epsbench.harness.api",
    "records": "epsbench.harness.api",
    "report": "epsbench.harness.api",
    "InputError": "epsbench.harness.errors",
    "Options": "epsbench.harness.options",
    "frame": "epsbench.harness.frames",
    "load_suite": "epsbench.harness.plan.suite",
    "plan": "epsbench.harness.plan.plan",
    "read_records": "epsbench.harness.records",
    "run_suite": "epsbench.harness.run.runner",
    "shipped_suites": "epsbench.harness.plan.suite",
}
"""The public names, by the module that defines them."""

__all__ = ["__version__", "testing", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "testing":
        return import_module("epsbench.testing")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'epsbench' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
