"""A design and its runs in, named effects out: each level against its factor's baseline, and two-way interactions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, assert_never

import numpy as np

from gan_ablate.analysis.contrasts import Contrast, iterate_contrasts, iterate_simple_contrasts
from gan_ablate.analysis.family import Comparison, Effect, estimate_family
from gan_ablate.analysis.outcomes import OUTCOMES, Outcome
from gan_ablate.analysis.significance import RateComparison, compare_rates
from gan_ablate.analysis.stats import contrast_sides, log_scores

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from gan_ablate.analysis.designs import Design


def estimate_effects(design: Design, runs: pd.DataFrame, outcome: str | Outcome = "fid") -> list[Effect]:
    """Estimate every effect on an outcome that a design can show: main effects first, then interactions.

    Args:
        design: a plan, or what a table shows of one; its margin, and whether its intervals have to hold at every look.
        runs: from ``load_results``, or likewise a row per run with columns cell, seed, status and the outcome's.
        outcome: a name in ``OUTCOMES``, or one of one's own.
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

    Each rests on its own two cells, and no spread is shared: it may differ tenfold between them.

    Args:
        design: a factorial one; others have none.
        runs: as for ``estimate_effects``.
        outcome: likewise.
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


def compare_event_rates(design: Design, runs: pd.DataFrame, levels: dict[str, str], event: str) -> RateComparison:
    """Compare how often a run diverged or collapsed at a level and at its factor's baseline, over all other factors.

    Args:
        design: of the runs.
        runs: from ``load_results``.
        levels: factor → level; for an interaction, both levels against both baselines.
        event: ``"diverged"`` or ``"collapsed"``.
    """
    happened: list[list[bool]] = []
    for wanted in (levels, {factor: design.factors[factor].baseline for factor in levels}):
        cells = [cell.label for cell in design.cells if all(cell.levels[f] == level for f, level in wanted.items())]
        if design.kind == "one-at-a-time" and wanted is not levels:
            cells = [design.cells[0].label]
        over = runs.loc[runs["cell"].isin(cells) & runs["status"].isin(["completed", "diverged"])]
        if event == "collapsed":
            over = over.loc[over["collapsed"].notna()]
            happened.append([bool(value) for value in over["collapsed"]])
        else:
            happened.append([status == "diverged" for status in over["status"]])
    return compare_rates(*happened)


def _matrix(design: Design, runs: pd.DataFrame, outcome: Outcome) -> NDArray[np.float64]:
    """Lay a column out as (seeds, cells), logarithms on the ratio scale, NaN where a run has no value."""
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
    columns = {cell.label: number for number, cell in enumerate(design.cells)}
    table = np.full((len(rows), len(columns)), np.nan)
    for seed, label, value in zip(runs["seed"], runs["cell"], runs[column].astype(float), strict=True):
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
