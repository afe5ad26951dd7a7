"""What a suite may name: attacks, losses, defenses, models, their parts, and data. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from epsbench.attacks.losses import LOSSES
from epsbench.models.parts import GIVEN


@dataclass(frozen=True)
class Kind:
    """A kind of thing that a suite names, such as attacks."""

    noun: str
    """What messages call it."""
    built_in: Mapping[str, str]
    """Name → address of the built-ins."""
    group: str
    """The entry point group in which installed packages add names."""
    bases: tuple[str, ...] = ()
    """Addresses of classes; an object must derive from one of them. Empty: any callable will do."""
    prefixes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Prefix before a colon → the address that it stands for, and the parameter that takes what follows the colon."""
    hidden: Collection[str] = ("name",)
    """Parameters that the harness sets, and a suite cannot."""
    uncalled: Mapping[str, str] = field(default_factory=dict)
    """Methods that a class may define in the belief that they are called → what to do instead."""

    @property
    def addresses(self) -> list[str]:
        """How a prefix is used: ``"timm:NAME"``."""
        return [f"{prefix}:{parameter.upper()}" for prefix, (_, parameter) in self.prefixes.items()]


KINDS: dict[str, Kind] = {
    "attack": Kind(
        noun="attack",
        built_in={
            "none": "epsbench.attacks.none:NoAttack",
            "noise": "epsbench.attacks.noise:Noise",
            "fgsm": "epsbench.attacks.fgsm:FGSM",
            "pgd": "epsbench.attacks.pgd:PGD",
            "mi-fgsm": "epsbench.attacks.mifgsm:MIFGSM",
            "apgd": "epsbench.attacks.apgd:APGD",
            "apgd-t": "epsbench.attacks.apgd_t:APGDT",
            "fab": "epsbench.attacks.fab:FAB",
            "fab-t": "epsbench.attacks.fab_t:FABT",
            "square": "epsbench.attacks.square:Square",
            "ddn": "epsbench.attacks.ddn:DDN",
            "fmn": "epsbench.attacks.fmn:FMN",
            "deepfool": "epsbench.attacks.deepfool:DeepFool",
            "cw": "epsbench.attacks.cw:CW",
            "pdpgd": "epsbench.attacks.pdpgd:PDPGD",
            "sigma-zero": "epsbench.attacks.sigma_zero:SigmaZero",
            "apgd-search": "epsbench.attacks.apgd_search:APGDSearch",
            "apgd-t-search": "epsbench.attacks.apgd_search:APGDTSearch",
            "spsa": "epsbench.attacks.spsa:SPSA",
            "boundary": "epsbench.attacks.boundary:Boundary",
            "sparse-rs": "epsbench.attacks.sparse_rs:SparseRS",
            "hopskipjump": "epsbench.attacks.hopskipjump:HopSkipJump",
            "jitter": "epsbench.attacks.jitter:Jitter",
            "ensemble": "epsbench.attacks.ensemble:Ensemble",
            "autoattack": "epsbench.attacks.autoattack:AutoAttack",
        },
        group="epsbench.attacks",
        bases=("epsbench.attacks.base:Attack",),
        prefixes={
            "images": ("epsbench.harness.plan.handed_over:HandedOver", "images_file"),
            "torchattacks": ("epsbench.attacks.adapters.torchattacks:TorchAttacks", "attack_name"),
            "foolbox": ("epsbench.attacks.adapters.foolbox:Foolbox", "attack_name"),
            "art": ("epsbench.attacks.adapters.art:Art", "attack_name"),
            "adv-lib": ("epsbench.attacks.adapters.adv_lib:AdvLib", "attack_name"),
        },
        hidden=("name", "norm", "images_file", "attack_name", "options"),
        uncalled={
            "loss": "a field `loss` holds the loss, a value of epsbench.attacks.losses.Loss; for a loop of your own "
            "define perturb(victim, x, y, eps, noise)",
            "targeted": "target(rows) returns the classes to aim at; for a loop of your own define "
            "perturb(victim, x, y, eps, noise)",
        },
    ),
    "loss": Kind(
        noun="loss",
        built_in={name: f"epsbench.attacks.losses:{type(loss).__name__}" for name, loss in LOSSES.items()},
        group="epsbench.losses",
        bases=("epsbench.attacks.losses:Loss",),
    ),
    "defense": Kind(
        noun="defense",
        built_in={
            "none": "epsbench.models.defenses:NoDefense",
            "fgsm-loss": "epsbench.models.defenses:FGSMLoss",
            "pgd-batch": "epsbench.models.defenses:PGDBatch",
            "pgd-replace": "epsbench.models.defenses:PGDReplace",
            "trades": "epsbench.models.defenses:TRADES",
            "n-fgsm": "epsbench.models.defenses:NFGSM",
        },
        group="epsbench.defenses",
        bases=("epsbench.models.defenses:Defense",),
    ),
    "model": Kind(
        noun="model",
        built_in={
            "smallcnn": "epsbench.models.catalogue:SmallCNN",
            "resnet18": "epsbench.models.catalogue:ResNet18",
            "vae": "epsbench.models.generative:VAE",
            "residual-vae": "epsbench.models.generative:ResidualVAE",
            "autoencoder": "epsbench.models.generative:Autoencoder",
        },
        group="epsbench.models",
        prefixes={
            "timm": ("epsbench.models.catalogue:Timm", "name"),
            "torchvision": ("epsbench.models.catalogue:TorchVision", "name"),
            "file": ("epsbench.models.catalogue:FromFile", "path"),
        },
        hidden=("name", "path", "shape", "classes", "num_classes"),
    ),
    "encoder": Kind(noun="encoder", built_in={}, group="epsbench.encoders", hidden=GIVEN),
    "decoder": Kind(noun="decoder", built_in={}, group="epsbench.decoders", hidden=GIVEN),
    "prior": Kind(
        noun="prior",
        built_in={"normal": "epsbench.models.parts:Normal", "mixture": "epsbench.models.parts:Mixture"},
        group="epsbench.priors",
        hidden=GIVEN,
    ),
    "likelihood": Kind(
        noun="likelihood",
        built_in={
            "categorical": "epsbench.models.parts:Categorical",
            "discretised-logistic": "epsbench.models.parts:DiscretisedLogistic",
        },
        group="epsbench.likelihoods",
        hidden=GIVEN,
    ),
    "data": Kind(
        noun="data set",
        built_in={
            "npz": "epsbench.harness.plan.data.npz:Npz",
            "folder": "epsbench.harness.plan.data.folder:Folder",
            "hf": "epsbench.harness.plan.data.hf:HuggingFace",
        },
        group="epsbench.data",
        hidden=("name", "base", "split"),
    ),
}


@cache
def entry_points_of(group: str) -> dict[str, EntryPoint]:
    """The names that installed packages add to a group."""
    return {point.name: point for point in entry_points(group=group)}


def address_of(point: EntryPoint) -> str:
    """The ``module:Object`` that an entry point stands for, without the extras that it may name."""
    return point.value.partition("[")[0].strip()


def known_names(kind: str) -> list[str]:
    """The names of a kind: the built-ins, then those that installed packages add."""
    built_in = KINDS[kind].built_in
    return [*built_in, *(name for name in entry_points_of(KINDS[kind].group) if name not in built_in)]
