"""Pairing: whether runs share seeds, what that is worth, and how runs compare that share nothing."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from gan_ablate.analysis.estimates import CONFIDENCE, Estimate, t_estimate
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gan_ablate.design.plan import Intervals

MIN_PAIRED_SEEDS = 4
"""With fewer seeds, the interval excludes nothing."""


def relative_efficiency(sides: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Estimate the relative efficiency of pairing: the variance of an unpaired over that of a paired difference.

    The sides A and B are means of the variants that are compared. Over different seeds the variance of A - B is
    Var A + Var B, over shared seeds Var(A - B): what a seed does to both alike cancels. The ratio is how many times as
    many seeds an unpaired comparison needs. It is (1 + Var(A + B) / Var(A - B)) / 2, and the interval of a ratio of two
    correlated normal variances is exact (Morgan, "A test for the significance of the difference between the two
    variances in a sample from a normal bivariate population", Biometrika 31, 1939).

    Args:
        sides: (seeds, 2) A and B; a seed with a NaN is left out.
        confidence: confidence level of the interval, in (0, 1).

    Returns:
        The ratio, above 1 where pairing pays; NaN where there are fewer than ``MIN_PAIRED_SEEDS`` seeds or no spread.
    """
    sides = sides[np.isfinite(sides).all(axis=1)]
    num = len(sides)
    if num < MIN_PAIRED_SEEDS:
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


