"""The design of an experiment: its variants, the contrasts between them, and its runs arranged by seed and variant."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, assert_never

import numpy as np

from gan_ablate.analysis.tests import RateComparison, compare_rates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from gan_ablate.design.claims import DesignKind, Factor
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.design.plan import Intervals, Plan

Event = Literal["diverged", "collapsed"]


@dataclass(frozen=True)
class Design:
    """What is compared: of one block of a grid, or of a user's table of runs.

    Attributes:
        factors: name → what is varied: the levels, and which of them is the baseline.
        kind: whether all factors are crossed, or each level is compared with the one baseline.
        variants: label → a level for every factor; the baseline comes first.
        seeds: in the order in which they were added.
        intervals: whether the number of seeds was fixed beforehand.
        log_margin: the log ratio within ± which an effect is negligible.
        is_paired: whether runs of one seed share random numbers. If not, a seed is only a number, and effects are
            differences of means.
    """

    factors: dict[str, Factor]
    kind: DesignKind
    variants: dict[str, dict[str, str]]
    seeds: tuple[int, ...]
    intervals: Intervals
    log_margin: float
    is_paired: bool = True

    @property
    def by_welch(self) -> bool:
        """Whether means are compared by Welch's test.

        Runs that share nothing, and are added one by one, are compared in pairs by number: a test that holds at every
        look needs differences.
        """
        return not self.is_paired and self.intervals == "fixed"

    @classmethod
    def of(cls, plan: Plan) -> Design:
        """Return the design of a plan of one block."""
        return cls(
            factors=plan.grid.factors,
            kind=plan.grid.design,
            variants={variant.label: variant.levels for variant in plan.variants},
            seeds=plan.seeds,
            intervals=plan.intervals,
            log_margin=plan.grid.log_margin,
            is_paired=plan.grid.external is None or plan.grid.external.paired,
        )


@dataclass(frozen=True)
class Contrast:
    """A difference of variants within a seed.

    Attributes:
        levels: factor → the level that is compared with its baseline; an interaction has two.
        weights: (variants,) summing to zero.
        within: factor → the level at which it is held, for a simple effect; empty for an average over all levels.
    """

    levels: dict[str, str]
    weights: NDArray[np.float64]
    within: dict[str, str] = field(default_factory=dict)


def iterate_contrasts(design: Design) -> Iterator[Contrast]:
    """Yield main effects, then two-way interactions: the weights of all at once may not fit into memory.

    In a factorial design a main effect is averaged over the levels of the other factors. In a one-at-a-time design it
    compares one variant with the baseline, and there are no interactions.
    """
    singles = _list_levels(design)
    columns = {name: np.array([levels[name] for levels in design.variants.values()]) for name in design.factors}
    match design.kind:
        case "one-at-a-time":
            for single in singles:
                ((name, level),) = single.items()
                weights = (columns[name] == level).astype(np.float64)
                weights[0] = -1
                yield Contrast(single, weights)
        case "factorial":
            pairs = (a | b for a, b in itertools.combinations(singles, 2) if a.keys() != b.keys())
            for levels in itertools.chain(singles, pairs):
                yield Contrast(levels, _factorial_weights(design, columns, levels))
        case _:
            assert_never(design.kind)


def iterate_simple_contrasts(design: Design) -> Iterator[Contrast]:
    """Yield each level's effect at every combination of the other factors' levels.

    Only a factorial design of several factors has simple effects.
    """
    if design.kind != "factorial" or len(design.factors) == 1:
        return
    positions = {tuple(levels.items()): i for i, levels in enumerate(design.variants.values())}
    for single in _list_levels(design):
        ((name, level),) = single.items()
        for levels in design.variants.values():
            if levels[name] == level:
                weights = np.zeros(len(design.variants))
                baseline = levels | {name: design.factors[name].baseline}
                weights[positions[tuple(levels.items())]] = 1
                weights[positions[tuple(baseline.items())]] = -1
                yield Contrast(single, weights, {other: at for other, at in levels.items() if other != name})


def pair_variants(design: Design, levels: Mapping[str, str], within: Mapping[str, str]) -> list[tuple[int, int]]:
    """Pair variants with some levels, by number, with those that have these factors' baselines instead.

    Args:
        design: the design.
        levels: factor → the level that is compared with its baseline; an interaction has two.
        within: factor → the level at which it is held.
    """
    positions = {tuple(of_variant.items()): i for i, of_variant in enumerate(design.variants.values())}
    baselines = {factor: design.factors[factor].baseline for factor in levels}
    wanted = {**levels, **within}
    return [
        (i, positions[tuple({**of_variant, **baselines}.items())])
        for i, of_variant in enumerate(design.variants.values())
        if wanted.items() <= of_variant.items()
    ]


def _list_levels(design: Design) -> list[dict[str, str]]:
    """List all levels but the baselines, each as factor → level."""
    return [
        {name: level} for name, factor in design.factors.items() for level in factor.levels if level != factor.baseline
    ]


def _factorial_weights(
    design: Design, columns: dict[str, NDArray[np.str_]], levels: dict[str, str]
) -> NDArray[np.float64]:
    """Weigh variants by the product of ±1 over the compared factors, averaged over the levels of all others."""
    weights = np.ones(len(design.variants))
    for name, level in levels.items():
        baseline = design.factors[name].baseline
        weights *= (columns[name] == level).astype(np.float64) - (columns[name] == baseline)
    weights /= np.count_nonzero(weights) / 2 ** len(levels)
    return weights


def tabulate_column(design: Design, runs: pd.DataFrame, column: pd.Series[Any]) -> NDArray[np.float64]:
    """Arrange a column of a table of runs as (seeds, variants); NaN where there is no run."""
    rows = {seed: row for row, seed in enumerate(design.seeds)}
    columns = {label: number for number, label in enumerate(design.variants)}
    table = np.full((len(rows), len(columns)), np.nan)
    for seed, label, value in zip(runs["seed"], runs["variant"], column.astype(float), strict=True):
        if seed in rows and label in columns:
            table[rows[seed], columns[label]] = value
    return table


def tabulate_censoring(design: Design, runs: pd.DataFrame, outcome: Outcome) -> NDArray[np.float64] | None:
    """Arrange how an outcome is censored: 1 where the truth may be larger, -1 where it may be smaller, else 0."""
    if not outcome.is_censored or "target_bound" not in runs:
        return None
    return tabulate_column(design, runs, runs["target_bound"].map({"≥": 1.0, "≤": -1.0}))


@dataclass(frozen=True)
class Events:
    """What happened to runs: (seeds, variants) of 1 and 0 for each event, NaN where it is not known.

    A run that collapsed or diverged before others of its variant tells of a rate that a mean over seeds hides.
    """

    design: Design
    happened: dict[Event, NDArray[np.float64]]

    @classmethod
    def of(cls, design: Design, runs: pd.DataFrame) -> Events:
        """Arrange the events that happened in a table of runs."""
        ended = runs["status"].astype(object).map({"diverged": 1.0, "completed": 0.0})
        happened: dict[Event, NDArray[np.float64]] = {"diverged": tabulate_column(design, runs, ended)}
        if "collapsed" in runs:
            happened["collapsed"] = tabulate_column(
                design, runs, runs["collapsed"].astype(object).map({True: 1.0, False: 0.0})
            )
        return cls(design, {event: table for event, table in happened.items() if (table == 1).any()})

    def are_mixed(self, contrast: Contrast, compared: NDArray[np.int64]) -> bool:
        """Whether some runs of a variant collapsed and others did not, among compared seeds of compared variants."""
        if "collapsed" not in self.happened:
            return False
        collapsed = self.happened["collapsed"][compared][:, contrast.weights != 0]
        return bool(((collapsed == 1).any(axis=0) & (collapsed == 0).any(axis=0)).any())

    def compare(self, contrast: Contrast) -> dict[Event, RateComparison]:
        """Compare how often each event happened with a contrast's levels and with their baselines."""
        rates: dict[Event, RateComparison] = {}
        for event, table in self.happened.items():
            if (table[:, contrast.weights != 0] == 1).any():
                pairs = np.array(pair_variants(self.design, contrast.levels, contrast.within))
                first, second = table[:, pairs[:, 0]].ravel(), table[:, pairs[:, 1]].ravel()
                of_event = compare_rates(first, second, is_fixed=self.design.intervals == "fixed")
                if of_event.count or of_event.baseline_count:
                    rates[event] = of_event
        return rates

    def impute_diverged(self, outcome: Outcome, values: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Set runs that diverged to the worst value; None where no direction is worse or none diverged."""
        if outcome.better is None or "diverged" not in self.happened or not np.isfinite(values).any():
            return None
        worst = np.nanmax(values) if outcome.better == "lower" else np.nanmin(values)
        return np.where((self.happened["diverged"] == 1) & ~np.isfinite(values), worst, values)

    def bound(
        self, outcome: Outcome, values: NDArray[np.float64], censored: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bound an outcome: a run that diverged is at least as bad as any that did not, a censored one lies beyond."""
        lows, highs = values.copy(), values.copy()
        if censored is not None:
            highs[censored == 1], lows[censored == -1] = np.inf, -np.inf
        if "diverged" in self.happened:
            is_lost = (self.happened["diverged"] == 1) & ~np.isfinite(values)
            is_known = np.isfinite(values).any()
            lows[is_lost] = np.nanmax(values) if outcome.better == "lower" and is_known else -np.inf
            highs[is_lost] = np.nanmin(values) if outcome.better == "higher" and is_known else np.inf
        return lows, highs
