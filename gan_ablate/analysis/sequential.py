"""Sequential estimates: intervals and p-values that hold however often one looks while seeds are added.

Whoever adds seeds after having looked, and stops when the answer pleases, finds effects where there are none far more
often than a test of a fixed number of seeds says. These intervals pay for that beforehand. Every method here is held to
its promise by ``bench/simulations.py``.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gan_ablate.analysis.estimates import CONFIDENCE, Estimate, mean_estimate
from gan_ablate.analysis.tests import fewest_seeds

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR_SEEDS = 0.3
"""The mixture's g: the standardised effects that it is readiest for are N(0, 1/g), large ones. Chosen by simulation."""


@dataclass(frozen=True)
class SequentialEstimates:
    """What each look at a growing number of seeds shows: arrays of (seeds,), the first look at one seed.

    Attributes:
        low: lower ends of the intervals, minus infinity while nothing is excluded, and from the look on that excludes
            what earlier ones left.
        high: upper ends.
        p: of no effect.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]


def estimate_at_looks(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> SequentialEstimates:
    """InterimAnalysis at one seed more each time, with intervals and p-values all of which hold together.

    The t statistic's Bayes factor against zero, under a normal mixture over standardised effects, is a martingale when
    there is no effect (Lindon et al., arXiv:2210.08589, section 3, for one mean): with n seeds and ν = n - 1

        E = √(g / (g + n)) · ((1 + t² g / ((g + n) ν)) / (1 + t² / ν)) ^ (-(ν + 1) / 2),

    so that E ever reaches 1 / α with a chance of at most α (Ville's inequality). The p-value is the smallest 1 / E so
    far, the interval what no look has excluded yet.

    Args:
        values: (seeds,) one number per seed, in the order of the looks; all finite.
        confidence: that all intervals hold, in (0, 1).
    """
    nums = np.arange(1, len(values) + 1)
    origin = values[:1]  # sums of squares of what is far from zero would cancel
    centred = values - origin
    means = centred.cumsum() / nums
    squares = np.maximum((centred**2).cumsum() - nums * means**2, 0.0)
    means += origin
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(squares / (nums - 1) / nums)
        errors[~(errors > 1e-12 * np.abs(means))] = np.inf  # seeds alike to rounding: wait for one that is not
        critical = np.array([math.inf, *(critical_t(num, confidence) for num in range(2, len(values) + 1))])
        share = PRIOR_SEEDS / (PRIOR_SEEDS + nums)
        squared = (means / errors) ** 2 / (nums - 1)
        evidence = 0.5 * np.log(share) + nums / 2 * (np.log1p(squared) - np.log1p(squared * share))
    evidence[0] = 0.0
    low, high = np.maximum.accumulate(means - critical * errors), np.minimum.accumulate(means + critical * errors)
    crossed = np.flatnonzero(low > high)
    p = np.exp(-np.maximum.accumulate(np.maximum(evidence, 0.0)))
    if len(crossed):  # later seeds contradict earlier ones: they are not alike, and nothing that rests on that holds
        low[crossed[0] :], high[crossed[0] :], p[crossed[0] :] = -math.inf, math.inf, 1.0
    return SequentialEstimates(low, high, p)


def sequential_estimate(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Estimate a mean with the interval and the p-value of the last look; both hold at every look before.

    Args:
        values: (seeds,) one number per seed, in the order of the looks; NaN where a seed has none, which is left out.
        confidence: of the interval, in (0, 1).

    Returns:
        The mean of all; bounds are infinite while nothing can be excluded, NaN where there is no spread.
    """
    fixed = mean_estimate(values)
    if not fixed.std > 0:
        return fixed
    looks = estimate_at_looks(values[np.isfinite(values)], confidence)
    return replace(fixed, low=float(looks.low[-1]), high=float(looks.high[-1]), p=float(looks.p[-1]))


@functools.cache
def critical_t(num_seeds: int, confidence: float = CONFIDENCE) -> float:
    """Return the t statistic from which a look at so many seeds excludes a mean; infinite where none is enough.

    Args:
        num_seeds: at least two.
        confidence: in (0, 1).
    """
    freedom = num_seeds - 1
    share = PRIOR_SEEDS / (PRIOR_SEEDS + num_seeds)
    # E = 1 / α, solved for t²/ν.
    ratio = (1 / ((1 - confidence) * math.sqrt(share))) ** (2 / num_seeds)
    if ratio * share >= 1:
        return math.inf
    return math.sqrt(freedom * (ratio - 1) / (1 - ratio * share))


def seeds_to_settle(estimate: Estimate, margin: float | None, confidence: float) -> int | None:
    """Count the seeds, in all, at which an interval that holds at every look settles, were mean and spread as seen.

    Args:
        estimate: of a mean, so far.
        margin: the mean is negligible within ± this; None where nothing is.
        confidence: of the interval that has to exclude zero, or to lie within the margin.

    Returns:
        None where there is no spread to go by, or no number in reach is enough: the mean is about as large as the
        margin, or there is none and the mean is zero.
    """
    size = abs(estimate.value)
    if not estimate.std > 0 or not math.isfinite(size):
        return None
    room = max(size, 0.0 if margin is None else margin - size)

    def is_settled(num: int) -> bool:
        return critical_t(num, confidence) * estimate.std / math.sqrt(num) <= room

    return fewest_seeds(is_settled)  # an interval's width only falls with the seeds
