"""The works to cite for what a cell names, by their keys in ``references.bib``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from epsbench.harness.plan.cell import models_of_record
from epsbench.harness.plan.names.augmentations import AUGMENTATIONS

AUTOATTACK = "croce2020reliable"
TRANSFER = ("papernot2016transferability",)
SEVERAL_SOURCES = ("liu2017delving",)
RANDOMNESS = ("athalye2018synthesizing",)
CORRUPTION = ("hendrycks2019benchmarking",)
BETA = ("higgins2017beta",)

WORKS: dict[str, dict[str, tuple[str, ...]]] = {
    "attack": {
        "none": (),
        "noise": (),
        "fgsm": ("goodfellow2015explaining",),
        "pgd": ("madry2018towards",),
        "mi-fgsm": ("dong2018boosting",),
        "apgd": (AUTOATTACK,),
        "apgd-t": (AUTOATTACK,),
        "apgd-search": (AUTOATTACK,),
        "apgd-t-search": (AUTOATTACK,),
        "jitter": ("schwinn2023exploring",),
        "fab": ("croce2020minimally",),
        "fab-t": ("croce2020minimally", AUTOATTACK),
        "square": ("andriushchenko2020square",),
        "ensemble": (),
        "autoattack": (AUTOATTACK, "croce2020minimally", "andriushchenko2020square"),
        "ddn": ("rony2019decoupling",),
        "fmn": ("pintor2021fast",),
        "deepfool": ("moosavi2016deepfool",),
        "cw": ("carlini2017towards",),
        "pdpgd": ("matyasko2021pdpgd",),
        "sigma-zero": ("cina2025sigma",),
        "hopskipjump": ("chen2020hopskipjump",),
        "boundary": ("brendel2018decision",),
        "spsa": ("uesato2018adversarial",),
        "nes": ("ilyas2018black",),
        "sparse-rs": ("croce2022sparse",),
        "images": (),
        "torchattacks": ("kim2020torchattacks",),
        "foolbox": ("rauber2020foolbox",),
        "art": ("nicolae2018adversarial",),
        "adv-lib": ("rony2020adversarial",),
    },
    "loss": {
        "cross-entropy": (),
        "cross-entropy-targeted": (),
        "margin": ("carlini2017towards",),
        "dlr": (AUTOATTACK,),
        "dlr-targeted": (AUTOATTACK,),
        "logit-difference": (),
        "kl": ("zhang2019theoretically",),
        "log-odds": (),
    },
    "norm": {
        "linf": (),
        "l2": (),
        "l1": ("croce2021mind",),
        "l0": (),
        "l0-pixels": (),
    },
    "defense": {
        "none": (),
        "fgsm-loss": ("goodfellow2015explaining",),
        "pgd-batch": ("madry2018towards",),
        "pgd-replace": ("madry2018towards",),
        "trades": ("zhang2019theoretically",),
        "n-fgsm": ("dejorge2022make",),
    },
    "augmentation": dict.fromkeys(AUGMENTATIONS, ()),
    "data": {
        "digits": ("alpaydin1998optical",),
        "mnist": ("lecun1998gradient",),
        "fashion-mnist": ("xiao2017fashion",),
        "cifar10": ("krizhevsky2009learning",),
        "cifar10:assignment": ("krizhevsky2009learning",),
        "cifar100": ("krizhevsky2009learning",),
        "npz": (),
        "folder": (),
        "hf": (),
    },
    "model": {
        "smallcnn": ("wong2018provable",),
        "resnet18": ("he2016deep",),
        "vae": ("kingma2014auto",),
        "residual-vae": ("kingma2014auto", "he2016deep"),
        "autoencoder": ("hinton2006reducing",),
        "timm": ("wightman2019timm",),
        "torchvision": ("torchvision2016",),
        "file": (),
    },
    "encoder": {},
    "decoder": {},
    "prior": {
        "normal": (),
        "mixture": ("tomczak2018vae",),
    },
    "likelihood": {
        "categorical": (),
        "discretised-logistic": ("salimans2017pixelcnn",),
    },
}
"""Kind → name in a suite → keys. A name without a work of its own has none."""
PARTS = ("encoder", "decoder", "prior", "likelihood")
"""Parts that a suite may give a generative model."""
USERS_OWN = frozenset({"npz", "folder", "hf", "file", "images"})
"""Names of a user's own data, model or images: nobody but the user knows what to cite."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "samples": RANDOMNESS,
    "di": ("xie2019improving",),
    "ti": ("dong2019evading",),
    "ni": ("lin2020nesterov",),
    "si": ("lin2020nesterov",),
    "vmi": ("wang2021enhancing",),
    "vmi_radius": ("wang2021enhancing",),
}
"""Parameters of attacks that are works of their own. At their default they are left out of cells."""


def works_of_name(kind: str, name: str) -> tuple[str, ...]:
    """The keys for a name; a name such as ``timm:resnet18`` is cited as its source. Empty for a user's own."""
    return WORKS[kind].get(name, WORKS[kind].get(name.partition(":")[0], ()))


def works_of_attack(attack: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys for an attack, its options, its loss and its parts."""
    keys = [*works_of_name("attack", str(attack["name"])), *works_of_name("loss", _name(attack.get("loss", "")))]
    keys += [key for option in attack for key in OPTIONS.get(option, ())]
    keys += [key for part in parts_of(attack) for key in works_of_attack(part)]
    return tuple(dict.fromkeys(keys))


def parts_of(attack: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The attacks that an ensemble is made of."""
    parts = attack.get("parts")
    entries = [{"name": part} if isinstance(part, str) else part for part in parts] if isinstance(parts, list) else []
    # An attack of a user's own may mean something else by its parts.
    return entries if all(isinstance(entry, Mapping) and "name" in entry for entry in entries) else []


def works_of_model(axes: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys for a model, the parts that a suite gave it, and its data."""
    kinds = ("model", *PARTS, "data")
    return _works(each for each in _names(axes) if each[0] in kinds)


def works_of_models(axes: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys for a model, its parts, defense and data, and for the models that it starts from."""
    return _works(each for one in models_of_record(axes) for each in _names(one))


def _works(named: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The keys for these kinds and names, each once."""
    return tuple(dict.fromkeys(key for kind, name in named for key in works_of_name(kind, name)))


def unknown_names(cell: Mapping[str, Any]) -> list[str]:
    """What a cell names and this table does not: a user's own code or data, to be described by the user."""
    named = (each for axes in models_of_record(cell) for each in _names(axes))
    return list(dict.fromkeys(f"{kind} {name}" for kind, name in named if not _known(kind, name)))


def _known(kind: str, name: str) -> bool:
    first = name.partition(":")[0]
    return bool({name, first} & set(WORKS[kind])) and first not in USERS_OWN


def _names(axes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and name of everything that a cell, or the axes of a model, name."""
    model, attack = axes.get("model", {}), axes.get("attack", {})
    parts = {kind: model[kind] for kind in PARTS if kind in model}
    loss = {"loss": attack["loss"]} if "loss" in attack else {}
    for kind, value in {**axes, **parts, **loss}.items():
        if kind in WORKS and value:
            yield kind, _name(value)
    for part in parts_of(attack):
        yield from _names({"attack": part})


def _name(value: Any) -> str:
    return str(value["name"] if isinstance(value, Mapping) else value)
