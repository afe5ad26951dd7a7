"""Defenses, one a file: the losses that train a classifier to withstand attacks. Importing them loads no torch."""

from epsbench.models.defenses.base import Defense, Trainee
from epsbench.models.defenses.fgsm_loss import FGSMLoss
from epsbench.models.defenses.n_fgsm import NFGSM
from epsbench.models.defenses.none import NoDefense
from epsbench.models.defenses.pgd_batch import PGDBatch
from epsbench.models.defenses.pgd_replace import PGDReplace
from epsbench.models.defenses.trades import TRADES

__all__ = ["NFGSM", "TRADES", "Defense", "FGSMLoss", "NoDefense", "PGDBatch", "PGDReplace", "Trainee"]
