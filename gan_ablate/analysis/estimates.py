"""Estimates of means, differences, rates and variances over seeds, with their intervals.

The unit is the seed. Variants that share a seed share data order, latents and initial weights, so effects are
differences within a seed. ``bench/simulations.py`` measures how often each interval covers the truth.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special, stats

from gan_ablate.design.outcomes import MAX_LOG, percent_change

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gan_ablate.design.plan import Plan


CONFIDENCE = 0.95

MIN_BOOTSTRAP_SEEDS = 8
"""With fewer seeds, no bootstrap interval covers at its level: even their range covers too rarely."""

_BOOTSTRAP_SAMPLES = 20_000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; bounds, deviation and p are NaN where there are too few seeds for them.

    Attributes:
        value: the mean.
        low: lower end of the interval.
        high: upper end.
        num_seeds: number of seeds.
        std: standard deviation over seeds.
        p: two-sided p-value of a mean of zero.
    """

    value: float
    low: float
    high: float
    num_seeds: int
    std: float = math.nan
    p: float = math.nan

    @property
    def interval(self) -> Interval:
        """The interval alone."""
        return Interval(self.low, self.high)

    def as_ratio(self) -> Estimate:
        """Turn a mean of logarithms into a geometric mean, or a mean log ratio into a ratio, with its bounds."""
        return self._map(_exp)

    def as_percent_change(self) -> Estimate:
        """Turn a mean log ratio into a change in percent: log 2 → +100, log ½ → -50."""
        return self._map(percent_change)

    def _map(self, function: Callable[[float], float]) -> Estimate:
        return Estimate(function(self.value), function(self.low), function(self.high), self.num_seeds)


@dataclass(frozen=True)
class Interval:
    """An interval from ``low`` to ``high``."""

    low: float
    high: float

    def lies_within(self, margin: float | None) -> bool:
        """Whether it lies within ± ``margin``; never without one."""
        return margin is not None and -margin < self.low and self.high < margin


def log_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithms of scores, NaN where a score is not above zero."""
    logs: NDArray[np.float64] = np.log(values, where=values > 0, out=np.full_like(values, np.nan))
    return logs


def mean_on_scale(values: NDArray[np.float64], *, is_ratio: bool) -> Estimate:
    """Estimate the geometric mean of an outcome on the ratio scale, the arithmetic mean of another outcome.

    Args:
        values: (seeds,) one value per seed; NaN, where a seed has none, is left out.
        is_ratio: whether the outcome is on the ratio scale.
    """
    return mean_estimate(log_scores(values)).as_ratio() if is_ratio else mean_estimate(values)


def mean_estimate(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Estimate a mean with Student's t interval, mean ± t(n - 1) · s / √n.

    Args:
        values: (seeds,) one value per seed; NaN, where a seed has none, is left out.
        confidence: confidence level of the interval, in (0, 1).
    """
    present = values[np.isfinite(values)]
    num = len(present)
    if num == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(present.mean())
    if num == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    std = float(present.std(ddof=1))
    error = std / math.sqrt(num)
    return t_estimate(mean, error, num - 1, num, std, confidence)


