"""A generative model as the measures ask it: by its encoder, its decoder and its prior alone.

Numbers that are compared across models must not depend on a model's own loss. So nothing here calls the `elbo`, `rate`,
`sample` or `shape` of a model after it is wrapped, and its parts get and give nothing but numbers. A likelihood of the
user's own gives logits of the grey levels, and never sees the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.generative.witness import Witness
from epsbench.models.likelihoods import Categorical, DiscretisedLogistic, Likelihood
from epsbench.models.priors import Draws, MixtureOfNormals, Prior, StandardNormal, log_normal
from epsbench.models.vae import VAENetwork

if TYPE_CHECKING:
    from collections.abc import Sequence


METHODS: dict[type[nn.Module], dict[str, Any]] = {
    part: {name: getattr(part, name) for name in names}
    for parts, names in (
        ((StandardNormal, MixtureOfNormals), ("log_prob", "rate", "draw")),
        ((Categorical, DiscretisedLogistic), ("logits", "log_prob")),
    )
    for part in parts
}
"""What epsbench defines, as it was before a user's code could replace it."""


class Parts(VAENetwork):
    """A model whose bound, rate, images and samples follow from its `encode`, `decoder`, `likelihood` and `prior`.

    It shares the weights of ``vae``. Every part gets a copy of its input, so it cannot change what the likelihood is
    measured on. ``witness`` keeps some of the answers.
    """

    def __init__(
        self, vae: VAENetwork, shape: tuple[int, int, int], witness: Witness | None = None, z_dim: int | None = None
    ) -> None:
        """``shape`` is that of the data, and ``z_dim`` what the suite says, if that is known.

        Raises `ValueError` for a model of other images or codes, or without grey levels.
        """
        nn.Module.__init__(self)
        if tuple(vae.shape) != tuple(shape):
            raise ValueError(
                f"the model's shape is {tuple(vae.shape)}, and the data's {tuple(shape)}: build it for the data"
            )
        if z_dim is not None and vae.z_dim != z_dim:
            raise ValueError(
                f"the model has {vae.z_dim} latent dimensions, and the suite says {z_dim}: build it with these"
            )
        if not (isinstance(vae.levels, int) and 2 <= vae.levels <= 256):
            raise ValueError(f"the model's levels must be a whole number from 2 to 256, not {vae.levels!r}")
        self.shape, self.z_dim, self.levels = (shape[0], shape[1], shape[2]), int(vae.z_dim), vae.levels
        self.deterministic = bool(vae.deterministic)
        self.network, self.encoder = vae, vae.encoder
        self.likelihood = _likelihood(vae, (self.levels, *self.shape))
        self.decoder = _Decoder(vae.decoder, self.likelihood, self.shape, witness)
        if is_standard_normal(vae.prior):
            self.prior: Prior = StandardNormal(self.z_dim)
        else:
            self.prior = _Prior(vae.prior, self.z_dim, witness)  # type: ignore[assignment]
        self._witness = witness

    def encode(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """As the model's own; raises `ValueError` for anything but two plain tensors (N, z_dim)."""
        mean, log_std = self.network.encode(target.clone())
        shape = len(target), self.z_dim
        mean = plain("encode()'s mean", mean, shape).float().clone()
        log_std = plain("encode()'s log-std", log_std, shape).float().clone()
        if self._witness is not None:
            self._witness.saw("encode", target, torch.stack([mean, log_std], dim=1))
            self._witness.saw_posteriors(Posterior(mean, log_std))
        return mean, log_std


class _Decoder(nn.Module):
    """The decoder of a model, from plain codes to plain numbers. The witness keeps what they say of the grey levels."""

    def __init__(
        self, decoder: nn.Module, likelihood: Likelihood, shape: tuple[int, int, int], witness: Witness | None
    ) -> None:
        super().__init__()
        self.decoder, self.likelihood, self._witness = decoder, likelihood, witness
        self._shape = likelihood.outputs, *shape

    def forward(self, z: Tensor) -> Tensor:
        outputs = plain("the decoder's output", self.decoder(z.clone()), (len(z), *self._shape))
        if self._witness is not None:
            self._witness.saw("decode", z, outputs, self._logits)
        return outputs

    def _logits(self, outputs: Tensor, row: int) -> Tensor:
        """What a row says of the grey levels. A likelihood of the user's own is asked about the whole batch."""
        with torch.no_grad():
            if is_built_in_likelihood(self.likelihood):
                return self.likelihood.logits(outputs[row : row + 1])[0]
            return self.likelihood.logits(outputs)[row]


class _Likelihood(Likelihood):
    """A likelihood of the user's own: its logits, normalised and compared with the image by the harness."""

    def __init__(self, likelihood: Likelihood, shape: tuple[int, ...]) -> None:
        super().__init__(shape[0])
        self.outputs = int(likelihood.outputs)
        self.likelihood, self._shape = likelihood, shape

    def logits(self, outputs: Tensor) -> Tensor:
        return plain("the likelihood's logits", self.likelihood.logits(outputs.clone()), (len(outputs), *self._shape))


def _likelihood(vae: VAENetwork, shape: tuple[int, ...]) -> Likelihood:
    """The model's likelihood; categorical for one that has none."""
    own = getattr(vae, "likelihood", None)
    if own is None:
        return Categorical(shape[0])
    if own.levels != shape[0]:
        raise ValueError(f"the likelihood has {own.levels} grey levels, and the model {shape[0]}: give both the same")
    return own if is_built_in_likelihood(own) else _Likelihood(own, shape)


class _Prior(nn.Module):
    """A prior without a closed form: its rate is estimated from its density."""

    def __init__(self, prior: nn.Module, z_dim: int, witness: Witness | None) -> None:
        super().__init__()
        self.prior, self.z_dim, self._witness = prior, z_dim, witness

    def log_prob(self, z: Tensor) -> Tensor:
        density = plain("the prior's log_prob", self.prior.log_prob(z.clone()), z.shape[:-1])  # type: ignore[operator]
        if self._witness is not None and z.dim() == 2:
            self._witness.saw("log_prob", z, density)
        return density

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, mean, log_std) - self.log_prob(z)

    def draw(self, noise: Draws) -> Tensor:
        z: Tensor = self.prior.draw(noise)  # type: ignore[operator]
        return plain("the prior's draw", z, (len(z), self.z_dim)).float().clone()


