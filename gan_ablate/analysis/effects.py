"""Effects: how much each level changes an outcome, with intervals, family-wise tests and a decision."""

from __future__ import annotations

import dataclasses
import functools
import html
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, assert_never

import numpy as np

from gan_ablate.analysis.design import (
    Contrast,
    Event,
    Events,
    iterate_contrasts,
    iterate_simple_contrasts,
    tabulate_censoring,
    tabulate_column,
)
from gan_ablate.analysis.estimates import (
    CONFIDENCE,
    Estimate,
    Interval,
    bootstrap_interval,
    contrast_bounds,
    contrast_sides,
    log_scores,
    mean_estimate,
    rate_interval,
    relative_efficiency,
    subtract_sides,
)
from gan_ablate.analysis.sequential import (
    estimate_at_looks,
    seeds_to_settle,
    sequential_estimate,
    sequential_interval,
    sequential_margin_p,
    settling_range,
)
from gan_ablate.analysis.tests import (
    NOT_TESTED,
    HolmTest,
    RateComparison,
    SignFlip,
    holm,
    margin_p,
    median_estimate,
    median_margin_p,
    seeds_by_signs,
    sign_flip_test,
)
from gan_ablate.design.outcomes import OUTCOMES, Outcome, percent_change

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from gan_ablate.analysis.design import Design
    from gan_ablate.design.plan import Intervals


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
    def is_interaction(self) -> bool:
        """Whether it is an interaction of two levels."""
        return len(self.levels) == 2

    @functools.cached_property
    def sign_flip(self) -> SignFlip:
        """The exact sign-flip test; NaN where the median is estimated, or seeds were not fixed beforehand."""
        is_tested = self.is_fixed and self.basis == "mean"
        return sign_flip_test(subtract_sides(self.sides) if is_tested else np.array([np.nan]))

    @functools.cached_property
    def bootstrap(self) -> Interval | None:
        """The bootstrap interval; None where ``sign_flip`` has no test, and with few seeds."""
        return bootstrap_interval(subtract_sides(self.sides)) if self.is_fixed and self.basis == "mean" else None

    @functools.cached_property
    def pairing(self) -> Estimate:
        """The relative efficiency of pairing; see ``relative_efficiency``."""
        return relative_efficiency(self.sides)

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


@dataclass(frozen=True)
class Comparison:
    """The data of one effect.

    Attributes:
        levels: factor → the level that is compared with its baseline; an interaction has two.
        within: factor → the level at which it is held, for a simple effect; empty for an average over all levels.
        sides: (seeds, 2) the two sides of the contrast; NaN where a seed has not both.
        imputed: (seeds, 2) the same, with runs that diverged at the worst value; None where none diverged.
        bounds: (seeds, 2) the lowest and highest that each seed's difference may be, if the median is to be estimated;
            None for the mean.
        rates: event → how often it happened with the levels and without them; events that happened.
    """

    levels: dict[str, str]
    within: dict[str, str]
    sides: NDArray[np.float64]
    imputed: NDArray[np.float64] | None = None
    bounds: NDArray[np.float64] | None = None
    rates: dict[Event, RateComparison] = field(default_factory=dict)

    def estimate(self, intervals: Intervals, confidence: float = CONFIDENCE) -> Estimate:
        """Estimate the mean over seeds, or the median where there are bounds."""
        if self.bounds is not None:
            return median_estimate(self.bounds, confidence, is_fixed=intervals == "fixed")
        return _MEANS[intervals](subtract_sides(self.sides), confidence)

    def interval(self, estimate: Estimate, intervals: Intervals, confidence: float) -> Interval:
        """Return the interval of its estimate at another level."""
        if math.isnan(estimate.low):  # so is another one
            return estimate.interval
        if self.bounds is None and intervals == "sequential":
            return sequential_interval(estimate, confidence)
        return self.estimate(intervals, confidence).interval

    def test_margin(self, margin: float, intervals: Intervals) -> float:
        """Return the p-value of an effect on the margin or beyond it."""
        if self.bounds is not None:
            return median_margin_p(self.bounds, margin, is_fixed=intervals == "fixed")
        test = sequential_margin_p if intervals == "sequential" else margin_p
        return test(subtract_sides(self.sides), margin)

    def needed_seeds(self, estimate: Estimate, margin: float | None, level: float, intervals: Intervals) -> int | None:
        """Count the seeds, in all, that would decide the effect if it stays as estimated."""
        if self.bounds is not None:
            return seeds_by_signs(self.bounds, margin, 1 - level, is_fixed=intervals == "fixed")
        return seeds_to_settle(estimate, margin, level)


