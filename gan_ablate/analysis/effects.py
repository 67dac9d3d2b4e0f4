"""A plan and its table in, named effects out: each level against its factor's baseline, and two-way interactions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import numpy as np

from gan_ablate.analysis.outcomes import OUTCOMES, Outcome
from gan_ablate.analysis.significance import (
    HolmTest,
    RateComparison,
    SignFlip,
    compare_rates,
    holm,
    seeds_needed,
    sign_flip_test,
)
from gan_ablate.analysis.stats import Estimate, Interval, bootstrap_interval, contrast_values, log_scores, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from gan_ablate.design.planning import Plan


@dataclass(frozen=True)
class Effect:
    """What one level changes of one outcome, or how one level's change depends on another's.

    Attributes:
        levels: factor → level that is compared with the factor's baseline; two of them for an interaction.
        outcome: of what. On the ratio scale all numbers below are log ratios.
        estimate: the mean over seeds with its own 95 % interval, Student's t.
        test: its place in the family of all effects of the design on this outcome.
        adjusted: the interval that excludes zero exactly where Holm's procedure calls it an effect.
        sign_flip: the exact test without any assumption on the distribution.
        bootstrap: the interval from resampled seeds, where there are enough of them.
        needed_seeds: how many, in all, would find an effect of this size and spread with a chance of 80 %; None where
            that is not known, or no number in reach would.
        with_diverged: the estimate if every run that diverged had scored like the worst one that did not, which is the
            least that its divergence can count; None where none diverged.
    """

    levels: dict[str, str]
    outcome: Outcome
    estimate: Estimate
    test: HolmTest
    adjusted: Interval
    sign_flip: SignFlip
    bootstrap: Interval | None
    needed_seeds: int | None
    with_diverged: Estimate | None

    @property
    def name(self) -> str:
        """Words for it: ``batch norm on``, or ``batch norm on × label smoothing on``."""
        return " × ".join(f"{factor.replace('_', ' ')} {level}" for factor, level in self.levels.items())

    @property
    def is_interaction(self) -> bool:
        """Whether it compares effects rather than levels."""
        return len(self.levels) == 2


def estimate_effects(plan: Plan, runs: pd.DataFrame, outcome: str = "fid") -> list[Effect]:
    """Estimate every effect on an outcome that a plan's design can show: main effects first, then interactions.

    In a factorial design an effect is averaged over the levels of the other factors; in a one-at-a-time design it
    compares one cell with the baseline, and there are no interactions.

    Args:
        plan: the design.
        runs: from ``load_results``.
        outcome: a name in ``OUTCOMES``.
    """
    measured = OUTCOMES[outcome]
    values = _matrix(plan, runs, measured)
    imputed = _impute_diverged(plan, runs, measured, values)
    contrasts = list(_contrasts(plan))
    per_seed = [contrast_values(values, weights) for _, weights in contrasts]
    estimates = [mean_estimate(differences) for differences in per_seed]
    tests = holm([estimate.p for estimate in estimates])
    effects = []
    for (levels, weights), differences, estimate, test in zip(contrasts, per_seed, estimates, tests, strict=True):
        wide = mean_estimate(differences, test.confidence)
        with_diverged = None
        if imputed is not None:
            with_diverged = mean_estimate(contrast_values(imputed, weights))
        effects.append(
            Effect(
                levels=levels,
                outcome=measured,
                estimate=estimate,
                test=test,
                adjusted=Interval(wide.low, wide.high),
                sign_flip=sign_flip_test(differences),
                bootstrap=bootstrap_interval(differences),
                needed_seeds=seeds_needed(estimate, 1 - test.confidence),
                with_diverged=with_diverged,
            )
        )
    return effects


def compare_event_rates(plan: Plan, runs: pd.DataFrame, levels: dict[str, str], event: str) -> RateComparison:
    """Compare how often a run diverged or collapsed at a level and at its factor's baseline, over all other factors.

    Args:
        plan: the design.
        runs: from ``load_results``.
        levels: factor → level; for an interaction, both levels against both baselines.
        event: ``"diverged"`` or ``"collapsed"``.
    """
    happened: list[list[bool]] = []
    for wanted in (levels, {factor: plan.grid.factors[factor].baseline for factor in levels}):
        cells = [cell.label for cell in plan.cells if all(cell.levels[f] == level for f, level in wanted.items())]
        if plan.grid.design == "one-at-a-time" and wanted is not levels:
            cells = [plan.baseline.label]
        over = runs.loc[runs["cell"].isin(cells) & runs["status"].isin(["completed", "diverged"])]
        if event == "collapsed":
            over = over.loc[over["collapsed"].notna()]
            happened.append([bool(value) for value in over["collapsed"]])
        else:
            happened.append([status == "diverged" for status in over["status"]])
    return compare_rates(*happened)


def _matrix(plan: Plan, runs: pd.DataFrame, outcome: Outcome) -> NDArray[np.float64]:
    """Lay a column out as (seeds, cells), logarithms on the ratio scale, NaN where a run has no value."""
    values = _table(plan, runs, outcome.name)
    match outcome.scale:
        case "difference":
            return values
        case "ratio":
            return log_scores(values)
        case _:
            assert_never(outcome.scale)


def _table(plan: Plan, runs: pd.DataFrame, column: str) -> NDArray[np.float64]:
    table = runs.astype({column: float}).pivot_table(index="seed", columns="cell", values=column, dropna=False)
    table = table.reindex(index=list(plan.seeds), columns=[cell.label for cell in plan.cells])
    return table.to_numpy(np.float64)


def _impute_diverged(
    plan: Plan, runs: pd.DataFrame, outcome: Outcome, values: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Give runs that diverged the worst value there is; None where that is not defined or none diverged."""
    has_diverged = _table(plan, runs.assign(has_diverged=runs["status"] == "diverged"), "has_diverged") == 1
    if outcome.better is None or not has_diverged.any() or not np.isfinite(values).any():
        return None
    worst = np.nanmax(values) if outcome.better == "lower" else np.nanmin(values)
    return np.where(has_diverged & ~np.isfinite(values), worst, values)


def _contrasts(plan: Plan) -> Iterator[tuple[dict[str, str], NDArray[np.float64]]]:
    singles = [
        {name: level}
        for name, factor in plan.grid.factors.items()
        for level in factor.levels
        if level != factor.baseline
    ]
    match plan.grid.design:
        case "one-at-a-time":
            for single in singles:
                ((name, level),) = single.items()
                cells = np.array([cell.levels[name] == level for cell in plan.cells], np.float64)
                cells[0] = -1
                yield single, cells
        case "factorial":
            for levels in singles:
                yield levels, _factorial_weights(plan, levels)
            for first, second in itertools.combinations(singles, 2):
                if first.keys() != second.keys():
                    yield {**first, **second}, _factorial_weights(plan, {**first, **second})
        case _:
            assert_never(plan.grid.design)


def _factorial_weights(plan: Plan, levels: dict[str, str]) -> NDArray[np.float64]:
    """Weigh cells by the product of ±1 over the compared factors, averaged over the levels of all others."""
    weights = np.ones(len(plan.cells))
    for name, level in levels.items():
        baseline = plan.grid.factors[name].baseline
        sign = {level: 1.0, baseline: -1.0}
        weights *= [sign.get(cell.levels[name], 0.0) for cell in plan.cells]
    weights /= np.count_nonzero(weights) / 2 ** len(levels)
    return weights
