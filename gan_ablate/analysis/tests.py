"""Tests: sign flips, signs, Holm's procedure, rates of events, and the number of seeds that a test needs.

``bench/simulations.py`` measures the error rates of each.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import special, stats

from gan_ablate.analysis.estimates import CONFIDENCE, Estimate, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

POWER = 0.8
"""Probability that a new study with the needed seeds finds the effect."""

_MAX_SIGN_FLIPS = 2**16
MOST_SEEDS = 10_000
"""The most seeds that are searched for a needed number."""


@dataclass(frozen=True)
class SignFlip:
    """The exact sign-flip test of a mean of zero.

    Attributes:
        p: share of all sign assignments whose mean is at least as far from zero; NaN without values.
        smallest_p: the smallest p that differences of these sizes can give.
    """

    p: float
    smallest_p: float


def sign_flip_test(values: NDArray[np.float64]) -> SignFlip:
    """Test, two-sided, that differences are symmetric around zero, by flipping their signs in every possible way.

    Without an effect the two levels of a pair are exchangeable (Fisher, "The Design of Experiments", 1935, section 21).
    The test is exact up to 16 seeds, for any distribution; with more seeds the flips are sampled.

    Args:
        values: (seeds,) paired differences; NaN, where a seed has none, is left out.
    """
    present = values[np.isfinite(values)]
    num = len(present)
    if num == 0:
        return SignFlip(math.nan, math.nan)
    # In parts: the product converts signs to floats, and all at once would not fit into memory.
    sums = np.abs(np.concatenate([part @ present for part in np.array_split(_list_signs(num), 1 + num // 16)]))
    # Mathematically equal sums differ by rounding.
    p, smallest = (float((sums >= far * (1 - 1e-12)).mean()) for far in (sums[0], sums.max()))
    return SignFlip(p, smallest)


@functools.lru_cache(maxsize=2)
def _list_signs(num: int) -> NDArray[np.int8]:
    """List all sign assignments of a number of seeds, or a random sample of too many: (flips, seeds)."""
    if 2**num <= _MAX_SIGN_FLIPS:
        return (1 - 2 * ((np.arange(2**num)[:, None] >> np.arange(num)) & 1)).astype(np.int8)
    signs = np.random.default_rng(0).choice(np.array([-1, 1]), (_MAX_SIGN_FLIPS, num)).astype(np.int8)
    signs[0] = 1  # the observed assignment is one of them
    return signs


@dataclass(frozen=True)
class HolmTest:
    """The result of one test of a family by Holm's procedure.

    Attributes:
        p: the adjusted p-value; NaN where there was no test.
        confidence: confidence level of the interval that excludes zero exactly if the test is rejected: 1 - alpha /
            (number of tests that remain at this step). Tests after the first that is not rejected have its level.
        is_rejected: whether the null hypothesis is rejected.
    """

    p: float
    confidence: float
    is_rejected: bool


NOT_TESTED = HolmTest(math.nan, math.nan, is_rejected=False)


def round_p(p: float) -> float:
    """Round a p-value to nine digits: beyond those, equal ones differ by rounding."""
    return float(f"{p:.8e}")


def margin_alpha(alpha: float) -> float:
    """Return the level of the interval that has to lie within the margin, where ``alpha`` is that of a test of zero.

    Only one end of the interval can be wrong, so twice the level has the same error (two one-sided tests; Schuirmann,
    Journal of Pharmacokinetics and Biopharmaceutics 15, 1987). It is at most 1 - ``CONFIDENCE``: what does not matter
    has its own interval within the margin, too.
    """
    return min(2 * alpha, 1 - CONFIDENCE)


def margin_p(values: NDArray[np.float64], margin: float) -> float:
    """Return the p-value of a mean on the margin or beyond it, by two one-sided t tests; NaN without a spread.

    Args:
        values: (seeds,) one value per seed; NaN, where a seed has none, is left out.
        margin: the mean is negligible within ± this.
    """
    estimate = mean_estimate(values)
    if not estimate.std > 0:
        return math.nan
    room = (margin - abs(estimate.value)) / (estimate.std / math.sqrt(estimate.num_seeds))
    return float(stats.t.sf(room, estimate.num_seeds - 1))


def holm(p_values: Sequence[float], alpha: float = 1 - CONFIDENCE, fewest: int = 1) -> list[HolmTest]:
    """Decide a family of tests so that the probability of any false positive is at most ``alpha``.

    This is the step-down procedure of Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6, 1979: the k-th smallest of m p-values is compared with alpha / (m - k + 1), until one is
    not smaller.

    Args:
        p_values: one per planned test; NaN where a test cannot be made yet. It counts as one of the family, so that
            rejections hold when all runs are over. Equal ones, by ``round_p``, are tested in their order.
        alpha: the family-wise error rate, in (0, 1).
        fewest: no p-value is compared with more than alpha / ``fewest``.
    """
    known = sorted((round_p(p), i) for i, p in enumerate(p_values) if not math.isnan(p))
    tests = [NOT_TESTED for _ in p_values]
    adjusted, level, is_rejecting = 0.0, alpha, True
    for rank, (p, i) in enumerate(known):
        remaining = max(fewest, len(p_values) - rank)
        adjusted = max(adjusted, min(1.0, p * remaining))
        if is_rejecting:
            level = alpha / remaining
            is_rejecting = p < round_p(level)
        tests[i] = HolmTest(adjusted, 1 - level, is_rejected=is_rejecting)
    return tests


SIGN_PRIOR = 0.25
"""Both parameters of the beta mixture over the chance of a sign; chosen by simulation, for few seeds."""


@functools.cache
def sign_p_value(against: int, num: int, *, is_fixed: bool) -> float:
    """Test, two-sided and exactly, that the median of differences is zero, by the signs of all but ``against`` of them.

    For a fixed number of seeds this is the sign test. It holds at every look by a mixture of likelihood ratios of
    chances θ > ½ against ½, whose product over seeds is a supermartingale wherever the chance is at most ½:

        E = 2^n · B(S + a, n - S + a) / B(a, a) · 2 · P(Beta(S + a, n - S + a) > ½), with S of n seeds on a side,

    so that E ever reaches 2 / α, on either side, with a chance of at most α (Ville's inequality).

    Args:
        against: the seeds whose difference does not lie on the likelier side of zero; zero itself does not.
        num: all seeds.
        is_fixed: whether the number of seeds was fixed beforehand; else the p-value holds at every look.
    """
    if is_fixed:
        return min(1.0, 2 * float(stats.binom.cdf(against, num, 0.5)))
    first, second = num - against + SIGN_PRIOR, against + SIGN_PRIOR
    evidence = special.betaln(first, second) - special.betaln(SIGN_PRIOR, SIGN_PRIOR)
    evidence += (num + 1) * math.log(2) + stats.beta.logsf(0.5, first, second)
    return min(1.0, 2 * math.exp(-float(evidence)))


def median_estimate(bounds: NDArray[np.float64], confidence: float = CONFIDENCE, *, is_fixed: bool) -> Estimate:
    """Estimate the median of differences, by their signs alone: jumps of single seeds do not move it.

    The interval holds the medians that the test of signs does not exclude: it ends at order statistics. Of a
    difference that is only known to lie between two bounds, each end of the interval takes the unfavourable one.

    Args:
        bounds: (seeds, 2) the lowest and the highest that each difference may be; equal where it is known, infinite
            where it may be anything, NaN where a seed has none.
        confidence: confidence level of the interval, in (0, 1).
        is_fixed: whether the number of seeds was fixed beforehand; else interval and p hold at every look.

    Returns:
        The median, or where it is only known to lie beyond a bound, that bound; NaN where it may be anything.
        ``std`` is the deviation of the known differences.
    """
    lows, highs = np.sort(bounds[~np.isnan(bounds).any(axis=1)], axis=0).T
    num = len(lows)
    if num == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    middles = [float(middle) for middle in (np.median(lows), np.median(highs)) if np.isfinite(middle)]
    known = bounds[np.isfinite(bounds).all(axis=1), 0]
    num_out = _most_against(num, 1 - confidence, is_fixed=is_fixed)
    against = num - max(int((lows > 0).sum()), int((highs < 0).sum()))
    return Estimate(
        value=float(np.mean(middles)) if middles else math.nan,
        low=-math.inf if num_out is None else float(lows[num_out]),
        high=math.inf if num_out is None else float(highs[num - 1 - num_out]),
        num_seeds=num,
        std=float(known.std(ddof=1)) if len(known) > 1 else math.nan,
        p=sign_p_value(against, num, is_fixed=is_fixed),
    )


def median_margin_p(bounds: NDArray[np.float64], margin: float, *, is_fixed: bool) -> float:
    """Return the p-value of a median on the margin or beyond it, by two one-sided tests of signs; NaN without seeds.

    Args:
        bounds: (seeds, 2) as for ``median_estimate``.
        margin: the median is negligible within ± this.
        is_fixed: whether the number of seeds was fixed beforehand; else p holds at every look.
    """
    lows, highs = bounds[~np.isnan(bounds).any(axis=1)].T
    num = len(lows)
    if num == 0:
        return math.nan
    within = min(int((lows > -margin).sum()), int((highs < margin).sum()))
    return sign_p_value(num - within, num, is_fixed=is_fixed) / 2 if 2 * within > num else 1.0


@functools.cache
def _most_against(num: int, alpha: float, *, is_fixed: bool) -> int | None:
    """Return the most seeds against a side with which the test of signs still finds it; None where none may be."""
    found = (k for k in range(num // 2, -1, -1) if sign_p_value(k, num, is_fixed=is_fixed) < alpha)
    return next(found, None)


def seeds_by_signs(bounds: NDArray[np.float64], margin: float | None, alpha: float, *, is_fixed: bool) -> int | None:
    """Count the seeds at which the interval of a median decides, if the shares of signs stay as they are.

    Args:
        bounds: (seeds, 2) as for ``median_estimate``.
        margin: the median is negligible within ± this; None where nothing is.
        alpha: 1 - confidence level of the interval.
        is_fixed: whether the number of seeds is fixed beforehand.

    Returns:
        The number of seeds; None where no number up to ``MOST_SEEDS`` is enough.
    """
    lows, highs = bounds[~np.isnan(bounds).any(axis=1)].T
    if not len(lows):
        return None
    shares = [(lows > 0).mean(), (highs < 0).mean()]
    if margin is not None:
        shares.append(min((lows > -margin).mean(), (highs < margin).mean()))
    share = float(max(shares))

    def is_enough(num: int) -> bool:
        return sign_p_value(num - round(share * num), num, is_fixed=is_fixed) < alpha

    return fewest_seeds(is_enough) if share > 0.5 else None


@dataclass(frozen=True)
class RateComparison:
    """The rates of an event in two groups of runs.

    Attributes:
        count: runs of the first group with the event.
        total: runs of the first group.
        baseline_count: runs of the second group with the event.
        baseline_total: runs of the second group.
        p: p-value of equal rates, two-sided and exact; NaN where there is nothing to compare.
        p_holm: the same, adjusted by Holm's procedure for all effects of a family.
    """

    count: int
    total: int
    baseline_count: int
    baseline_total: int
    p: float
    p_holm: float = math.nan

    @property
    def change(self) -> Literal["lower", "higher"] | None:
        """Whether the event became rarer or more frequent; None where that is not certain."""
        if not self.p_holm < 1 - CONFIDENCE:
            return None
        return "lower" if self.count * self.baseline_total < self.baseline_count * self.total else "higher"

    @property
    def is_mostly(self) -> bool:
        """Whether the event happened to most runs of both groups."""
        return 2 * self.count > self.total and 2 * self.baseline_count > self.baseline_total


def compare_rates(
    happened: NDArray[np.float64], baseline_happened: NDArray[np.float64], *, is_fixed: bool
) -> RateComparison:
    """Compare the rates of an event in two groups of runs, exactly.

    For a fixed number of seeds this is Fisher's test ("Statistical Methods for Research Workers", 1934, section
    21.02). The other test takes runs in pairs and holds at every look: see ``evidence_of_rates``.

    Args:
        happened: for each run of the first group 1 where the event occurred, 0 where not, NaN without a run.
        baseline_happened: the same of the run that each is paired with: of the same seed and of the same other levels.
        is_fixed: whether the number of seeds was fixed beforehand.
    """
    present, of_baseline = (values[np.isfinite(values)] for values in (happened, baseline_happened))
    counts = int(present.sum()), len(present), int(of_baseline.sum()), len(of_baseline)
    if not (counts[1] and counts[3]):
        return RateComparison(*counts, math.nan)
    if is_fixed:
        table = np.array([[counts[0], counts[1] - counts[0]], [counts[2], counts[3] - counts[2]]])
        return RateComparison(*counts, float(stats.fisher_exact(table).pvalue))
    pairs = [(int(((happened == a) & (baseline_happened == b)).sum())) for a in (1, 0) for b in (1, 0)]
    return RateComparison(*counts, min(1.0, math.exp(-evidence_of_rates(*pairs))))


RATES_PRIOR = 0.18
"""Both parameters of the beta prior over each rate: those of Turner, Ly and Grünwald, section 4."""


@functools.cache
def evidence_of_rates(both: int, first: int, second: int, neither: int) -> float:
    """Return the log evidence against equal rates of an event in pairs of runs, which holds at every look.

    For rates θ and η of the two groups and ω = (θ + η) / 2, a pair has the likelihood ratio of θ and η against ω
    twice. It is at most 1 on average where the rates are equal and the runs of a pair are independent, or tend to
    share the event (Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for
    optional stopping", arXiv:2106.02693). The evidence is its product over pairs, mixed over θ and η.

    Args:
        both: pairs in which both runs have the event.
        first: pairs in which only the run of the first group has it.
        second: pairs in which only the run of the second group has it.
        neither: pairs in which neither has it.
    """
    rates = stats.beta.ppf((np.arange(48) + 0.5) / 48, RATES_PRIOR, RATES_PRIOR).clip(1e-9, 1 - 1e-9)
    one, other = rates[:, None], rates[None, :]
    middle = (one + other) / 2
    happens, not_one, not_other, never = np.log(middle), np.log1p(-one), np.log1p(-other), np.log1p(-middle)
    ratios = both * (np.log(one) + np.log(other) - 2 * happens) + neither * (not_one + not_other - 2 * never)
    ratios += first * (np.log(one) + not_other - happens - never)
    ratios += second * (np.log(other) + not_one - happens - never)
    return float(special.logsumexp(ratios) - math.log(ratios.size))


def seeds_needed(estimate: Estimate, alpha: float = 1 - CONFIDENCE, margin: float | None = None) -> int | None:
    """Count the seeds at which Student's t interval decides an effect as estimated, with probability ``POWER``.

    Args:
        estimate: the mean of paired differences.
        alpha: 1 - confidence level of the interval that has to exclude zero; ``margin_alpha`` of it is that of the one
            that has to lie within the margin.
        margin: the effect is negligible within ± this; None where nothing is.

    Returns:
        The number of seeds in all; None without a spread, or where no number up to ``MOST_SEEDS`` is enough.
    """
    if not estimate.std > 0:
        return None
    size, room = abs(estimate.value) / estimate.std, None if margin is None else margin / estimate.std

    def is_enough(num: int) -> bool:
        return _power(size, num, alpha, room) >= POWER

    return fewest_seeds(is_enough)


def fewest_seeds(is_enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number of seeds that is enough, as all larger ones are; None beyond ``MOST_SEEDS``."""
    numbers = range(2, MOST_SEEDS + 1)
    index = bisect.bisect_left(numbers, True, key=is_enough)
    return numbers[index] if index < len(numbers) else None


def _power(size: float, num: int, alpha: float, room: float | None) -> float:
    """Return the probability that the t interval of ``num`` differences decides; lengths in standard deviations."""
    critical = stats.t.ppf(1 - alpha / 2, num - 1)
    shift = size * math.sqrt(num)
    # The noncentral t as a mean of normals over quantiles of s / σ: SciPy's own fails at small df and large shifts.
    spreads = np.sqrt(stats.chi2.ppf((np.arange(500) + 0.5) / 500, num - 1) / (num - 1))
    settled = stats.norm.sf(critical * spreads - shift) + stats.norm.cdf(-critical * spreads - shift)
    if room is not None:
        # The interval lies within the margin, and that of the test of zero does not exclude it.
        within = stats.t.ppf(1 - margin_alpha(alpha) / 2, num - 1)
        near = np.minimum(room * math.sqrt(num) - within * spreads, critical * spreads)
        settled += np.where(near > 0, stats.norm.cdf(near - shift) - stats.norm.cdf(-near - shift), 0)
    return float(settled.mean())