def contrast_sides(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split a contrast into its two sides, whose difference it is, within every seed.

    Args:
        values: (seeds, variants); NaN where a run has no value.
        weights: (variants,) summing to zero: +1 and -1 for a difference of two variants, their means over the other
            factors' levels for a main effect, the product of two factors' contrasts for an interaction.

    Returns:
        (seeds, 2): the weighted sums of the variants with positive and with negative weights; NaN where a variant with
        a weight has no value.
    """
    counts = weights != 0
    signed = weights[counts]
    sides: NDArray[np.float64] = values[:, counts] @ np.stack((np.maximum(signed, 0), np.maximum(-signed, 0)), axis=1)
    return sides


def contrast_bounds(
    lows: NDArray[np.float64], highs: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bound a contrast of values that are only known to lie between bounds, within every seed.

    Args:
        lows: (seeds, variants); minus infinity where a value may be as low as any, NaN where a run has none.
        highs: (seeds, variants); plus infinity where it may be as high as any.
        weights: (variants,) as for ``contrast_sides``.

    Returns:
        (seeds, 2): the lowest and the highest that the contrast may be, equal where it is known; NaN where a variant
        with a weight has no value.
    """
    above, below = weights > 0, weights < 0
    positive, negative = weights[above], -weights[below]
    lowest = np.stack([lows[:, above] @ positive, highs[:, below] @ negative], axis=1)
    highest = np.stack([highs[:, above] @ positive, lows[:, below] @ negative], axis=1)
    return np.stack([subtract_sides(lowest), subtract_sides(highest)], axis=1)


def subtract_sides(sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract the second side from the first: (seeds, 2) → (seeds,), NaN where a seed has not both.

    Equal sides cancel to rounding noise, which is set to zero: it must not pass for a small and steady effect.
    """
    differences = sides[:, 0] - sides[:, 1]
    noise = 1e-12 * np.abs(sides).max(axis=1)
    return np.where(np.isfinite(noise) & (np.abs(differences) <= noise), 0.0, differences)


def t_estimate(mean: float, error: float, freedom: float, num: int, std: float, confidence: float) -> Estimate:
    """Return a mean with Student's t interval.

    Args:
        mean: the mean.
        error: its standard error.
        freedom: degrees of freedom of the error.
        num: number of seeds.
        std: standard deviation over seeds.
        confidence: confidence level of the interval, in (0, 1).

    Returns:
        The estimate; bounds and p are NaN without a spread.
    """
    if not error > 1e-12 * abs(mean):  # equal to rounding in every seed: no spread
        return Estimate(mean, math.nan, math.nan, num, 0.0)
    # ``stats.t`` computes the same numbers, and checks its arguments for forty times as long.
    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(mean) / error))
    return Estimate(mean, mean - half, mean + half, num, std, p)


def _exp(x: float) -> float:
    return math.inf if x > MAX_LOG else math.exp(x)


def bootstrap_interval(
    values: NDArray[np.float64], confidence: float = CONFIDENCE, min_seeds: int = MIN_BOOTSTRAP_SEEDS
) -> Interval | None:
    """Estimate the expanded bootstrap percentile interval of a mean.

    The plain percentile interval is too narrow by √((n - 1)/n), and because it has normal quantiles instead of t
    quantiles. The expanded one takes the percentiles Φ(∓√(n/(n - 1)) · t(n - 1)) (Hesterberg, "What teachers should
    know about the bootstrap", The American Statistician 69, 2015, section 4.3).

    Args:
        values: (seeds,) one value per seed; NaN, where a seed has none, is left out.
        confidence: confidence level of the interval, in (0, 1).
        min_seeds: the fewest seeds for an interval.

    Returns:
        The interval, or None with fewer seeds.
    """
    present = values[np.isfinite(values)]
    num = len(present)
    if num < min_seeds:
        return None
    means = present[_resample(num)].mean(axis=1)
    tail = float(stats.norm.cdf(-math.sqrt(num / (num - 1)) * stats.t.ppf((1 + confidence) / 2, num - 1)))
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))


@functools.lru_cache(maxsize=2)
def _resample(num: int) -> NDArray[np.int64]:
    """Sample indices of seeds with replacement: (samples, seeds), the same in every call."""
    return np.random.default_rng(0).integers(0, num, (_BOOTSTRAP_SAMPLES, num))


def rate_interval(count: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Estimate the exact interval of a rate (Clopper and Pearson, Biometrika 26, 1934).

    Args:
        count: number of runs with the event.
        total: number of runs, at least one.
        confidence: confidence level of the interval, in (0, 1).
    """
    interval = stats.binomtest(count, total).proportion_ci(confidence, method="exact")
    return Interval(float(interval.low), float(interval.high))


@dataclass(frozen=True)
class VarianceSplit:
    """The variance components of a (log) score.

    Attributes:
        seed: between training seeds, without the sampling component.
        sampling: from the choice of the scored images.
        extractor: of the interaction of seed and retrained extractor; NaN with a single extractor.
    """

    seed: float
    sampling: float
    extractor: float

    def shares(self) -> VarianceSplit:
        """Return each component over their sum."""
        total = sum(part for part in (self.seed, self.sampling, self.extractor) if not math.isnan(part)) or math.nan
        return VarianceSplit(self.seed / total, self.sampling / total, self.extractor / total)


def split_variance(scores: NDArray[np.float64], sampling_errors: NDArray[np.float64]) -> VarianceSplit:
    """Split the variance of scores into training seed, sampling and extractor, by the method of moments.

    The model is a two-way layout without replication: score = variant + extractor + seed + (seed × extractor) +
    sampling error. A retrained extractor shifts all scores of a variant alike, which cancels in comparisons; the
    interaction's mean square says how it reorders the seeds. The seeds' mean square minus that, over the number of
    extractors, is the seeds' variance (Searle, Casella and McCulloch, "Variance Components", 1992, 4.3).

    Args:
        scores: (variants, seeds, extractors) log scores of at least two seeds; a variant with a NaN is left out.
        sampling_errors: (variants, seeds) standard errors from the choice of images, which all extractors share.
    """
    kept = np.isfinite(scores).all(axis=(1, 2)) & np.isfinite(sampling_errors).all(axis=1)
    scores, sampling_errors = scores[kept], sampling_errors[kept]
    num_variants, num_seeds, num_extractors = scores.shape
    if num_variants == 0:
        return VarianceSplit(math.nan, math.nan, math.nan)
    sampling = float(np.square(sampling_errors).mean())
    seed_means = scores.mean(axis=2)
    between = float(seed_means.var(axis=1, ddof=1).mean())
    extractor = math.nan
    if num_extractors > 1:
        residuals = scores - seed_means[:, :, None] - scores.mean(axis=1)[:, None, :]
        residuals += scores.mean(axis=(1, 2))[:, None, None]
        freedom = num_variants * (num_seeds - 1) * (num_extractors - 1)
        extractor = float(np.square(residuals).sum()) / freedom
        between -= extractor / num_extractors
    return VarianceSplit(max(0.0, between - sampling), sampling, extractor)


def split_grid_variance(plan: Plan, runs: pd.DataFrame) -> VarianceSplit:
    """Split the variance of log FID into training seeds and sampling.

    Args:
        plan: the plan of the runs.
        runs: from ``load_results``.
    """
    shape = (len(plan.variants), len(plan.seeds), 1)
    scores, errors = np.full(shape, np.nan), np.full(shape[:2], np.nan)
    positions = {
        (variant.label, seed): (i, j) for i, variant in enumerate(plan.variants) for j, seed in enumerate(plan.seeds)
    }
    for row in runs.to_dict("records"):
        position = positions[row["variant"], row["seed"]]
        if pd.notna(row["fid"]) and pd.notna(row["fid_sampling_error"]):
            scores[position], errors[position] = np.log(row["fid"]), row["fid_sampling_error"]
    return split_variance(scores, errors)
