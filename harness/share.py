"""A share of images with its interval, as a number. No torch."""

from __future__ import annotations

import math

import numpy as np

from epsbench.harness.statistics import share_with_interval


class Share(float):
    """A share in [0, 1] with its 95 % interval; a float, so it compares and formats as one. NaN: it means nothing."""

    low: float
    """The lower end of the interval."""
    high: float
    """The upper end."""
    n: int
    """The number of images behind it."""

    def __new__(cls, value: float, low: float, high: float, n: int) -> Share:
        share = super().__new__(cls, value)
        share.low, share.high, share.n = low, high, n
        return share

    @classmethod
    def of(cls, bits: np.ndarray, void: bool = False) -> Share:
        """The share of true values among ``bits`` (n,), with Wilson's interval."""
        if void:
            return cls(math.nan, math.nan, math.nan, len(bits))
        return cls(*share_with_interval(bits), len(bits))

    def __str__(self) -> str:
        if math.isnan(self):
            return "void"
        return f"{100 * self:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def __repr__(self) -> str:
        return f"<{self} of {self.n:,}>"

    def latex(self) -> str:
        """In percent, with half the width of the interval, for a table of LaTeX."""
        if math.isnan(self):
            return "void"
        return f"${100 * self:.1f} \\pm {50 * (self.high - self.low):.1f}$"
