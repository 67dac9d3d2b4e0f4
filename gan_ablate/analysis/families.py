"""Families: estimate the effects that are tested together, of a design and its runs."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

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
from gan_ablate.analysis.effects import Effect
from gan_ablate.analysis.estimates import (
    CONFIDENCE,
    Estimate,
    Interval,
    contrast_bounds,
    contrast_sides,
    log_scores,
    mean_estimate,
    subtract_sides,
)
from gan_ablate.analysis.pairing import Unpaired
from gan_ablate.analysis.sequential import (
    seeds_to_settle,
    sequential_estimate,
    sequential_interval,
    sequential_margin_p,
)
from gan_ablate.analysis.tests import (
    HolmTest,
    RateComparison,
    holm,
    margin_p,
    median_estimate,
    median_margin_p,
    seeds_by_signs,
)
from gan_ablate.design.outcomes import OUTCOMES, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from gan_ablate.analysis.design import Design
    from gan_ablate.design.plan import Intervals


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
        unpaired: the runs of either side, where they share nothing and their number was fixed beforehand; None where
            differences within a seed are estimated.
        unpaired_imputed: the same, with runs that diverged at the worst value; None where none diverged.
    """

    levels: dict[str, str]
    within: dict[str, str]
    sides: NDArray[np.float64]
    imputed: NDArray[np.float64] | None = None
    bounds: NDArray[np.float64] | None = None
    rates: dict[Event, RateComparison] = field(default_factory=dict)
    unpaired: Unpaired | None = None
    unpaired_imputed: Unpaired | None = None

    def estimate(self, intervals: Intervals, confidence: float = CONFIDENCE) -> Estimate:
        """Estimate the mean over seeds, or the median where there are bounds."""
        if self.bounds is not None:
            return median_estimate(self.bounds, confidence, is_fixed=intervals == "fixed")
        if self.unpaired is not None:
            return self.unpaired.estimate(confidence)
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
        if self.unpaired is not None:
            return self.unpaired.test_margin(margin)
        test = sequential_margin_p if intervals == "sequential" else margin_p
        return test(subtract_sides(self.sides), margin)

    def estimate_with_diverged(self, intervals: Intervals) -> Estimate | None:
        """Estimate the mean with runs that diverged at the worst value; None where none diverged."""
        if self.unpaired_imputed is not None:
            return self.unpaired_imputed.estimate()
        return None if self.imputed is None else _MEANS[intervals](subtract_sides(self.imputed), CONFIDENCE)

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
                with_diverged=comparison.estimate_with_diverged(intervals),
                sides=comparison.sides,
                confidence=confidence,
                bounds=comparison.bounds,
                rates=rates,
                equivalence=equivalence,
                unpaired=comparison.unpaired,
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
                Unpaired.of(values, contrast.weights) if design.by_welch else None,
                Unpaired.of(imputed, contrast.weights) if design.by_welch and imputed is not None else None,
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