def is_standard_normal(prior: nn.Module) -> bool:
    """Whether this is the standard normal of epsbench, with no method of it replaced."""
    return type(prior) is StandardNormal and not _replaced(prior)


def is_built_in(prior: nn.Module) -> bool:
    """Whether this is a prior of epsbench, with no method of it replaced: its density is a density."""
    prior = prior.prior if isinstance(prior, _Prior) else prior
    return type(prior) in (StandardNormal, MixtureOfNormals) and not _replaced(prior)


def is_built_in_likelihood(likelihood: nn.Module) -> bool:
    """Whether this is a likelihood of epsbench, with no method of it replaced."""
    return type(likelihood) in (Categorical, DiscretisedLogistic) and not _replaced(likelihood)


def _replaced(part: nn.Module) -> bool:
    """Whether a method of the part is another one than epsbench defines, in the object or in its class."""
    genuine = METHODS[type(part)]
    return any(name in vars(part) or getattr(type(part), name) is not method for name, method in genuine.items())


def plain(name: str, value: object, shape: Sequence[int]) -> Tensor:
    """The value, if it is a tensor of this shape and of torch's own class: another class could carry the image along.

    Raises `ValueError` otherwise.
    """
    if type(value) not in (Tensor, nn.Parameter):
        raise ValueError(f"{name} must be a torch.Tensor of shape {tuple(shape)}, not {type(value).__name__}")
    assert isinstance(value, Tensor)
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, not {tuple(value.shape)}")
    return value
