"""Numbers per seed in, estimates, intervals and tests out; numpy arrays and frozen dataclasses only.

The unit is the seed. Variants that share a seed share data order, latents and initial weights, so effects are
differences within a seed. Every method here is held to its promise by ``tests/simulations.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CONFIDENCE = 0.95

POWER = 0.8
"""Chance of finding an effect that further seeds are counted for."""

MIN_BOOTSTRAP_SEEDS = 8
"""With fewer, no resampling of the seeds covers as often as it says: their range alone covers too rarely."""

_BOOTSTRAP_SAMPLES = 20_000
_MAX_SIGN_FLIPS = 2**16
_MOST_SEEDS = 10_000
_MOST_SEEDS_BY_T = 100


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; bounds, deviation and p are NaN where there are too few seeds for them.

    Attributes:
        value: the mean.
        low: lower end of the interval.
        high: upper end.
        num_seeds: how many seeds it rests on.
        std: standard deviation over seeds.
        p: of Student's t test against zero, two-sided.
    """

    value: float
    low: float
    high: float
    num_seeds: int
    std: float = math.nan
    p: float = math.nan

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def as_ratio(self) -> Estimate:
        """Turn a mean of logarithms into a geometric mean, or a mean log ratio into a ratio, bounds likewise."""
        value, low, high = (_exp(x) for x in self._numbers)
        return Estimate(value, low, high, self.num_seeds)

    def as_percent_change(self) -> Estimate:
        """Turn a mean log ratio into a change in percent: log 2 → +100, log ½ → -50."""
        value, low, high = (100 * (_exp(x) - 1 if abs(x) > 1 else math.expm1(x)) for x in self._numbers)
        return Estimate(value, low, high, self.num_seeds)

    @property
    def _numbers(self) -> tuple[float, float, float]:
        return self.value, self.low, self.high


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``."""

    low: float
    high: float


def log_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take logarithms of scores, NaN where there is none."""
    logs: NDArray[np.float64] = np.log(values, where=values > 0, out=np.full_like(values, np.nan))
    return logs


