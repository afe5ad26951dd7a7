"""Likelihoods of grey levels: what the numbers that a decoder gives for every pixel mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_LOG_SCALE = -7.0  # as in PixelCNN++; with 256 levels, a logistic of this scale is on one level
MOST_LOG_SCALE = 60.0  # wider ones put half of their mass on each edge, too; above 87 the width of a bin underflows


class Likelihood(nn.Module):
    """Independent distributions of pixels over ``levels`` grey levels, given what the decoder says of each.

    A likelihood of your own defines `logits`. It sees no image: the harness normalises the logits over the grey levels
    and looks the image up, so every likelihood sums to one. Set ``outputs`` if a pixel (and colour) has not one number
    a level.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.outputs = levels
        """How many numbers the decoder gives for every pixel and colour."""

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits of the grey levels (N, levels, C, H, W) from the decoder's ``outputs`` (N, outputs, C, H, W).

        They need not be normalised. What holds for pixels must not depend on the other pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} must define logits(outputs)")

    def log_prob(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Log-probability in nats (N,) of grey levels ``target`` (N, C, H, W)."""
        return log_likelihood(self.logits(outputs), target)


class Categorical(Likelihood):
    """A probability for every grey level: the decoder's outputs are their logits."""

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs


class DiscretisedLogistic(Likelihood):
    """A mixture of logistic distributions for every pixel and colour, each integrated over the bins of the grey levels.

    Salimans et al., "PixelCNN++" (2017), eq. 2, with colours that are independent given z. Pixels lie in [−1, 1], and
    the first and the last bin reach to −∞ and ∞. The decoder's outputs are means, logarithms of scales and, for more
    than one component, logits of weights: (N, outputs, C, H, W), in this order. Scales below e⁻⁷ count as e⁻⁷, and
    those above e⁶⁰ as e⁶⁰.
    """

    def __init__(self, levels: int, components: int = 1) -> None:
        super().__init__(levels)
        if components < 1:
            raise ValueError(f"components must be at least 1, not {components}")
        self.components = components
        self.outputs = 2 if components == 1 else 3 * components

    def logits(self, outputs: Tensor) -> Tensor:
        """The log-probabilities of all grey levels, float32 (N, levels, C, H, W)."""
        mean, log_scale, weight = (part.unsqueeze(2) for part in self._parts(outputs))
        edges = torch.arange(1, self.levels, device=outputs.device) * (2 * self._half) - 1 - self._half
        at = (edges.view(-1, 1, 1, 1) - mean) * (-log_scale).exp()
        up_to, above = F.logsigmoid(at), F.logsigmoid(-at)
        inner = up_to[:, :, 1:] + above[:, :, :-1] + self._log_width(log_scale)
        of_each = torch.cat([up_to[:, :, :1], inner, above[:, :, -1:]], dim=2)
        return (of_each + weight).logsumexp(1)

    def log_prob(self, outputs: Tensor, target: Tensor) -> Tensor:
        mean, log_scale, weight = self._parts(outputs)
        x = (target.float() * (2 * self._half) - 1).unsqueeze(1)
        inverse = (-log_scale).exp()
        up_to = F.logsigmoid((x + self._half - mean) * inverse)
        above = F.logsigmoid((mean - x + self._half) * inverse)
        inner = up_to + above + self._log_width(log_scale)
        level = target.unsqueeze(1)
        of_each = torch.where(level == 0, up_to, torch.where(level == self.levels - 1, above, inner))
        return (of_each + weight).logsumexp(1).flatten(1).sum(1)

    @property
    def _half(self) -> float:
        """Half the width of a bin."""
        return 1 / (self.levels - 1)

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means, log-scales and log-weights, float32 (N, components, C, H, W) each."""
        k = self.components
        parts = outputs.float()
        mean, log_scale = parts[:, :k], parts[:, k : 2 * k].clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE)
        return mean, log_scale, parts[:, 2 * k :].log_softmax(1) if k > 1 else torch.zeros_like(mean)

    def _log_width(self, log_scale: Tensor) -> Tensor:
        """log(1 − e^(−width)), for the width of a bin in units of the scale.

        σ(a) − σ(b) = σ(a)·σ(−b)·(1 − e^(b − a)), which does not cancel where both are near 0 or 1.
        """
        return (-torch.expm1(-2 * self._half * (-log_scale).exp())).log()


def log_likelihood(logits: Tensor, target: Tensor) -> Tensor:
    """Log-probability in nats (N,) of grey levels (N, C, H, W) under logits (N, levels, C, H, W)."""
    # One row a pixel with its levels side by side. On a CPU that is up to four times as fast as a strided dimension.
    rows = logits.float().movedim(1, -1).reshape(-1, logits.shape[1])
    return -F.cross_entropy(rows, target.flatten(), reduction="none").view(len(target), -1).sum(1)
