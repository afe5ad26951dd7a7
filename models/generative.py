"""The generative architectures that a suite can name, as frozen values. Only ``build`` imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from epsbench.models.base import DataShape
from epsbench.models.catalogue import at_least, at_least_pixels
from epsbench.models.parts import Categorical, Normal, Part, has_own_parts, try_parts

if TYPE_CHECKING:
    from epsbench.models.vae import VAENetwork

EncoderPart: TypeAlias = "Part | None"
DecoderPart: TypeAlias = "Part | None"
PriorPart: TypeAlias = Part
LikelihoodPart: TypeAlias = Part


@dataclass(frozen=True)
class VAE:
    """A convolutional variational autoencoder with a likelihood over ``levels`` grey levels (Kingma & Welling, 2014).

    ``filters`` is the number of channels of its first convolution. The parts can be others than the usual ones.
    """

    version: ClassVar[str] = "af9a738fa037ca12"

    filters: int = 32
    levels: int = 16
    # Added after the first records: at their defaults they are no part of a cell.
    encoder: EncoderPart = field(default=None, kw_only=True, metadata={"later": True})
    decoder: DecoderPart = field(default=None, kw_only=True, metadata={"later": True})
    prior: PriorPart = field(default=Normal(), kw_only=True, metadata={"later": True})
    likelihood: LikelihoodPart = field(default=Categorical(), kw_only=True, metadata={"later": True})

    def __post_init__(self) -> None:
        at_least(1, filters=self.filters)
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels must lie between 2 and 256 (8-bit images have no more), not {self.levels}")

    def check(self, data: DataShape, z_dim: int = 20) -> None:
        """Raise `ValueError` when there is no such VAE for the data's shape and ``z_dim`` latent dimensions."""
        at_least(1, z_dim=z_dim)
        at_least_pixels(8, "vae", data)

    def build(self, data: DataShape, z_dim: int = 20) -> VAENetwork:
        """A module whose ``elbo`` takes pixels (N, C, H, W) in [0, 1]."""
        from epsbench.models.vae import VAENetwork

        self.check(data, z_dim)
        return self._tried(VAENetwork(data.shape, z_dim, self.filters, self.levels, **self.parts(data, z_dim)))

    def parts(self, data: DataShape, z_dim: int) -> dict[str, Any]:
        """The parts that are not the usual ones, as arguments of `epsbench.models.vae.VAENetwork`.

        A ``build`` of your own hands them on, or the suite's names are ignored.
        """
        given: dict[str, Any] = {"shape": data.shape, "z_dim": z_dim, "levels": self.levels, "outputs": self.levels}
        made: dict[str, Any] = {}
        if self.likelihood != Categorical():
            made["likelihood"] = self.likelihood.build(**given)
            given["outputs"] = made["likelihood"].outputs
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder), ("prior", self.prior)):
            if part is not None and part != Normal():
                made[name] = part.build(**given)
        return made

    def _tried(self, network: VAENetwork) -> VAENetwork:
        """The network; raises `ValueError` where parts of the user's own do not fit."""
        if has_own_parts(self):
            try_parts(network)
        return network


@dataclass(frozen=True)
class Autoencoder(VAE):
    """A plain autoencoder: the networks of `VAE`, trained on the reconstruction alone, without noise and KL."""

    version: ClassVar[str] = "af9a738fa037ca12"

    def build(self, data: DataShape, z_dim: int = 20) -> VAENetwork:
        """A module whose ``elbo`` gives the distortion of its reconstructions, and a rate of 0."""
        from epsbench.models.vae import VAENetwork

        self.check(data, z_dim)
        parts = self.parts(data, z_dim)
        return self._tried(VAENetwork(data.shape, z_dim, self.filters, self.levels, **parts, deterministic=True))


@dataclass(frozen=True)
class ResidualVAE(VAE):
    """A VAE of residual blocks at half and quarter resolution, with space-to-depth in place of strided layers.

    ``blocks`` residual blocks at each resolution, ``hidden`` units around the latent space, and a prior that is a
    learned mixture of ``components`` normals (0: the standard normal).
    """

    version: ClassVar[str] = "b4d610b2ad261f90"

    blocks: int = 1
    hidden: int = 512
    components: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, blocks=self.blocks, components=self.components)
        at_least(1, hidden=self.hidden)
        if self.components and self.prior != Normal():
            raise ValueError('components and prior both set the prior; give prior = { name = "mixture", … } alone')

    def check(self, data: DataShape, z_dim: int = 20) -> None:
        """Raise `ValueError` when there is no such VAE for the data's shape and ``z_dim`` latent dimensions."""
        super().check(data, z_dim)
        _, height, width = data.shape
        if height % 4 or width % 4:
            raise ValueError(
                f"residual-vae needs images with sides divisible by 4; {data.name} has {height}×{width}; take vae"
            )

    def build(self, data: DataShape, z_dim: int = 20) -> VAENetwork:
        """A module whose ``elbo`` takes pixels (N, C, H, W) in [0, 1]."""
        from epsbench.models.residual_vae import residual_vae

        self.check(data, z_dim)
        return self._tried(residual_vae(data.shape, z_dim, self, self.parts(data, z_dim)))