@dataclass(frozen=True)
class Unpaired:
    """A contrast of means of runs that share nothing.

    Attributes:
        values: (runs, variants) of the variants that are compared; NaN where a variant has fewer runs than others.
        weights: (variants,) none of them zero.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64], weights: NDArray[np.float64]) -> Unpaired:
        """Take the variants with a weight."""
        return cls(values[:, weights != 0], weights[weights != 0])

    @classmethod
    def combine(cls, parts: Sequence[tuple[Unpaired, float]]) -> Unpaired:
        """Add contrasts of different runs, such as of several blocks, each times a factor."""
        most = max(len(contrast.values) for contrast, _ in parts)
        values = np.hstack(
            [
                np.pad(contrast.values, ((0, most - len(contrast.values)), (0, 0)), constant_values=np.nan)
                for contrast, _ in parts
            ]
        )
        return cls(values, np.concatenate([contrast.weights * factor for contrast, factor in parts]))

    def estimate(self, confidence: float = CONFIDENCE) -> Estimate:
        """Estimate the contrast with Welch's interval.

        The variances of the variants may differ. With n_i runs of variance s_i², the contrast Σ w_i m_i has the squared
        error Σ w_i² s_i² / n_i, whose degrees of freedom are those of Satterthwaite (Welch, "The generalization of
        'Student's' problem when several different population variances are involved", Biometrika 34, 1947):

            (Σ w_i² s_i² / n_i)² / Σ ((w_i² s_i² / n_i)² / (n_i - 1)).

        Args:
            confidence: confidence level of the interval, in (0, 1).

        Returns:
            The difference of the means; bounds and p are NaN where a variant has one run, all are NaN where one has
            none. ``num_seeds`` is the number of runs of the variant with the fewest; ``std`` is the error times its
            root.
        """
        mean, error, freedom, num = self._moments()
        if num < 2:
            return Estimate(mean, math.nan, math.nan, num)
        return t_estimate(mean, error, freedom, num, error * math.sqrt(num), confidence)

    def test_margin(self, margin: float) -> float:
        """Return the p-value of a contrast on the margin or beyond it, by two one-sided tests; NaN without a spread."""
        mean, error, freedom, num = self._moments()
        if num < 2 or not error > 1e-12 * abs(mean):
            return math.nan
        return float(stats.t.sf((margin - abs(mean)) / error, freedom))

    def _moments(self) -> tuple[float, float, float, int]:
        """Return the contrast of means, its error, the error's degrees of freedom, and the fewest runs."""
        nums = np.isfinite(self.values).sum(axis=0)
        num = int(nums.min())
        if num == 0:
            return math.nan, math.nan, math.nan, 0
        mean = float(self.weights @ np.nanmean(self.values, axis=0))
        if num == 1:
            return mean, math.nan, math.nan, 1
        parts = self.weights**2 * np.nanvar(self.values, axis=0, ddof=1) / nums
        freedom = parts.sum() ** 2 / (parts**2 / (nums - 1)).sum() if parts.any() else math.inf
        return mean, math.sqrt(parts.sum()), float(freedom), num


SHARED_ENOUGH = 0.85
"""The share of runs whose seed every variant has, from which on runs are compared within a seed.

Pairing leaves out the other runs. In this project's study, scores of one seed have a correlation of 0.15: an unpaired
difference of as many runs has 1 / 0.85 times the variance.
"""


@dataclass(frozen=True)
class Pairing:
    """How the runs of a user's table are compared.

    Attributes:
        runs: the table, whose column ``seed`` counts from 0: the seeds in their order, or the runs of each variant.
        num_seeds: how many numbers the column has.
        is_paired: whether runs of one seed are compared.
        words: a sentence that says so, and why.
    """

    runs: pd.DataFrame
    num_seeds: int
    is_paired: bool
    words: str


def pair_runs(
    runs: pd.DataFrame,
    seed: str | None,
    blocks: pd.Series[str] | None,
    *,
    asked: bool | None,
    intervals: Intervals,
    source: str,
) -> Pairing:
    """Decide whether the runs of a user's table are compared within a seed.

    Args:
        runs: with a column ``variant``, and a column ``seed`` of text where the table has seeds.
        seed: the name of the seed's column in the table; None where it has none.
        blocks: the name of each run's block, within which runs are compared; None without blocks.
        asked: whether the user wants runs to be paired; None to decide by the seeds.
        intervals: ``sequential`` if seeds were added after interim analyses.
        source: the table's name in messages.

    Raises:
        UserError: if runs are to be paired and have no seeds, or were added one by one and do not pair.
    """
    if asked and seed is None:
        raise UserError(f"{option('paired')}: {source} has no seeds; valid: {option('seed')} with the name of a column")
    of_block = pd.Series("", runs.index) if blocks is None else blocks
    if seed is not None and asked is not False:
        num_variants = runs["variant"].groupby(of_block).transform("nunique")
        is_shared = runs["variant"].groupby([of_block, runs["seed"]]).transform("nunique") == num_variants
        if asked or is_shared.mean() >= SHARED_ENOUGH:
            numbers, seeds = pd.factorize(runs["seed"])
            words = f"Runs are compared within a seed (the column {seed})."
            if not is_shared.all():
                words += f" {int((~is_shared).sum())} of {len(runs)} runs have a seed that some variant lacks."
            return Pairing(runs.assign(seed=numbers), len(seeds), is_paired=True, words=words)
        shared = f"{int(is_shared.sum())} of {len(runs)} runs have a seed that every variant has"
        reason, way_out = f"The seeds match in part: {shared}.", " Those alone are compared by --paired."
        if not is_shared.any():
            reason, way_out = "No seed has runs of every variant.", ""
    else:
        reason, way_out = ("The table has no seeds." if seed is None else "Runs of one seed share nothing."), ""
    if intervals == "sequential":
        raise UserError(
            f"{option('intervals', 'sequential')}: {source}: {reason[0].lower()}{reason[1:-1]}, so runs added one by "
            "one do not compare; valid: a table whose variants have the same seeds, in the order of adding"
        )
    by_chance = _number(runs, of_block)
    words = f"{reason} So runs are compared as independent ones, by Welch's t test.{way_out}"
    return Pairing(runs.assign(seed=by_chance), max(by_chance) + 1, is_paired=False, words=words)


def _number(runs: pd.DataFrame, blocks: pd.Series[str]) -> list[int]:
    """Number the runs of each variant in each block.

    The order depends neither on their results nor on that of the rows. Where differences are compared by their signs,
    runs of equal numbers are paired. A table that is sorted by its results would pair the best with the best.
    """
    texts = runs.map(str).agg("\x1f".join, axis="columns")
    keys = texts.map(lambda text: hashlib.sha256(text.encode()).hexdigest())
    return keys.groupby([blocks, runs["variant"]]).rank(method="first").astype(int).sub(1).tolist()