def mean_estimate(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Estimate a mean with Student's t interval, mean ± t(n - 1) · s / √n.

    Args:
        values: (seeds,) one number per seed; NaN where a seed has none, which is left out.
        confidence: of the interval, in (0, 1).
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
    return _t_estimate(mean, error, num - 1, num, std, confidence)


def difference_estimate(
    treated: NDArray[np.float64], control: NDArray[np.float64], confidence: float = CONFIDENCE
) -> Estimate:
    """Estimate the difference of two means over different seeds, with Welch's t interval.

    Args:
        treated: (n,) one number per seed; NaN where a seed has none.
        control: (m,) likewise, of other seeds.
        confidence: of the interval, in (0, 1).

    Returns:
        mean(treated) - mean(control); ``std`` is that of one seed's difference, √(s₁² + s₂²).
    """
    samples = [values[np.isfinite(values)] for values in (treated, control)]
    num = min(len(sample) for sample in samples)
    if num == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(samples[0].mean() - samples[1].mean())
    if num == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    variances = [float(sample.var(ddof=1)) for sample in samples]
    parts = [variance / len(sample) for variance, sample in zip(variances, samples, strict=True)]
    error = math.sqrt(sum(parts))
    # Welch (1947): degrees of freedom of a sum of unequal variances.
    shares = [part**2 / (len(sample) - 1) for part, sample in zip(parts, samples, strict=True)]
    freedom = sum(parts) ** 2 / sum(shares) if sum(shares) > 0 else float(num - 1)
    return _t_estimate(mean, error, freedom, num, math.sqrt(sum(variances)), confidence)


def contrast_values(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute a contrast between variants within every seed.

    Args:
        values: (seeds, variants); a seed with a NaN in a variant that counts has no contrast.
        weights: (variants,) summing to zero: +1 and -1 for a difference of two variants, their means over the other
            factors' levels for a main effect, the product of two factors' contrasts for an interaction.

    Returns:
        (seeds,) NaN where a seed has none.
    """
    counts = weights != 0
    contrasts: NDArray[np.float64] = values[:, counts] @ weights[counts]
    # Equal values cancel to rounding noise, which must not pass for a small and steady effect.
    noise = 1e-12 * np.abs(values[:, counts]).max(axis=1, initial=0)
    return np.where(np.abs(contrasts) <= noise, 0.0, contrasts)


def _t_estimate(mean: float, error: float, freedom: float, num: int, std: float, confidence: float) -> Estimate:
    if not error > 1e-12 * abs(mean):  # equal to rounding in every seed: there is no spread to test against
        return Estimate(mean, math.nan, math.nan, num, 0.0)
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - half, mean + half, num, std, p)


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)


def bootstrap_interval(
    values: NDArray[np.float64], confidence: float = CONFIDENCE, min_seeds: int = MIN_BOOTSTRAP_SEEDS
) -> Interval | None:
    """Interval of a mean from resampled seeds, with percentiles moved out to what few seeds need.

    The plain percentile interval is too narrow by √((n - 1)/n) and by taking normal for t quantiles; the expanded one
    takes the percentiles Φ(∓√(n/(n - 1)) · t(n - 1)) instead (Hesterberg, "What teachers should know about the
    bootstrap", The American Statistician 69, 2015, section 4.3).

    Args:
        values: (seeds,) one number per seed; NaN where a seed has none.
        confidence: of the interval, in (0, 1).
        min_seeds: with fewer there is no interval.

    Returns:
        None with fewer seeds.
    """
    present = values[np.isfinite(values)]
    num = len(present)
    if num < min_seeds:
        return None
    # A stream of its own: the same numbers give the same interval, and nobody else's draws are touched.
    draws = np.random.default_rng(0).integers(0, num, (_BOOTSTRAP_SAMPLES, num))
    means = present[draws].mean(axis=1)
    tail = float(stats.norm.cdf(-math.sqrt(num / (num - 1)) * stats.t.ppf((1 + confidence) / 2, num - 1)))
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class SignFlip:
    """The exact sign-flip test of a mean of zero.

    Attributes:
        p: share of all ± assignments whose mean is at least as far from zero; NaN without values.
        smallest_p: the smallest that so many seeds, with differences of these sizes, can give.
    """

    p: float
    smallest_p: float


def sign_flip_test(values: NDArray[np.float64]) -> SignFlip:
    """Test, two-sided, that differences are symmetric around zero, by flipping their signs in every possible way.

    With no effect, a pair's two levels could as well have been swapped (Fisher, "The Design of Experiments", 1935,
    section 21). Exact up to 16 seeds, normal or not; beyond, the flips are sampled.

    Args:
        values: (seeds,) paired differences; NaN where a seed has none.
    """
    present = values[np.isfinite(values)]
    num = len(present)
    if num == 0:
        return SignFlip(math.nan, math.nan)
    if 2**num <= _MAX_SIGN_FLIPS:
        signs = 1 - 2 * ((np.arange(2**num)[:, None] >> np.arange(num)) & 1)
    else:
        signs = np.random.default_rng(0).choice(np.array([-1, 1]), (_MAX_SIGN_FLIPS, num))
        signs[0] = 1  # the flip that was observed is one of them
    sums = np.abs(signs @ present)
    # Sums that are equal on paper differ by rounding.
    p, smallest = (float((sums >= far * (1 - 1e-12)).mean()) for far in (sums[0], sums.max()))
    return SignFlip(p, smallest)


@dataclass(frozen=True)
class HolmTest:
    """One test of a family, after Holm.

    Attributes:
        p: the adjusted p; NaN where there was no test.
        confidence: of the interval that excludes zero exactly if the test is rejected: 1 - alpha / (tests that were
            left when it was judged). Those that come after the first failure share its level.
        is_rejected: whether the family's error rate allows to call it an effect.
    """

    p: float
    confidence: float
    is_rejected: bool


def holm(p_values: Sequence[float], alpha: float = 1 - CONFIDENCE) -> list[HolmTest]:
    """Judge a family of tests so that the chance of any false positive is at most ``alpha``.

    The step-down procedure of Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979: the k-th smallest of m p-values is compared with alpha / (m - k + 1), until one fails.

    Args:
        p_values: of every test that is planned; NaN where it cannot be made yet, which still counts as one of the
            family: what is found before the last run is in has to hold afterwards.
        alpha: the chance.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    tests = [HolmTest(math.nan, math.nan, is_rejected=False) for _ in p_values]
    adjusted, level, is_rejecting = 0.0, alpha, True
    for rank, (p, i) in enumerate(known):
        remaining = len(p_values) - rank
        adjusted = max(adjusted, min(1.0, p * remaining))
        if is_rejecting:
            level = alpha / remaining
            is_rejecting = p < level
        tests[i] = HolmTest(adjusted, 1 - level, is_rejected=is_rejecting)
    return tests


@dataclass(frozen=True)
class RateComparison:
    """How often something happened to runs of two kinds.

    Attributes:
        count: runs of the first kind to which it happened.
        total: runs of the first kind.
        baseline_count: of the second.
        baseline_total: of the second.
        p: Fisher's exact test, two-sided, of equal rates.
    """

    count: int
    total: int
    baseline_count: int
    baseline_total: int
    p: float


def compare_rates(happened: Sequence[bool], baseline_happened: Sequence[bool]) -> RateComparison:
    """Compare rates exactly (Fisher, "Statistical Methods for Research Workers", 1934, section 21.02).

    Args:
        happened: one per run of the first kind.
        baseline_happened: one per run of the second.
    """
    counts = sum(happened), len(happened), sum(baseline_happened), len(baseline_happened)
    table = np.array([[counts[0], counts[1] - counts[0]], [counts[2], counts[3] - counts[2]]])
    p = float(stats.fisher_exact(table).pvalue) if counts[1] and counts[3] else math.nan
    return RateComparison(*counts, p)


def rate_interval(count: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Exact interval of a rate (Clopper and Pearson, Biometrika 26, 1934).

    Args:
        count: runs to which it happened.
        total: runs in all, at least one.
        confidence: of the interval, in (0, 1).
    """
    interval = stats.binomtest(count, total).proportion_ci(confidence, method="exact")
    return Interval(float(interval.low), float(interval.high))


def seeds_needed(estimate: Estimate, alpha: float = 1 - CONFIDENCE) -> int | None:
    """Count the seeds at which a t test would find an effect of the size and spread seen, with chance ``POWER``.

    Args:
        estimate: of paired differences.
        alpha: the level that the effect has to pass.

    Returns:
        Seeds in all, or None where there is no spread to go by, or no number below ``_MOST_SEEDS`` is enough.
    """
    if not estimate.std > 0 or estimate.value == 0:
        return None
    size = abs(estimate.value) / estimate.std
    for num in range(2, _MOST_SEEDS_BY_T + 1):
        if _power(size, num, alpha) >= POWER:
            return num
    # With so many seeds Student's t is as good as normal.
    needed = math.ceil(((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER)) / size) ** 2)
    return needed if needed <= _MOST_SEEDS else None


def _power(size: float, num: int, alpha: float) -> float:
    """Chance that the two-sided t test on ``num`` differences of mean ``size`` standard deviations finds them."""
    critical = stats.t.ppf(1 - alpha / 2, num - 1)
    shift = size * math.sqrt(num)
    # The noncentral t as a mean of normals over the quantiles of s / σ: SciPy's own gives up at small df, large shift.
    spreads = np.sqrt(stats.chi2.ppf((np.arange(500) + 0.5) / 500, num - 1) / (num - 1))
    found = stats.norm.sf(critical * spreads - shift) + stats.norm.cdf(-critical * spreads - shift)
    return float(found.mean())
