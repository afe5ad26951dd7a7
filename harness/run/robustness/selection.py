"""The targets of an attack among the examples of a split."""

from __future__ import annotations

from torch import Tensor

from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.data.examples import Examples


def targets_at(examples: Examples, index: Tensor, logits: Tensor) -> Targets:
    """The examples at these positions (k,), with the judge's logits (k, classes) at their clean images.

    Examples that are read when they are asked for are announced; for others nothing is worth preparing.
    """
    order = index.cpu()
    return Targets(
        lambda at: examples.pixels(index[at]), examples.labels[index], index, logits,
        (lambda at: examples.expect(order[at])) if examples.reads_ahead else None,
    )  # fmt: skip
