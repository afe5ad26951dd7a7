"""How large the logits are beside which a difference of two of them may be rounding."""

from __future__ import annotations

from torch import Tensor

# Code leaves classes out by constants such as -10⁴ or -10⁹, beside which every difference between the other classes
# would be rounding. A logit so many times as large as the highest ones is taken for such a constant.
_MASKED = 16.0


def scale(logits: Tensor) -> Tensor:
    """The largest size of each row's logits (N, K), masked classes apart, (N,)."""
    return unmasked(logits.abs().amax(1), logits)


def unmasked(sizes: Tensor, logits: Tensor) -> Tensor:
    """``sizes`` (N,) of logits (N, K); where a masked class made one, the size of the row's three highest logits."""
    high = logits.topk(min(3, logits.shape[1]), dim=1).values.abs()
    two, three = high[:, :2].amax(1), high.amax(1)
    largest = three.where(three <= _MASKED * two, two)  # the third may be masked
    return largest.where((sizes > _MASKED * largest) & (two > 0), sizes)
