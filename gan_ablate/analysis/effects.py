"""Effects: what each level changes of an outcome, with intervals, tests of the whole family, and a decision."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, assert_never

import numpy as np

from gan_ablate.analysis.design import Contrast, iterate_contrasts, iterate_simple_contrasts
from gan_ablate.analysis.estimates import (
    CONFIDENCE,
    Estimate,
    Interval,
    bootstrap_interval,
    contrast_sides,
    contrast_values,
    log_scores,
    mean_estimate,
    relative_efficiency,
)
from gan_ablate.analysis.sequential import seeds_to_settle, sequential_estimate
from gan_ablate.analysis.tests import HolmTest, SignFlip, holm, sign_flip_test
from gan_ablate.design.outcomes import OUTCOMES, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from gan_ablate.analysis.design import Design
    from gan_ablate.design.plan import Intervals


DIFFERENCE = np.array([1.0, -1.0])
"""The contrast of two sides."""

Decision = Literal["lower", "higher", "negligible", "open"]


@dataclass(frozen=True)
class Effect:
    """What one level changes of one outcome, or how one level's change depends on another's.

    Attributes:
        levels: factor → level that is compared with the factor's baseline; two of them for an interaction.
        within: factor → level at which all others stand still, for a simple effect; empty for an average over them.
        is_fixed: whether the number of seeds was fixed beforehand; else the intervals hold at every look.
        outcome: of what. On the ratio scale all numbers below are log ratios.
        margin: the effect is negligible within ± this; None where the outcome knows no such bound.
        estimate: the mean over seeds with its own 95 % interval.
        test: its place in the family of all effects of its kind on this outcome.
        adjusted: the interval that excludes zero exactly where Holm's procedure calls it an effect; elsewhere the
            strictest.
        strictest: the interval at the level of Holm's first test: those of all effects of the family hold together.
        needed_seeds: how many, in all, would settle an effect of this size and spread if they were added one by one;
            None where it is settled, or no number in reach would.
        with_diverged: the estimate if every run that diverged had scored like the worst one that did not, which is the
            least that its divergence can count; None where none diverged.
        sides: (seeds, 2) means of the variants that count positively, and of the others; NaN where a seed has none.
        against: the value that the baseline's outcome is compared with, where no levels are.
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

    @property
    def name(self) -> str:
        """Words for it: ``batch norm on``, or ``batch norm on × label smoothing on``."""
        return name_levels(self.levels) if self.against is None else f"the baseline against {self.against:g}"

    @property
    def place(self) -> str:
        """Words for where a simple effect is measured: ``batch norm off, dropout none``."""
        return name_levels(self.within, ", ")

    @property
    def is_interaction(self) -> bool:
        """Whether it compares effects rather than levels."""
        return len(self.levels) == 2

    @functools.cached_property
    def sign_flip(self) -> SignFlip:
        """The exact test without any assumption on the distribution; of a number of seeds that was fixed beforehand."""
        return sign_flip_test(contrast_values(self.sides, DIFFERENCE) if self.is_fixed else np.array([np.nan]))

    @functools.cached_property
    def bootstrap(self) -> Interval | None:
        """The interval from resampled seeds, where there are enough of them, their number fixed beforehand."""
        return bootstrap_interval(contrast_values(self.sides, DIFFERENCE)) if self.is_fixed else None

    @functools.cached_property
    def pairing(self) -> Estimate:
        """The variance over seeds of their own for either side, over that over shared seeds: a ratio."""
        return relative_efficiency(self.sides)

    @property
    def decision(self) -> Decision:
        """What the adjusted interval allows to say: a direction, that it does not matter, or nothing yet."""
        if not self.is_steady:
            return "open"
        if self.test.is_rejected:
            return "lower" if self.estimate.value < 0 else "higher"
        return "negligible" if self.adjusted.lies_within(self.margin) else "open"

    @property
    def is_steady(self) -> bool:
        """Whether the mean of all seeds lies where earlier looks left room for it."""
        value = self.estimate.value
        return not (value < self.adjusted.low or value > self.adjusted.high)

    @property
    def is_found(self) -> bool:
        """Whether it is certainly an effect."""
        return self.decision in ("lower", "higher")

    @property
    def is_too_small(self) -> bool:
        """Whether it is an effect that is certainly within the margin: real, and too small to matter."""
        return self.is_found and self.strictest.lies_within(self.margin)

    @property
    def is_beyond_margin(self) -> bool:
        """Whether it is an effect that is certainly larger than the margin."""
        bounds = self.strictest
        return self.is_found and self.margin is not None and (bounds.low > self.margin or bounds.high < -self.margin)


@dataclass(frozen=True)
class Comparison:
    """What an effect is estimated from.

    Attributes:
        levels: as of the effect.
        within: as of the effect.
        sides: (seeds, 2) what is compared in every seed; NaN where a seed has not both.
        imputed: the same with runs that diverged at the worst value there is; None where none did.
    """

    levels: dict[str, str]
    within: dict[str, str]
    sides: NDArray[np.float64]
    imputed: NDArray[np.float64] | None = None


