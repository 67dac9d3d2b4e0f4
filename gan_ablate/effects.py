"""A plan and its table in, named effects out: each level against its factor's baseline, and two-way interactions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import numpy as np

from gan_ablate.stats import Estimate, contrast_estimate

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from gan_ablate.planning import Plan


@dataclass(frozen=True)
class Effect:
    """What one level changes, or how one level's change depends on another's.

    Attributes:
        levels: factor → level that is compared with the factor's baseline; two of them for an interaction.
        fid: mean log ratio of FID, or None where nothing was scored. Below zero is better.
        step_time: mean log ratio of a step's median time. Below zero is faster.
    """

    levels: dict[str, str]
    fid: Estimate
    step_time: Estimate

    @property
    def name(self) -> str:
        """Words for it: ``batch norm on``, or ``batch norm on × label smoothing on``."""
        return " × ".join(f"{factor.replace('_', ' ')} {level}" for factor, level in self.levels.items())

    @property
    def is_interaction(self) -> bool:
        """Whether it compares effects rather than levels."""
        return len(self.levels) == 2


def estimate_effects(plan: Plan, runs: pd.DataFrame) -> list[Effect]:
    """Estimate every effect that a plan's design can show: main effects first, then interactions.

    In a factorial design an effect is averaged over the levels of the other factors; in a one-at-a-time design it
    compares one cell with the baseline, and there are no interactions.

    Args:
        plan: the design.
        runs: from ``load_results``.
    """
    log_fid = np.log(_matrix(plan, runs, "fid"))
    log_time = np.log(_matrix(plan, runs, "step_ms_median"))
    return [
        Effect(levels, contrast_estimate(log_fid, weights), contrast_estimate(log_time, weights))
        for levels, weights in _contrasts(plan)
    ]


def _matrix(plan: Plan, runs: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Lay a column out as (seeds, cells), NaN where a run has no value."""
    table = runs.pivot_table(index="seed", columns="cell", values=column, dropna=False)
    table = table.reindex(index=list(plan.seeds), columns=[cell.label for cell in plan.cells])
    return table.to_numpy(np.float64)


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
