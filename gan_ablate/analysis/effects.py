"""Effects: how much a level changes an outcome, with intervals, family-wise tests and a decision."""

from __future__ import annotations

import functools
import html
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from gan_ablate.analysis.estimates import (
    CONFIDENCE,
    Estimate,
    Interval,
    bootstrap_interval,
    rate_interval,
    subtract_sides,
)
from gan_ablate.analysis.pairing import relative_efficiency
from gan_ablate.analysis.sequential import estimate_at_looks, settling_range
from gan_ablate.analysis.tests import NOT_TESTED, HolmTest, RateComparison, SignFlip, sign_flip_test
from gan_ablate.design.outcomes import Outcome, percent_change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gan_ablate.analysis.design import Event
    from gan_ablate.analysis.pairing import Unpaired


Decision = Literal["lower", "higher", "negligible", "inconclusive"]

INFLATED_BELOW = 2.0
"""Standard deviations of a paired difference below which an estimate at the stop is inflated. A true effect of half of
one that 12 seeds find is estimated 2.1 times too large, one of one 1.3 times, one of two 1.03 times
(``bench/calibration.py``)."""


@dataclass(frozen=True)
class Effect:
    """A main effect, simple effect or interaction on one outcome, or the baseline's distance from a value.

    Attributes:
        levels: factor → the level that is compared with its baseline; an interaction has two.
        within: factor → the level at which it is held, for a simple effect; empty for an average over all levels.
        is_fixed: whether the number of seeds was fixed beforehand; else the intervals hold at every look.
        outcome: the outcome. On the ratio scale all numbers below are log ratios.
        margin: the effect is negligible within ± this; None on the other scale.
        estimate: the mean over seeds with its 95 % interval, or the median: see ``basis``.
        test: its test in the family of all effects of its kind on this outcome.
        adjusted: the interval of all seeds at the level of the decision: that of Holm's step which rejects ``test``,
            which excludes zero, or else of the one which rejects ``equivalence``, which lies within the margin. It is
            ``strictest`` where neither is rejected. For seeds that are added one by one, see ``earlier_seeds``.
        strictest: the interval at the level of Holm's first test; such intervals of the whole family hold together.
        needed_seeds: number of seeds in all that would decide an effect of this size and spread if they were added one
            by one; None where it is decided, or where no number up to ``MOST_SEEDS`` would.
        with_diverged: the estimate if every run that diverged had the worst value of those that did not; None where
            none diverged.
        sides: (seeds, 2) means of the variants with positive and with negative weights; NaN where a seed has none.
        against: the value that the baseline's outcome is compared with; None for all other effects.
        confidence: confidence level of ``adjusted``.
        bounds: (seeds, 2) the lowest and highest that each seed's difference may be, where the median is estimated by
            signs; None where the mean is estimated.
        rates: event → how often it happened with the level and without it; events that happened.
        equivalence: the test of an effect on the margin or beyond it, in the family of those tests; rejected, the
            effect is negligible. Its p is NaN without a margin.
        unpaired: the means of independent runs whose difference is estimated; None where differences within a seed are.
    """

    levels: dict[str, str]
    within: dict[str, str]
    is_fixed: bool
    outcome: Outcome
    margin: float | None
    estimate: Estimate
    test: HolmTest
    adjusted: Interval
    strictest: Interval
    needed_seeds: int | None
    with_diverged: Estimate | None
    sides: NDArray[np.float64] = field(repr=False, compare=False)
    against: float | None = None
    confidence: float = CONFIDENCE
    bounds: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    rates: dict[Event, RateComparison] = field(default_factory=dict)
    equivalence: HolmTest = NOT_TESTED
    unpaired: Unpaired | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        """Show the effect in a notebook: its size, its adjusted interval, and its decision."""
        values = [self.estimate.value, self.adjusted.low, self.adjusted.high]
        is_ratio = self.outcome.scale == "ratio"
        value, low, high = (f"{percent_change(x):+.1f}" if is_ratio else f"{x:+.3g}" for x in values)
        name = html.escape(f"{self.name}{f', with {self.place}' if self.within else ''}")
        change = f"{self.value_bound}{value}{' %' * is_ratio} [{low}, {high}]"
        return f"<b>{name}</b>: {self.outcome.title} {change}, {self.decision}, {self.estimate.num_seeds} seeds"

    @property
    def name(self) -> str:
        """The effect in words: ``batch norm on``, or ``batch norm on × label smoothing on``."""
        return name_levels(self.levels) if self.against is None else f"the baseline against {self.against:g}"

    @property
    def place(self) -> str:
        """The levels that a simple effect holds, in words: ``batch norm off, dropout none``."""
        return name_levels(self.within, ", ")

    @property
    def is_paired(self) -> bool:
        """Whether differences within a seed are estimated."""
        return self.unpaired is None

    @property
    def is_interaction(self) -> bool:
        """Whether it is an interaction of two levels."""
        return len(self.levels) == 2

    @functools.cached_property
    def sign_flip(self) -> SignFlip:
        """The exact sign-flip test; NaN where the median is estimated, runs are not paired, or seeds were added."""
        return sign_flip_test(subtract_sides(self.sides) if self._has_fixed_pairs else np.array([np.nan]))

    @functools.cached_property
    def bootstrap(self) -> Interval | None:
        """The bootstrap interval; None where ``sign_flip`` has no test, and with few seeds."""
        return bootstrap_interval(subtract_sides(self.sides)) if self._has_fixed_pairs else None

    @property
    def _has_fixed_pairs(self) -> bool:
        return self.is_fixed and self.is_paired and self.basis == "mean"

    @functools.cached_property
    def pairing(self) -> Estimate:
        """The relative efficiency of pairing, see ``relative_efficiency``; NaN where runs are not paired."""
        return relative_efficiency(self.sides if self.is_paired else np.full((1, 2), np.nan))

    @property
    def basis(self) -> Literal["mean", "median"]:
        """What is estimated: the mean over seeds by Student's t, or the median by signs.

        The median, how the typical run changes, stands where some runs of a variant collapsed and others did not,
        where any diverged, and where any value is censored.
        """
        return "mean" if self.bounds is None else "median"

    @property
    def value_bound(self) -> Literal["", "≥", "≤"]:
        """How the estimate bounds the median, where that lies among censored differences; else empty."""
        if self.bounds is None or self.estimate.num_seeds == 0:
            return ""
        lows, highs = (np.isfinite(np.median(ends)) for ends in self.bounds[~np.isnan(self.bounds).any(axis=1)].T)
        return "" if lows == highs else "≥" if lows else "≤"

    @property
    def seed_bounds(self) -> NDArray[np.float64]:
        """(seeds, 2) the lowest and highest that each seed's difference may be; NaN where a seed has none."""
        return np.stack([subtract_sides(self.sides)] * 2, axis=1) if self.bounds is None else self.bounds

    def has_seed(self, row: int) -> bool:
        """Whether the seed of a row of ``sides`` tells of the effect."""
        return not np.isnan(self.seed_bounds[row]).any()

    @property
    def failure_change(self) -> Literal["lower", "higher"] | None:
        """Whether runs collapse or diverge less or more often with the level; None where that is not certain.

        It is None for an interaction, whose rates compare both levels with neither.
        """
        if self.is_interaction:
            return None
        changes = {rates.change for rates in self.rates.values()} - {None}
        return changes.pop() if len(changes) == 1 else None

    @property
    def compares_failures(self) -> bool:
        """Whether most runs collapsed both with and without the level, so that its decision is no remedy's."""
        return "collapsed" in self.rates and self.rates["collapsed"].is_mostly

    @property
    def allowed_collapse_rate(self) -> float:
        """The highest rate of collapse with the level that its seeds allow: an upper 95 % bound, at most 1.

        Where none collapsed, the bound holds at every look: 45 % after 5 seeds, 22 % after 12.
        """
        rates = self.rates.get("collapsed")
        if rates is not None and rates.count:
            return rate_interval(rates.count, rates.total, 2 * CONFIDENCE - 1).high
        return 1 - math.pow(1 - CONFIDENCE, 1 / max(1, self.estimate.num_seeds))

    @property
    def decision(self) -> Decision:
        """The decision of the effect's tests in their families."""
        if self.test.is_rejected:
            return "lower" if self.estimate.value < 0 else "higher"
        return "negligible" if self.equivalence.is_rejected else "inconclusive"

    @property
    def answer(self) -> Decision:
        """The decision on FID with what collapse adds to it.

        It is ``higher`` where more runs collapse or diverge, ``negligible`` where a direction is too small to matter,
        and ``inconclusive`` where failures are compared, or where FID and the rate of collapse contradict each other.
        """
        is_worse, is_rarer = self.failure_change == "higher", self.failure_change == "lower"
        is_torn = self.decision == "lower" if is_worse else is_rarer and self.decision != "lower"
        if self.compares_failures or is_torn:
            return "inconclusive"
        if is_worse:
            return "higher"
        return "negligible" if self.is_too_small else self.decision

    @functools.cached_property
    def earlier_seeds(self) -> int | None:
        """The number of seeds that decided, where the interval of all seeds alone would not; None elsewhere.

        A test rejects at any look, and stays so; the adjusted interval is that of all seeds.
        """
        is_by_signs = self.bounds is not None  # whose p is that of all seeds
        if self.is_fixed or is_by_signs or self.decision == "inconclusive" or self._is_shown_by(self.adjusted):
            return None
        values = subtract_sides(self.sides)
        looks = estimate_at_looks(values[np.isfinite(values)], self.confidence)
        intervals = map(Interval, looks.low, looks.high)
        return next((num for num, at in enumerate(intervals, 1) if self._is_shown_by(at)), None)

    def _is_shown_by(self, bounds: Interval) -> bool:
        if self.test.is_rejected:
            return bounds.high < 0 if self.estimate.value < 0 else bounds.low > 0
        return bounds.lies_within(self.margin)

    @functools.cached_property
    def likely_seeds(self) -> tuple[int, int | None] | None:
        """The fewest and the most seeds, in all, that are likely to decide an inconclusive effect.

        See ``settling_range``; the second is None where no number in reach might. For a median it is not known, either.
        """
        if self.bounds is not None:
            return None if self.needed_seeds is None else (self.needed_seeds, None)
        return None if self.needed_seeds is None else settling_range(self.estimate, self.margin, self.confidence)

    @property
    def is_found(self) -> bool:
        """Whether the decision is a direction."""
        return self.decision in ("lower", "higher")

    @property
    def is_inflated(self) -> bool:
        """Whether the estimate is probably too large, as seeds were added until it was large enough to be found."""
        if self.is_fixed or self.basis == "median":
            return False
        return self.is_found and abs(self.estimate.value) < INFLATED_BELOW * self.estimate.std

    @property
    def is_too_small(self) -> bool:
        """Whether the decision is a direction, and the effect lies within the margin."""
        return self.is_found and self.equivalence.is_rejected and self.adjusted.lies_within(self.margin)

    @property
    def is_beyond_margin(self) -> bool:
        """Whether the decision is a direction, and the effect is larger than the margin."""
        bounds = self.strictest
        return self.is_found and self.margin is not None and (bounds.low > self.margin or bounds.high < -self.margin)


def name_levels(levels: Mapping[str, str], between: str = " × ") -> str:
    """Write levels with their factors: ``batch norm on × label smoothing on``."""
    return between.join(f"{factor.replace('_', ' ')} {level}" for factor, level in levels.items())
