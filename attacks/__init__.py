"""Attacks, one a file, and the norms they move under. Nothing here imports torch before an attack runs."""

from epsbench.attacks.base import Attack, GradientAttack
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.mifgsm import MIFGSM
from epsbench.attacks.noise import Noise
from epsbench.attacks.pgd import PGD

__all__ = ["FGSM", "MIFGSM", "PGD", "Attack", "GradientAttack", "Noise"]
