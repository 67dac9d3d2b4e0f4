"""Scores of paired seeds in, what their pairing is worth out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from gan_ablate.analysis.stats import CONFIDENCE, Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SEEDS = 4
"""With fewer, the interval leaves everything possible."""


def pairing_gain(sides: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Compare the variance of a difference over seeds of their own for either side with that over shared seeds.

    Let A and B be the sides, means of the variants that are compared. Over seeds of their own the variance of A - B is
    Var A + Var B, over shared ones Var(A - B): what a seed does to both alike cancels. The ratio is how many times as
    many seeds the same certainty would have taken. It is (1 + Var(A + B) / Var(A - B)) / 2, and the interval of a ratio
    of two correlated normal variances is exact (Morgan, "A test for the significance of the difference between the two
    variances in a sample from a normal bivariate population", Biometrika 31, 1939).

    Args:
        sides: (seeds, 2) A and B; a seed with a NaN is left out.
        confidence: of the interval, in (0, 1).

    Returns:
        The ratio, above 1 where pairing pays; NaN where there are fewer than ``MIN_SEEDS`` seeds or no spread.
    """
    sides = sides[np.isfinite(sides).all(axis=1)]
    num = len(sides)
    if num < MIN_SEEDS:
        return Estimate(math.nan, math.nan, math.nan, num)
    treated, control = sides.T
    (summed, shared), (_, paired) = np.cov(treated + control, treated - control)
    if not (summed > 0 and paired > 1e-20 * summed):  # equal to rounding in every seed
        return Estimate(math.nan, math.nan, math.nan, num)
    t = float(stats.t.ppf((1 + confidence) / 2, num - 2))
    width = 1 + 2 * (1 - shared**2 / (summed * paired)) * t**2 / (num - 2)
    root = math.sqrt(max(width**2 - 1, 0.0))
    value, low, high = (float(1 + summed / paired * factor) / 2 for factor in (1.0, width - root, width + root))
    return Estimate(value, low, high, num)