def estimate_family(
    family: Sequence[Comparison], outcome: Outcome, margin: float | None, intervals: Intervals
) -> list[Effect]:
    """Estimate the effects of one family of tests.

    Args:
        family: all that are tested together.
        outcome: of what.
        margin: within ± which a log ratio does not matter; None on the other scale.
        intervals: for a number of seeds that was fixed beforehand, or of every look.
    """
    if not family:
        return []
    estimate_mean = {"fixed": mean_estimate, "sequential": sequential_estimate}[intervals]
    strictest = 1 - (1 - CONFIDENCE) / len(family)
    per_seed = [contrast_values(comparison.sides, DIFFERENCE) for comparison in family]
    estimates = [estimate_mean(differences) for differences in per_seed]
    tests = holm([estimate.p for estimate in estimates])
    effects = []
    for comparison, differences, estimate, test in zip(family, per_seed, estimates, tests, strict=True):
        widest = estimate_mean(differences, strictest)
        if not math.isfinite(estimate.low):  # a wider interval is no narrower
            widest = estimate
        adjusted = (estimate_mean(differences, test.confidence) if test.is_rejected else widest).interval
        is_settled = test.is_rejected or adjusted.lies_within(margin)
        with_diverged = None
        if comparison.imputed is not None:
            with_diverged = estimate_mean(contrast_values(comparison.imputed, DIFFERENCE))
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
                strictest=widest.interval,
                needed_seeds=None if is_settled else seeds_to_settle(estimate, margin, strictest),
                with_diverged=with_diverged,
                sides=comparison.sides,
            )
        )
    return effects


def name_levels(levels: Mapping[str, str], between: str = " × ") -> str:
    """Write levels with their factors: ``batch norm on × label smoothing on``."""
    return between.join(f"{factor.replace('_', ' ')} {level}" for factor, level in levels.items())


def estimate_effects(design: Design, runs: pd.DataFrame, outcome: str | Outcome = "fid") -> list[Effect]:
    """Estimate every effect on an outcome that a design can show: main effects first, then interactions.

    Args:
        design: a plan, or what a table shows of one; its margin, and whether its intervals have to hold at every look.
        runs: a row per run with columns variant, seed, status and the outcome's, as ``load_results`` returns.
        outcome: a name in ``OUTCOMES``, or an outcome of the user's table.
    """
    return _estimate(design, runs, _find(outcome), iterate_contrasts(design))


def estimate_against(
    design: Design, runs: pd.DataFrame, outcome: str, value: float, margin: float | None = None
) -> Effect | None:
    """Estimate how far the baseline's outcome lies from a value: a family of its own.

    Args:
        design: whose baseline, and whether its intervals have to hold at every look.
        runs: from ``load_results``.
        outcome: a name in ``OUTCOMES``, on the scale of differences.
        value: what it is compared with.
        margin: within ± which it counts as there.

    Returns:
        None where no run of the baseline has the outcome.
    """
    column = _matrix(design, runs, OUTCOMES[outcome])[:, 0]
    if not np.isfinite(column).any():
        return None
    sides = np.stack([column, np.full(len(column), value)], axis=1)
    (effect,) = estimate_family([Comparison({}, {}, sides)], OUTCOMES[outcome], margin, design.intervals)
    return dataclasses.replace(effect, against=value)


def estimate_simple_effects(design: Design, runs: pd.DataFrame, outcome: str | Outcome = "fid") -> list[Effect]:
    """Estimate each level's effect at every combination of the other factors' levels: a family of its own.

    Each rests on its own two variants, and no spread is shared: it may differ tenfold between them.

    Args:
        design: a factorial one; others have none.
        runs: a row per run with columns variant, seed, status and the outcome's, as ``load_results`` returns.
        outcome: a name in ``OUTCOMES``, or an outcome of the user's table.
    """
    return _estimate(design, runs, _find(outcome), iterate_simple_contrasts(design))


def _find(outcome: str | Outcome) -> Outcome:
    return OUTCOMES[outcome] if isinstance(outcome, str) else outcome


def _estimate(design: Design, runs: pd.DataFrame, outcome: Outcome, contrasts: Iterable[Contrast]) -> list[Effect]:
    """Estimate the effects of one family."""
    values = _matrix(design, runs, outcome)
    imputed = _impute_diverged(design, runs, outcome, values)
    family = [
        Comparison(
            contrast.levels,
            contrast.within,
            contrast_sides(values, contrast.weights),
            None if imputed is None else contrast_sides(imputed, contrast.weights),
        )
        for contrast in contrasts
    ]
    margin = design.log_margin if outcome.scale == "ratio" else None
    return estimate_family(family, outcome, margin, design.intervals)


def _matrix(design: Design, runs: pd.DataFrame, outcome: Outcome) -> NDArray[np.float64]:
    """Lay a column out as (seeds, variants), logarithms on the ratio scale, NaN where a run has no value."""
    values = _table(design, runs, outcome.name)
    match outcome.scale:
        case "difference":
            return values
        case "ratio":
            return log_scores(values)
        case _:
            assert_never(outcome.scale)


def _table(design: Design, runs: pd.DataFrame, column: str) -> NDArray[np.float64]:
    rows = {seed: row for row, seed in enumerate(design.seeds)}
    columns = {label: number for number, label in enumerate(design.variants)}
    table = np.full((len(rows), len(columns)), np.nan)
    for seed, label, value in zip(runs["seed"], runs["variant"], runs[column].astype(float), strict=True):
        if seed in rows and label in columns:
            table[rows[seed], columns[label]] = value
    return table


def _impute_diverged(
    design: Design, runs: pd.DataFrame, outcome: Outcome, values: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Give runs that diverged the worst value there is; None where that is not defined or none diverged."""
    has_diverged = _table(design, runs.assign(has_diverged=runs["status"] == "diverged"), "has_diverged") == 1
    if outcome.better is None or not has_diverged.any() or not np.isfinite(values).any():
        return None
    worst = np.nanmax(values) if outcome.better == "lower" else np.nanmin(values)
    return np.where(has_diverged & ~np.isfinite(values), worst, values)
