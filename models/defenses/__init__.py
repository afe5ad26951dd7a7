"""Defenses, one a file: how a classifier is trained to withstand attacks. Torch is imported only inside."""

from models.defenses.base import Defense, Trainee
from models.defenses.fgsm_loss import FGSMLoss
from models.defenses.n_fgsm import NFGSM
from models.defenses.none import NoDefense
from models.defenses.pgd_batch import PGDBatch
from models.defenses.pgd_replace import PGDReplace
from models.defenses.trades import TRADES

__all__ = ["NFGSM", "TRADES", "Defense", "FGSMLoss", "NoDefense", "PGDBatch", "PGDReplace", "Trainee"]
