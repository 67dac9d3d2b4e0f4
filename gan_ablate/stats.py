"""Numbers per seed in, estimates with their intervals out; numpy arrays and frozen dataclasses only.

The unit is the seed. Variants that share a seed share data order, latents and initial weights, so effects are
differences within a seed, and the interval is Student's t on those differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; the bounds are NaN where fewer than two seeds were seen."""

    value: float
    low: float
    high: float
    num_seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def as_ratio(self) -> Estimate:
        """Turn a mean of logarithms into a geometric mean, or a mean log ratio into a ratio."""
        return Estimate(math.exp(self.value), math.exp(self.low), math.exp(self.high), self.num_seeds)

    def as_percent_change(self) -> Estimate:
        """Turn a mean log ratio into a change in percent: log 2 → +100, log ½ → -50."""
        value, low, high = (100 * math.expm1(x) for x in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.num_seeds)


def mean_estimate(values: NDArray[np.float64]) -> Estimate:
    """Estimate a mean with Student's t interval, mean ± t(n - 1) · s / √n.

    Args:
        values: (seeds,) one number per seed; NaN where a seed has none, which is left out.
    """
    present = values[np.isfinite(values)]
    num = len(present)
    if num == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(present.mean())
    if num == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, num - 1) * present.std(ddof=1) / math.sqrt(num))
    return Estimate(mean, mean - half, mean + half, num)


def contrast_estimate(values: NDArray[np.float64], weights: NDArray[np.float64]) -> Estimate:
    """Estimate a contrast between variants, paired by seed.

    Args:
        values: (seeds, variants); a seed with a NaN in a variant that counts is left out.
        weights: (variants,) summing to zero: +1 and -1 for a difference of two variants, their means over the other
            factors' levels for a main effect, the product of two factors' contrasts for an interaction.
    """
    counts = weights != 0
    return mean_estimate(values[:, counts] @ weights[counts])