_MEANS = {"fixed": mean_estimate, "sequential": sequential_estimate}


def estimate_family(
    family: Sequence[Comparison], outcome: Outcome, margin: float | None, intervals: Intervals
) -> list[Effect]:
    """Estimate the effects of one family of tests.

    Args:
        family: the effects that are tested together.
        outcome: the outcome of all of them.
        margin: the effect is negligible within ± this; None where nothing is.
        intervals: whether the number of seeds was fixed beforehand, or intervals hold at every look.
    """
    if not family:
        return []
    strictest = 1 - (1 - CONFIDENCE) / len(family)
    estimates = [comparison.estimate(intervals) for comparison in family]
    tests = holm([estimate.p for estimate in estimates])
    beyond = [math.nan if margin is None else comparison.test_margin(margin, intervals) for comparison in family]
    equivalences = holm(beyond, fewest=2)
    effects = []
    for comparison, rates, estimate, test, equivalence in zip(
        family, _adjust_rates(family), estimates, tests, equivalences, strict=True
    ):
        confidence = _confidence_of(test, equivalence, strictest)
        adjusted, widest = (comparison.interval(estimate, intervals, level) for level in (confidence, strictest))
        is_settled = test.is_rejected or equivalence.is_rejected
        needed = None if is_settled else comparison.needed_seeds(estimate, margin, strictest, intervals)
        with_diverged = None
        if comparison.imputed is not None:
            with_diverged = _MEANS[intervals](subtract_sides(comparison.imputed), CONFIDENCE)
        effects.append(
            Effect(
                levels=comparison.levels,
                within=comparison.within,
                is_fixed=intervals == "fixed",
                outcome=outcome,
                margin=margin,
                estimate=estimate,
                test=test,
                adjusted=adjusted,
                strictest=widest,
                needed_seeds=needed,
                with_diverged=with_diverged,
                sides=comparison.sides,
                confidence=confidence,
                bounds=comparison.bounds,
                rates=rates,
                equivalence=equivalence,
            )
        )
    return effects


def _adjust_rates(family: Sequence[Comparison]) -> list[dict[Event, RateComparison]]:
    """Adjust the p-values of rates for all effects of a family; those without the event count, too."""
    adjusted: list[dict[Event, RateComparison]] = [{} for _ in family]
    events: tuple[Event, ...] = ("diverged", "collapsed")
    for event in events:
        of_event = [comparison.rates.get(event) for comparison in family]
        tests = holm([math.nan if rates is None else rates.p for rates in of_event])
        for rates, test, of_effect in zip(of_event, tests, adjusted, strict=True):
            if rates is not None:
                of_effect[event] = dataclasses.replace(rates, p_holm=test.p)
    return adjusted


def _confidence_of(test: HolmTest, equivalence: HolmTest, strictest: float) -> float:
    """Return the confidence level of the adjusted interval: that of the test which decides, or the strictest."""
    if test.is_rejected:
        return test.confidence
    return 2 * equivalence.confidence - 1 if equivalence.is_rejected else strictest


def name_levels(levels: Mapping[str, str], between: str = " × ") -> str:
    """Write levels with their factors: ``batch norm on × label smoothing on``."""
    return between.join(f"{factor.replace('_', ' ')} {level}" for factor, level in levels.items())


def estimate_effects(design: Design, runs: pd.DataFrame, outcome: str | Outcome = "fid") -> list[Effect]:
    """Estimate a design's main effects and interactions on an outcome, in the order of ``iterate_contrasts``.

    Args:
        design: the design of the runs.
        runs: a row per run, as ``load_results`` returns it: the columns variant, seed, status and the outcome's.
        outcome: a name in ``OUTCOMES``, or an outcome of the user's table.
    """
    return _estimate(design, runs, _find(outcome), iterate_contrasts(design))


