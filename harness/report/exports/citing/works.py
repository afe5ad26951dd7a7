"""The works to cite for what a cell names and measures, by their keys in ``references.bib``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from epsbench.harness.plan.cell import models_of_record
from epsbench.harness.records import Record

AUTOATTACK = "croce2020reliable"
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
    },
    "defense": {
        "none": (),
        "fgsm-loss": ("goodfellow2015explaining",),
        "pgd-batch": ("madry2018towards",),
        "pgd-replace": ("madry2018towards",),
        "trades": ("zhang2019theoretically",),
        "n-fgsm": ("dejorge2022make",),
    },
    "data": {
        "digits": ("alpaydin1998optical",),
        "mnist": ("lecun1998gradient",),
        "fashion-mnist": ("xiao2017fashion",),
        "cifar10": ("krizhevsky2009learning",),
        "cifar10:assignment": ("krizhevsky2009learning",),
        "cifar100": ("krizhevsky2009learning",),
    },
    "model": {
        "smallcnn": (),
        "resnet18": ("he2016deep",),
        "vae": ("kingma2014auto",),
        "residual-vae": ("kingma2014auto", "he2016deep"),
        "autoencoder": ("hinton2006reducing",),
        "timm": ("wightman2019timm",),
        "torchvision": ("torchvision2016",),
    },
}
"""Kind → name in a suite → keys. A name without a work of its own has none."""
MEASURES: dict[str, tuple[str, ...]] = {
    "clean_accuracy": ("wilson1927probable",),
    "test_bpd": ("kingma2014auto",),
    "importance_bpd": ("burda2016importance",),
    "refined_bpd": ("cremer2018inference",),
    "amortisation_gap_bpd": ("cremer2018inference",),
    "active_units": ("burda2016importance",),
    "mutual_information_nats": ("hoffman2016elbo",),
    "score_gradient_variance": ("williams1992simple",),
    "reparameterised_gradient_variance": ("kingma2014auto",),
    "frechet_distance": ("heusel2017gans",),
    "frechet_distance_infinite": ("chong2020effectively",),
    "kernel_distance": ("binkowski2018demystifying",),
    "precision": ("kynkaanniemi2019improved",),
    "recall": ("kynkaanniemi2019improved",),
    "density": ("naeem2020reliable",),
    "coverage": ("naeem2020reliable",),
    "clipped_density": ("salvy2026enhanced",),
    "clipped_coverage": ("salvy2026enhanced",),
    "likelihood_divergence": ("jiralerspong2023feature",),
}
SOFTWARE = ("paszke2019pytorch",)


def works_of_name(kind: str, name: str) -> tuple[str, ...]:
    """The keys for a name; a name such as ``timm:resnet18`` is cited as its source. Empty for a user's own."""
    return WORKS[kind].get(name, WORKS[kind].get(name.partition(":")[0], ()))


def works_of_attack(attack: Mapping[str, Any]) -> list[str]:
    """The keys for an attack, its loss and its parts."""
    keys = list(works_of_name("attack", str(attack["name"])))
    keys += [AUTOATTACK] if "dlr" in str(attack.get("loss", "")) else []
    for value in attack.values():
        for part in value if isinstance(value, list) else []:
            keys += works_of_attack(part) if isinstance(part, Mapping) and "name" in part else []
    return list(dict.fromkeys(keys))


def works(record: Record) -> list[str]:
    """The keys for everything that a cell names and measures, each once."""
    cell = record.cell
    keys: list[str] = []
    for axes in models_of_record(cell):
        for kind in ("data", "model", "defense"):
            if kind in axes:
                value = axes[kind]
                keys += works_of_name(kind, str(value["name"] if isinstance(value, Mapping) else value))
        keys += works_of_attack(axes["attack"]) if "attack" in axes else []
    keys += ["papernot2016transferability"] if "source" in cell else []
    keys += ["higgins2017beta"] if cell.get("beta", 1.0) != 1.0 else []
    for metric in record.metrics:
        keys += MEASURES.get(metric, ())
    return list(dict.fromkeys([*keys, *SOFTWARE]))


@cache
def bibliography() -> Mapping[str, str]:
    """Every entry of ``references.bib`` by its key."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    return {
        match.group(1): match.group().strip() for match in re.finditer(r"^@\w+\{([^,]+),.*?^\}$", text, re.M | re.S)
    }


def bibtex(keys: Iterable[str]) -> str:
    """The entries with these keys."""
    return "\n".join(bibliography()[key] for key in keys) + "\n"


def unknown_names(record: Record) -> Iterator[str]:
    """What a cell names and this table does not: a user's own code or data, to be described by the user."""
    cell = record.cell
    for kind in WORKS:
        if kind in cell:
            value = cell[kind]
            name = str(value["name"] if isinstance(value, Mapping) else value)
            if name not in WORKS[kind] and name.partition(":")[0] not in WORKS[kind]:
                yield f"{kind} {name}"
