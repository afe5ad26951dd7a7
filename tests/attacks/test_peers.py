"""Smallest distances against an independent implementation, adv-lib: the median is within 1 %, or smaller."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest
import torch
from known_distances import engine_of

from epsbench.attacks import FABT
from epsbench.attacks.apgd_search import APGDTSearch
from epsbench.attacks.cw import CW
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.fmn import FMN
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pdpgd import PDPGD
from epsbench.attacks.sigma_zero import SigmaZero

P = {"l0": 0, "l1": 1, "l2": 2, "linf": float("inf")}
FULL = os.environ.get("EPSBENCH_FULL") == "1"


def adv_lib():
    """The library; its logger, which needs a package that does not install everywhere, is replaced."""
    logger = ModuleType("adv_lib.utils.visdom_logger")
    logger.VisdomLogger = object
    sys.modules.setdefault(logger.__name__, logger)
    return pytest.importorskip("adv_lib.attacks", reason="pip install --no-deps adv-lib")


CASES = [
    (DDN(), "ddn", {"steps": 100, "levels": None}),
    *((FMN(norm=NORMS[norm]), "fmn", {"steps": 100, "norm": P[norm], **({"α_init": 10.0} if norm == "linf" else {})})
      for norm in ("l0", "l1", "l2", "linf")),
    (PDPGD(), "pdpgd", {"norm": 1, "num_steps": 500}),
    (SigmaZero(), "sigma_zero", {"num_steps": 300}),
    (DeepFool(), "df", {"norm": float("inf")}),
    (DeepFool(norm=NORMS["l2"]), "df", {"norm": 2}),
    *((FABT(goal="smallest", norm=NORMS[norm]), "fab", {"norm": P[norm], "n_iter": 100}) for norm in ("l2", "linf")),
    (CW(), "carlini_wagner_l2", {"max_iterations": 100}),
    (APGDTSearch(norm=NORMS["l2"]), "ddn", {"steps": 100, "levels": None}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "name", "options"), CASES if FULL else CASES[:1],
    ids=lambda value: f"{type(value).__name__}-{value.norm.name}" if hasattr(value, "norm") else None,
)  # fmt: skip
def test_the_median_distance_is_that_of_adv_lib_or_smaller(network, digits, attack, name, options):
    library = adv_lib()
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[: 100 if FULL else 40]
    x, y = x[right], y[right]
    (outcome,) = engine_of(network, x, y).run(attack, [Fraction(1)], seed=0)
    torch.manual_seed(0)
    theirs = getattr(library, name)(network, x, y, **options).detach()
    with torch.no_grad():
        fools = network(theirs).argmax(1) != y
    sizes = attack.norm.size(theirs - x).masked_fill(~fools, torch.inf).numpy()
    print(f"{name} {attack.norm.name}: ours {np.median(outcome.distances):.4f}, theirs {np.median(sizes):.4f}")
    assert np.median(outcome.distances) <= 1.01 * np.median(sizes)
