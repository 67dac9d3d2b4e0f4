"""Sequential estimates: intervals and p-values that hold at every look while seeds are added.

A test for a fixed number of seeds finds far too many false effects if it is repeated while seeds are added. These
intervals are wider to allow for that. ``bench/simulations.py`` measures how often they cover the truth.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gan_ablate.analysis.estimates import CONFIDENCE, Estimate, Interval, mean_estimate
from gan_ablate.analysis.tests import fewest_seeds

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR_SEEDS = 0.3
"""g of the mixture N(0, 1/g) over standardised effects; chosen by simulation, for large effects."""


@dataclass(frozen=True)
class SequentialEstimates:
    """Estimates at each look: arrays of (seeds,), the first look at one seed.

    Attributes:
        low: lower ends of the intervals; minus infinity while nothing is excluded, and from the look on whose interval
            is disjoint from earlier ones.
        high: upper ends; plus infinity in the same cases.
        p: p-values of a mean of zero.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]


def estimate_at_looks(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> SequentialEstimates:
    """Estimate a mean at looks of one more seed each, with intervals and p-values that all hold together.

    The t statistic's Bayes factor against zero, under a normal mixture over standardised effects, is a martingale when
    there is no effect (Lindon et al., arXiv:2210.08589, section 3, for one mean): with n seeds and ν = n - 1

        E = √(g / (g + n)) · ((1 + t² g / ((g + n) ν)) / (1 + t² / ν)) ^ (-(ν + 1) / 2),

    so that E ever reaches 1 / α with a chance of at most α (Ville's inequality). The p-value is the smallest 1 / E so
    far, the interval what no look has excluded yet.

    Args:
        values: (seeds,) one value per seed, in the order of the looks; all finite.
        confidence: probability that all intervals cover the mean, in (0, 1).
    """
    nums = np.arange(1, len(values) + 1)
    origin = values[:1]  # sums of squares far from zero would cancel
    centred = values - origin
    means = centred.cumsum() / nums
    squares = np.maximum((centred**2).cumsum() - nums * means**2, 0.0)
    means += origin
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(squares / (nums - 1) / nums)
        errors[~(errors > 1e-12 * np.abs(means))] = np.inf  # seeds equal to rounding: no spread yet
        critical = np.array([math.inf, *(critical_t(num, confidence) for num in range(2, len(values) + 1))])
        share = PRIOR_SEEDS / (PRIOR_SEEDS + nums)
        squared = (means / errors) ** 2 / (nums - 1)
        evidence = 0.5 * np.log(share) + nums / 2 * (np.log1p(squared) - np.log1p(squared * share))
    evidence[0] = 0.0
    low, high = np.maximum.accumulate(means - critical * errors), np.minimum.accumulate(means + critical * errors)
    crossed = np.flatnonzero(low > high)
    p = np.exp(-np.maximum.accumulate(np.maximum(evidence, 0.0)))
    if len(crossed):  # later seeds contradict earlier ones, so the model does not hold
        low[crossed[0] :], high[crossed[0] :], p[crossed[0] :] = -math.inf, math.inf, 1.0
    return SequentialEstimates(low, high, p)


def sequential_estimate(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Estimate a mean with the interval and the p-value of the last look, which hold together with earlier ones.

    Args:
        values: (seeds,) one value per seed, in the order of the looks; NaN, where a seed has none, is left out.
        confidence: confidence level of the interval, in (0, 1).

    Returns:
        The mean of all seeds; bounds are infinite while nothing is excluded, NaN where there is no spread.
    """
    fixed = mean_estimate(values)
    if not fixed.std > 0:
        return fixed
    looks = estimate_at_looks(values[np.isfinite(values)], confidence)
    return replace(fixed, low=float(looks.low[-1]), high=float(looks.high[-1]), p=float(looks.p[-1]))


def last_look_interval(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the last look alone, which contains the mean of all seeds.

    It is one of those that hold at every look. ``sequential_estimate`` leaves out what earlier looks excluded, and so
    perhaps the mean.

    Args:
        values: (seeds,) one value per seed; NaN, where a seed has none, is left out.
        confidence: confidence level of the interval, in (0, 1).
    """
    estimate = mean_estimate(values)
    if not estimate.std > 0:
        return estimate.interval
    reach = critical_t(estimate.num_seeds, confidence) * estimate.std / math.sqrt(estimate.num_seeds)
    return Interval(estimate.value - reach, estimate.value + reach)


@functools.cache
def critical_t(num_seeds: int, confidence: float = CONFIDENCE) -> float:
    """Return the t statistic from which a look excludes a mean; infinite where no statistic is large enough.

    Args:
        num_seeds: number of seeds of the look, at least two.
        confidence: confidence level of the interval, in (0, 1).
    """
    freedom = num_seeds - 1
    share = PRIOR_SEEDS / (PRIOR_SEEDS + num_seeds)
    # E = 1 / α, solved for t²/ν.
    ratio = (1 / ((1 - confidence) * math.sqrt(share))) ** (2 / num_seeds)
    if ratio * share >= 1:
        return math.inf
    return math.sqrt(freedom * (ratio - 1) / (1 - ratio * share))


def seeds_to_settle(estimate: Estimate, margin: float | None, confidence: float) -> int | None:
    """Count the seeds, in all, at which the sequential interval decides, if mean and spread stay as estimated.

    Args:
        estimate: the mean so far.
        margin: the mean is negligible within ± this; None where nothing is.
        confidence: confidence level of the interval that has to exclude zero, or to lie within the margin.

    Returns:
        The number of seeds; None without a spread, or where no number up to ``MOST_SEEDS`` is enough: the mean is near
        the margin, or near zero without a margin.
    """
    size = abs(estimate.value)
    if not estimate.std > 0 or not math.isfinite(size):
        return None
    room = max(size, 0.0 if margin is None else margin - size)

    def is_settled(num: int) -> bool:
        return critical_t(num, confidence) * estimate.std / math.sqrt(num) <= room

    return fewest_seeds(is_settled)
