"""Other names of built-in attacks: those that papers and other libraries use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALIASES: dict[str, dict[str, tuple[str, Mapping[str, Any]]]] = {
    "attack": {
        "auto-pgd": ("apgd", {}),
        "auto-pgd-t": ("apgd-t", {}),
        "auto-attack": ("autoattack", {}),
        "bim": ("pgd", {}),
        "i-fgsm": ("pgd", {}),
        "mifgsm": ("mi-fgsm", {}),
        "mim": ("mi-fgsm", {}),
        "ni-fgsm": ("mi-fgsm", {"ni": True}),
        "si-ni-fgsm": ("mi-fgsm", {"ni": True, "si": 5}),
        "di-fgsm": ("mi-fgsm", {"di": 0.5}),
        "ti-fgsm": ("mi-fgsm", {"ti": 15}),
        "vmi-fgsm": ("mi-fgsm", {"vmi": 20}),
        "vni-fgsm": ("mi-fgsm", {"vmi": 20, "ni": True}),
        "eot-pgd": ("pgd", {"samples": 10}),
    },
}
"""Kind → alias → the name that it stands for, and the parameters that it sets unless a suite sets them."""


def without_alias(kind: str, name: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name that a suite's name stands for, and its parameters. Ids hold this name, so an alias changes no id."""
    known, preset = ALIASES.get(kind, {}).get(name, (name, {}))
    return known, {**preset, **given}
