"""Attacks, one a file, and the norms they move under. Nothing here imports torch before an attack runs."""

from epsbench.attacks.apgd import APGD
from epsbench.attacks.apgd_t import APGDT
from epsbench.attacks.autoattack import AutoAttack
from epsbench.attacks.base import Attack, BatchAttack, GradientAttack
from epsbench.attacks.ensemble import Ensemble
from epsbench.attacks.fab import FAB
from epsbench.attacks.fab_t import FABT
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.jitter import Jitter
from epsbench.attacks.mifgsm import MIFGSM
from epsbench.attacks.noise import Noise
from epsbench.attacks.pgd import PGD
from epsbench.attacks.square import Square

__all__ = [
    "APGD",
    "APGDT",
    "FAB",
    "FABT",
    "FGSM",
    "MIFGSM",
    "PGD",
    "Attack",
    "AutoAttack",
    "BatchAttack",
    "Ensemble",
    "GradientAttack",
    "Jitter",
    "Noise",
    "Square",
]
