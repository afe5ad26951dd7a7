"""The parts of a VAE that a suite can name: encoder, decoder, prior and likelihood. Only ``build`` imports torch."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.models.catalogue import at_least

if TYPE_CHECKING:
    from torch import nn

    from epsbench.models.vae import VAENetwork

GIVEN = ("shape", "z_dim", "levels", "outputs")
"""What a part of your own may take: the shape (C, H, W) of images, the number of latent dimensions and of grey levels,
and how many numbers the likelihood wants of the decoder for every pixel and colour."""
NEEDS = {"encoder": ("forward",), "decoder": ("forward",), "prior": ("log_prob", "draw"), "likelihood": ("logits",)}
"""The methods that a part of each kind must have."""


class Part(ABC):
    """A part without weights: a frozen value whose fields are the parameters that a suite may set."""

    name: ClassVar[str] = ""
    """As a suite names it."""

    @abstractmethod
    def build(self, **given: Any) -> nn.Module:
        """The module; ``given`` has the entries of `GIVEN` that are known."""


@dataclass(frozen=True)
class Normal(Part):
    """The standard normal distribution (`epsbench.models.priors.StandardNormal`)."""

    version: ClassVar[int] = 1
    name: ClassVar[str] = "normal"

    def build(self, **given: Any) -> nn.Module:
        from epsbench.models.priors import StandardNormal

        return StandardNormal(given["z_dim"])


@dataclass(frozen=True)
class Mixture(Part):
    """A learned mixture of ``components`` diagonal normals (`epsbench.models.priors.MixtureOfNormals`)."""

    version: ClassVar[int] = 1
    name: ClassVar[str] = "mixture"

    components: int = 10

    def __post_init__(self) -> None:
        at_least(1, components=self.components)

    def build(self, **given: Any) -> nn.Module:
        from epsbench.models.priors import MixtureOfNormals

        return MixtureOfNormals(given["z_dim"], self.components)


@dataclass(frozen=True)
class Categorical(Part):
    """A probability for every grey level (`epsbench.models.likelihoods.Categorical`)."""

    version: ClassVar[int] = 1
    name: ClassVar[str] = "categorical"

    def build(self, **given: Any) -> nn.Module:
        from epsbench.models.likelihoods import Categorical

        return Categorical(given["levels"])


@dataclass(frozen=True)
class DiscretisedLogistic(Part):
    """A mixture of ``components`` logistic distributions (`epsbench.models.likelihoods.DiscretisedLogistic`)."""

    version: ClassVar[int] = 1
    name: ClassVar[str] = "discretised-logistic"

    components: int = 1

    def __post_init__(self) -> None:
        at_least(1, components=self.components)

    def build(self, **given: Any) -> nn.Module:
        from epsbench.models.likelihoods import DiscretisedLogistic

        return DiscretisedLogistic(given["levels"], self.components)


@dataclass(frozen=True)
class OwnPart(Part):
    """A part of the user's own: what a suite names, with the parameters that it sets."""

    kind: str
    factory: Callable[..., Any]
    arguments: tuple[tuple[str, Any], ...] = ()

    def build(self, **given: Any) -> nn.Module:
        """Raises `ValueError` for anything but a module with the methods of its kind."""
        from torch import nn

        taken = inspect.signature(self.factory).parameters
        part = self.factory(
            **{key: given[key] for key in GIVEN if key in given and key in taken}, **dict(self.arguments)
        )
        label = f"{self.kind} {getattr(self.factory, '__name__', self.factory)}"
        if not isinstance(part, nn.Module):
            raise ValueError(f"{label} must be a torch.nn.Module, not {type(part).__name__}")
        if missing := [method for method in NEEDS[self.kind] if not callable(getattr(part, method, None))]:
            raise ValueError(f"{label} must define {' and '.join(missing)}")
        if self.kind == "likelihood" and getattr(part, "levels", None) != given["levels"]:
            raise ValueError(
                f"{label} has {getattr(part, 'levels', 'no')} grey levels, and the model {given['levels']}; derive it "
                "from epsbench.models.likelihoods.Likelihood, and hand levels on to its __init__"
            )
        return part


def has_own_parts(architecture: Any) -> bool:
    """Whether a part of this architecture is code of the user's own."""
    return hasattr(architecture, "parts") and any(
        isinstance(getattr(architecture, field.name), OwnPart) for field in fields(architecture)
    )


def try_parts(network: VAENetwork) -> None:
    """Raise `ValueError`, with the shapes, for a network whose parts do not fit together."""
    import torch

    n, shape, z_dim, likelihood = 2, tuple(network.shape), network.z_dim, network.likelihood
    mode = network.training
    network.eval()
    with torch.no_grad():
        z = torch.zeros(n, z_dim)
        encoded, outputs = network.encoder(torch.zeros(n, *shape)), network.decoder(z)
        if not (isinstance(encoded, tuple | list) and len(encoded) == 2):
            raise ValueError(f"the encoder must return mean and log-std, not {type(encoded).__name__}")
        for name, value, wanted in (
            ("the encoder's mean", encoded[0], (n, z_dim)),
            ("the encoder's log-std", encoded[1], (n, z_dim)),
            ("the decoder's output", outputs, (n, likelihood.outputs, *shape)),
            ("the likelihood's logits", lambda: likelihood.logits(outputs), (n, network.levels, *shape)),
            ("the prior's log_prob", lambda: network.prior.log_prob(z), (n,)),
        ):
            got = getattr(value() if callable(value) else value, "shape", None)
            if got is None or tuple(got) != wanted:
                raise ValueError(f"{name} must have shape {wanted}, not {None if got is None else tuple(got)}")
    network.train(mode)
