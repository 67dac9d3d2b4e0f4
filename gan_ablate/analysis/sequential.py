"""Sequential estimates: intervals and p-values that hold at every look while seeds are added.

A test for a fixed number of seeds finds far too many false effects if it is repeated while seeds are added. These
intervals are wider to allow for that. ``bench/calibration.py`` measures how often they are wrong.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from gan_ablate.analysis.estimates import CONFIDENCE, Estimate, Interval, mean_estimate
from gan_ablate.analysis.tests import fewest_seeds, margin_alpha

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR_SEEDS = 0.3
"""g of the mixture N(0, 1/g) over standardised effects; chosen by simulation, for large effects."""

CALIBRATED_LOOKS = 100
"""The number of looks, the first at one seed, by which a level's error is spent."""

_CALIBRATION = np.array([
    (0.0005, 0.00093), (0.00125, 0.0023), (0.0025, 0.0046), (0.05 / 12, 0.0074), (0.00625, 0.011), (0.05 / 6, 0.0147),
    (0.01, 0.0177), (0.0125, 0.0219), (0.05 / 3, 0.0286), (0.025, 0.0422), (0.05, 0.0855), (0.1, 0.158), (0.2, 0.338),
    (0.3, 0.43), (0.5, 0.79), (1.0, 1.0),
])  # fmt: skip
"""(error, level): the chance that E reaches 1 / level by look ``CALIBRATED_LOOKS``, rounded down, and the level."""


def calibrated_level(error: float) -> float:
    """Return the level of the mixture at which a null hypothesis is rejected at any look with a chance of ``error``.

    Ville's inequality bounds the error for any number of looks: P(E ever reaches 1 / level) ≤ level. By look
    ``CALIBRATED_LOOKS`` only about 60 % of that are spent, so that a higher level has the wanted error. Beyond that
    look the error is still at most the level returned: 8.6 % instead of 5.

    Args:
        error: in (0, 1]. Below the table the ratio of level and error is that of its first row, which is too low.
    """
    errors, levels = _CALIBRATION.T
    if error < errors[0]:
        return float(error * levels[0] / errors[0])
    return math.exp(np.interp(math.log(error), np.log(errors), np.log(levels)))