def estimate_against(
    design: Design, runs: pd.DataFrame, outcome: str, value: float, margin: float | None = None
) -> Effect | None:
    """Estimate how far the baseline's outcome lies from a value. The family has this effect alone.

    Args:
        design: the design of the runs.
        runs: from ``load_results``.
        outcome: a name in ``OUTCOMES``, on the scale of differences.
        value: the value that it is compared with.
        margin: the difference is negligible within ± this; None where nothing is.

    Returns:
        The effect, or None where no run of the baseline has the outcome.
    """
    column = _matrix(design, runs, OUTCOMES[outcome])[:, 0]
    if not np.isfinite(column).any():
        return None
    sides = np.stack([column, np.full(len(column), value)], axis=1)
    (effect,) = estimate_family([Comparison({}, {}, sides)], OUTCOMES[outcome], margin, design.intervals)
    return dataclasses.replace(effect, against=value)


def estimate_simple_effects(design: Design, runs: pd.DataFrame, outcome: str | Outcome = "fid") -> list[Effect]:
    """Estimate each level's effect at every combination of the other factors' levels, as one family.

    The spread of each is that of its two variants alone: spreads of variants may differ tenfold.

    Args:
        design: the design of the runs; only a factorial one has simple effects.
        runs: a row per run, as ``load_results`` returns it: the columns variant, seed, status and the outcome's.
        outcome: a name in ``OUTCOMES``, or an outcome of the user's table.
    """
    return _estimate(design, runs, _find(outcome), iterate_simple_contrasts(design))


def _find(outcome: str | Outcome) -> Outcome:
    return OUTCOMES[outcome] if isinstance(outcome, str) else outcome


def _estimate(design: Design, runs: pd.DataFrame, outcome: Outcome, contrasts: Iterable[Contrast]) -> list[Effect]:
    values = _matrix(design, runs, outcome)
    events = Events.of(design, runs)
    imputed = events.impute_diverged(outcome, values)
    lows, highs = events.bound(outcome, values, tabulate_censoring(design, runs, outcome))
    family = []
    for contrast in contrasts:
        sides, bounds = contrast_sides(values, contrast.weights), contrast_bounds(lows, highs, contrast.weights)
        compared = np.flatnonzero(~np.isnan(bounds).any(axis=1))
        is_censored = bool((bounds[compared, 0] != bounds[compared, 1]).any())
        if is_censored and outcome.is_censored and len(contrast.levels) == 2:
            sides, bounds = np.full_like(sides, np.nan), np.full_like(bounds, np.nan)
        by_signs = not outcome.is_cost and (is_censored or events.are_mixed(contrast, compared))
        family.append(
            Comparison(
                contrast.levels,
                contrast.within,
                sides,
                None if imputed is None else contrast_sides(imputed, contrast.weights),
                bounds if by_signs else None,
                events.compare(contrast),
            )
        )
    return estimate_family(family, outcome, _find_margin(design, outcome, values), design.intervals)


def _find_margin(design: Design, outcome: Outcome, values: NDArray[np.float64]) -> float | None:
    """Find the margin of an outcome: the grid's, the outcome's own, or the grid's share of the baseline's mean."""
    if outcome.scale == "ratio":
        return design.log_margin
    if outcome.margin != "relative":
        return outcome.margin
    baseline = values[:, 0][np.isfinite(values[:, 0])]
    share = math.expm1(design.log_margin)
    return share * abs(float(baseline.mean())) if len(baseline) and baseline.mean() else None


def _matrix(design: Design, runs: pd.DataFrame, outcome: Outcome) -> NDArray[np.float64]:
    """Arrange an outcome as (seeds, variants): logarithms on the ratio scale, NaN where a run has no value."""
    values = tabulate_column(design, runs, runs[outcome.name])
    match outcome.scale:
        case "difference":
            return values
        case "ratio":
            return log_scores(values)
        case _:
            assert_never(outcome.scale)
