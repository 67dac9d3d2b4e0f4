"""Tests: sign flips, Holm's procedure, rates of events, and the number of seeds that a test needs.

``bench/simulations.py`` measures the error rates of each.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from gan_ablate.analysis.estimates import CONFIDENCE, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from gan_ablate.analysis.design import Design
    from gan_ablate.analysis.estimates import Estimate

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


@dataclass(frozen=True)
class RateComparison:
    """The rates of an event in two groups of runs.

    Attributes:
        count: runs of the first group with the event.
        total: runs of the first group.
        baseline_count: runs of the second group with the event.
        baseline_total: runs of the second group.
        p: p-value of Fisher's exact test of equal rates, two-sided; NaN where a group is empty.
    """

    count: int
    total: int
    baseline_count: int
    baseline_total: int
    p: float


def compare_rates(happened: Sequence[bool], baseline_happened: Sequence[bool]) -> RateComparison:
    """Compare rates exactly (Fisher, "Statistical Methods for Research Workers", 1934, section 21.02).

    Args:
        happened: whether the event occurred, for each run of the first group.
        baseline_happened: the same for each run of the second group.
    """
    counts = sum(happened), len(happened), sum(baseline_happened), len(baseline_happened)
    table = np.array([[counts[0], counts[1] - counts[0]], [counts[2], counts[3] - counts[2]]])
    p = float(stats.fisher_exact(table).pvalue) if counts[1] and counts[3] else math.nan
    return RateComparison(*counts, p)


def compare_event_rates(design: Design, runs: pd.DataFrame, levels: dict[str, str], event: str) -> RateComparison:
    """Compare how often a run diverged or collapsed at a level and at its factor's baseline, over all other factors.

    Args:
        design: the design of the runs.
        runs: from ``load_results``.
        levels: factor → level; an interaction compares both levels with both baselines.
        event: ``"diverged"`` or ``"collapsed"``.
    """
    happened: list[list[bool]] = []
    for wanted in (levels, {factor: design.factors[factor].baseline for factor in levels}):
        variants = [
            label
            for label, of_variant in design.variants.items()
            if all(of_variant[factor] == level for factor, level in wanted.items())
        ]
        if design.kind == "one-at-a-time" and wanted is not levels:
            variants = list(design.variants)[:1]
        over = runs.loc[runs["variant"].isin(variants) & runs["status"].isin(["completed", "diverged"])]
        if event == "collapsed":
            over = over.loc[over["collapsed"].notna()]
            happened.append([bool(value) for value in over["collapsed"]])
        else:
            happened.append([status == "diverged" for status in over["status"]])
    return compare_rates(*happened)


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