def _errors_at(log_evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the error of the level 1 / E: the inverse of ``calibrated_level``."""
    errors, levels = np.log(_CALIBRATION.T)
    below = np.minimum(-log_evidence - levels[0], 0.0)
    found: NDArray[np.float64] = np.exp(below + np.interp(-log_evidence, levels, errors))
    return found


@dataclass(frozen=True)
class SequentialEstimates:
    """Estimates at each look: arrays of (..., seeds), the first look at one seed.

    Attributes:
        low: lower ends of the intervals; minus infinity while nothing is excluded.
        high: upper ends; plus infinity while nothing is excluded.
        p: p-values of a mean of zero: the smallest of all looks so far whose mean has the same sign.
        p_beyond: p-values of a mean on the margin or beyond it, the smallest of all looks so far, while the mean lies
            within the margin; else 1. All are 1 without a margin.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    p_beyond: NDArray[np.float64]


def estimate_at_looks(
    values: NDArray[np.float64], confidence: float = CONFIDENCE, margin: float | None = None
) -> SequentialEstimates:
    """Estimate a mean at looks of one more seed each, with intervals and p-values that all hold together.

    The t statistic's Bayes factor against zero, under a normal mixture over standardised effects, is a martingale when
    there is no effect (Lindon et al., arXiv:2210.08589, section 3, for one mean): with n seeds and ν = n - 1

        E = √(g / (g + n)) · ((1 + t² g / ((g + n) ν)) / (1 + t² / ν)) ^ (-(ν + 1) / 2).

    The p-value is the error of the level 1 / E, see ``calibrated_level``, and the interval holds the means that the
    last look alone does not reject. So it has the mean of all seeds in its middle, and an earlier look may have
    rejected zero although it lies in the interval again.

    Args:
        values: (..., seeds) one value per seed, in the order of the looks; all finite.
        confidence: probability that all intervals cover the mean, in (0, 1).
        margin: the mean is negligible within ± this; None where nothing is.
    """
    nums = np.arange(1, values.shape[-1] + 1)
    origin = values[..., :1]  # sums of squares far from zero would cancel
    centred = values - origin
    means = centred.cumsum(axis=-1) / nums
    squares = np.maximum((centred**2).cumsum(axis=-1) - nums * means**2, 0.0)
    means += origin
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(squares / (nums - 1) / nums)
        errors[~(errors > 1e-12 * np.abs(means))] = np.inf  # seeds equal to rounding: no spread yet
    half = np.array([math.inf, *(critical_t(num, confidence) for num in nums[1:].tolist())]) * errors
    evidence, is_above = _log_evidence(means, errors), means > 0
    above, below = (_largest_so_far(np.where(is_there, evidence, 0.0)) for is_there in (is_above, ~is_above))
    p = _errors_at(np.where(is_above, above, below))
    p_beyond = np.ones(values.shape)
    if margin is not None:
        is_within = np.abs(means) < margin
        outer = np.minimum(*(_log_evidence(means - end, errors) for end in (-margin, margin)))
        # An error of both sides is twice that of the one in question.
        smallest = _errors_at(_largest_so_far(np.where(is_within, outer, 0.0))) / 2
        p_beyond = np.where(is_within, smallest, 1.0)
    return SequentialEstimates(means - half, means + half, p, p_beyond)


def _log_evidence(means: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log E against zero at each look, at least zero."""
    nums = np.arange(1, means.shape[-1] + 1)
    share = PRIOR_SEEDS / (PRIOR_SEEDS + nums)
    squared = (means / errors) ** 2 / np.maximum(nums - 1, 1)
    evidence = 0.5 * np.log(share) + nums / 2 * (np.log1p(squared) - np.log1p(squared * share))
    return np.where(nums > 1, np.maximum(evidence, 0.0), 0.0)


def _largest_so_far(evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum.accumulate(evidence, axis=-1)


def sequential_estimate(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Estimate a mean with the interval of the last look, and the p-value of all looks.

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


def sequential_interval(estimate: Estimate, confidence: float) -> Interval:
    """Return the interval of all seeds at another level; that of the estimate where it is infinite or not known.

    Args:
        estimate: from ``sequential_estimate``.
        confidence: confidence level of the interval, in (0, 1).
    """
    if not math.isfinite(estimate.low):
        return estimate.interval
    half = critical_t(estimate.num_seeds, confidence) * estimate.std / math.sqrt(estimate.num_seeds)
    return Interval(estimate.value - half, estimate.value + half)


def sequential_margin_p(values: NDArray[np.float64], margin: float) -> float:
    """Return the p-value, of all looks, of a mean on the margin or beyond it; NaN where there is no spread.

    Args:
        values: (seeds,) one value per seed, in the order of the looks; NaN, where a seed has none, is left out.
        margin: the mean is negligible within ± this.
    """
    if not mean_estimate(values).std > 0:
        return math.nan
    return float(estimate_at_looks(values[np.isfinite(values)], margin=margin).p_beyond[-1])


@functools.cache
def critical_t(num_seeds: int, confidence: float = CONFIDENCE) -> float:
    """Return the t statistic from which a look excludes a mean; infinite where no statistic is large enough.

    Args:
        num_seeds: number of seeds of the look, at least two.
        confidence: confidence level of the interval, in (0, 1).
    """
    freedom = num_seeds - 1
    share = PRIOR_SEEDS / (PRIOR_SEEDS + num_seeds)
    # E = 1 / level, solved for t²/ν.
    ratio = (1 / (calibrated_level(1 - confidence) * math.sqrt(share))) ** (2 / num_seeds)
    if ratio * share >= 1:
        return math.inf
    return math.sqrt(freedom * (ratio - 1) / (1 - ratio * share))


def seeds_to_settle(estimate: Estimate, margin: float | None, confidence: float) -> int | None:
    """Count the seeds, in all, at which the sequential interval decides, if mean and spread stay as estimated.

    Args:
        estimate: the mean so far.
        margin: the mean is negligible within ± this; None where nothing is.
        confidence: confidence level of the interval that has to exclude zero; see ``margin_alpha`` for the one that has
            to lie within the margin.

    Returns:
        The number of seeds; None without a spread, or where no number up to ``MOST_SEEDS`` is enough: the mean is near
        the margin, or near zero without a margin.
    """
    size = abs(estimate.value)
    if not estimate.std > 0 or not math.isfinite(size):
        return None
    within = 1 - margin_alpha(1 - confidence)

    def is_settled(num: int) -> bool:
        error = estimate.std / math.sqrt(num)
        is_negligible = margin is not None and size + critical_t(num, within) * error <= margin
        return is_negligible or critical_t(num, confidence) * error <= size

    return fewest_seeds(is_settled)


def settling_range(estimate: Estimate, margin: float | None, confidence: float) -> tuple[int, int | None] | None:
    """Return the fewest and the most seeds that ``seeds_to_settle`` gives for likely means and spreads.

    The likely means are those of the 80 % interval, by the normal distribution; the likely spreads are those of the
    50 % interval, by the chi-squared distribution. The range holds the number of the true mean and spread in about 80 %
    of cases (``bench/calibration.py``).

    Args:
        estimate: the mean so far.
        margin: as of ``seeds_to_settle``.
        confidence: as of ``seeds_to_settle``.

    Returns:
        The numbers; the second is None where no number up to ``MOST_SEEDS`` is enough for some likely mean. None where
        none is enough for any, or there is no spread.
    """
    if not estimate.std > 0 or not math.isfinite(estimate.value):
        return None
    num, reach = estimate.num_seeds, stats.norm.ppf(0.9) * estimate.std / math.sqrt(estimate.num_seeds)
    likely = [
        replace(estimate, value=float(value), std=estimate.std * math.sqrt((num - 1) / stats.chi2.ppf(tail, num - 1)))
        for value in np.linspace(estimate.value - reach, estimate.value + reach, 7)
        for tail in (0.25, 0.75)
    ]
    numbers = [seeds_to_settle(each, margin, confidence) for each in likely]
    known = [max(num, number) for number in numbers if number is not None]
    return (min(known), None if None in numbers else max(known)) if known else None
