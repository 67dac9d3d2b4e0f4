"""Results of one grid: its records, table, summary, effects, verdicts and trajectories; curves of grids as a table."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gan_ablate.analysis.allocation import InterimAnalysis, replay_looks
from gan_ablate.analysis.claims import Verdicts
from gan_ablate.analysis.comparability import Comparability
from gan_ablate.analysis.design import Design
from gan_ablate.analysis.estimates import log_scores, mean_estimate
from gan_ablate.analysis.table import Yardsticks, find_yardsticks, tabulate_runs
from gan_ablate.analysis.trajectories import (
    Trajectory,
    find_unconverged,
    follow_effects,
    tabulate_curves,
    tabulate_histories,
)
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.design.plan import name_blocks
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.records import Record, ScoringRecord


def summarise_variants(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    """Summarise each variant over its seeds: means with intervals, medians of step times, counts.

    The mean of an outcome on the ratio scale is geometric. ``fid_spread`` is the standard deviation of log FID over
    seeds, and ``fid_reached`` the number of runs that reached the target. ``steps_to_fid_bound`` says how the mean of
    the steps to the target is bounded: ``"≥"`` if a run never reached it, ``"≤"`` if a run reached it before its first
    point, ``"~"`` if both, empty if neither.

    Args:
        plan: the plan; rows have the order of its variants.
        runs: its comparable runs.
    """
    rows = []
    for variant in plan.variants:
        of_variant = runs.loc[runs["variant"] == variant.label]
        row: dict[str, object] = {**variant.levels, "variant": variant.label}
        for name, outcome in OUTCOMES.items():
            values = np.array(of_variant[name], np.float64)  # None becomes NaN
            if outcome.scale == "ratio":
                estimate = mean_estimate(log_scores(values))
                if name == "fid":
                    row["fid_spread"] = estimate.std
                estimate = estimate.as_ratio()
            else:
                estimate = mean_estimate(values)
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        row["fid_reached"] = int(of_variant["fid_reached"].eq(True).sum())  # None is neither
        is_late, is_early = (bool(of_variant["target_bound"].eq(bound).any()) for bound in "≥≤")
        row["steps_to_fid_bound"] = {(0, 0): "", (0, 1): "≤", (1, 0): "≥", (1, 1): "~"}[is_late, is_early]
        for column in ("step_ms_median", "step_ms_p10", "step_ms_p90", "steps_per_sec", "images_per_sec"):
            row[column] = of_variant[column].median()
        for column in ("train_sec", "scoring_sec", "total_sec"):
            row[column] = of_variant[column].mean()
        row["classes_covered_fewest"] = of_variant["classes_covered"].min()
        row["peak_memory_mib"] = of_variant["peak_memory_mib"].median()
        row["is_collapse_known"] = bool(of_variant["collapsed"].notna().any())
        row["collapsed"] = int((of_variant["collapsed"] == True).sum())  # noqa: E712 (None is not False)
        row |= {status: int((of_variant["status"] == status).sum()) for status in ("completed", "diverged", "failed")}
        row["planned"] = len(plan.seeds_of(variant))
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class GridResults:
    """A grid's results so far.

    Attributes:
        store: the store of the runs.
        plan: the plan.
        records: (variant's label, record) of every run that is over.
        runs: the same as a tidy table, from ``tabulate_runs``.
    """

    store: Store
    plan: Plan
    records: list[tuple[str, Record]]
    runs: pd.DataFrame

    @classmethod
    def load(cls, store: Store, grid: str) -> GridResults:
        """Read the results of a grid, given its name."""
        return cls.of(store, store.load_plan(grid))

    @classmethod
    def of(cls, store: Store, plan: Plan) -> GridResults:
        """Read the results of a plan."""
        records = list(store.records(plan, with_earlier=True))
        return cls(store, plan, [(label, record) for _, label, record in records], tabulate_runs(plan, records))

    @property
    def name(self) -> str:
        """The plan's name: that of the grid, and of its block."""
        return self.plan.name

    @property
    def folder(self) -> Path:
        """The folder of the grid's tables and figures."""
        return self.store.root / self.name

    @property
    def labels(self) -> list[str]:
        """The labels of all variants, in the plan's order."""
        return [variant.label for variant in self.plan.variants]

    @property
    def scored(self) -> list[ScoringRecord]:
        """The scores of all runs that have final scores."""
        return [r.scoring for _, r in self.records if r.scoring is not None and r.scoring.final is not None]

    @functools.cached_property
    def design(self) -> Design:
        """The design of the plan."""
        return Design.of(self.plan)

    @functools.cached_property
    def yardsticks(self) -> Yardsticks:
        """The target FID and the seconds of equal time."""
        return find_yardsticks(self.plan, self.records)

    @functools.cached_property
    def comparable(self) -> Comparability:
        """Which scores and times compare."""
        return Comparability(self.records, self.runs)

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """FID over training of every run, also of runs that did not complete."""
        return tabulate_curves(self.records, self.comparable.untimed)

    @functools.cached_property
    def whole_curves(self) -> pd.DataFrame:
        """FID over training of completed runs; empty where scores do not compare."""
        completed = self.runs.loc[self.runs["status"] == "completed", ["variant", "seed", "collapsed"]]
        return self.curves.merge(completed if len(self.comparable.protocols) == 1 else completed.iloc[:0])

    @functools.cached_property
    def trajectories(self) -> list[Trajectory]:
        """Every effect over training; none with a single point."""
        return follow_effects(self.design, self.whole_curves) if self.whole_curves["step"].nunique() > 1 else []

    @functools.cached_property
    def unconverged(self) -> dict[str, float]:
        """The variants that have not converged; see ``find_unconverged``."""
        return find_unconverged(self.design, self.whole_curves)

    @functools.cached_property
    def summary(self) -> pd.DataFrame:
        """One row per variant."""
        return summarise_variants(self.plan, self.comparable.runs)

    @functools.cached_property
    def verdicts(self) -> Verdicts:
        """The effects, and the verdicts on the claims."""
        return Verdicts(self.plan, self.comparable.runs)

    @functools.cached_property
    def looks(self) -> tuple[InterimAnalysis, ...]:
        """The interim analyses; none where the number of seeds was fixed beforehand."""
        is_sequential = self.plan.until_settled and self.verdicts.effects("fid")
        return replay_looks(self.plan, self.comparable.runs).looks if is_sequential else ()

    @property
    def is_complete(self) -> bool:
        """Whether every run has a result."""
        return len(self.runs) == self.plan.num_runs and "failed" not in set(self.runs["status"])


_ALONG_TRAINING = ("loss_d", "loss_g", "d_real", "d_fake_before")
"""Columns of a run's history: losses, and D's mean outputs on real images and, before its step, on fakes."""


def load_curves(out: str | Path, grid: str | None = None) -> pd.DataFrame:
    """Read FID, losses and D's outputs along training as one tidy table, for ``seaborn.relplot`` and the like.

    >>> from gan_ablate import load_curves, load_grid, plan, run_grid
    >>> runs = run_grid(plan(load_grid("beta1"), budget="smoke", seeds=1, steps=5), "results")
    >>> list(load_curves("results", "beta1")["quantity"].cat.categories)
    ['fid', 'loss_d', 'loss_g', 'd_real', 'd_fake_before']

    Args:
        out: the results folder.
        grid: the grid's name; by default all grids of the folder.

    Returns:
        One row per run, step and quantity: ``grid``, ``variant``, ``seed``, ``step``, ``quantity``, ``value``, and
        ``train_sec``, the seconds of training so far, which only FID has. ``d_real`` and ``d_fake_before`` are means
        of D(x) and D(G(z)) as probabilities. FID along training is of fewer images than FID at the end.

    Raises:
        UserError: if the folder has no such grid.
    """
    store = Store(Path(out))
    parts = []
    for name in store.list_plans() if grid is None else [grid]:
        results = GridResults.load(store, name)
        curves, histories = results.curves.rename(columns={"fid": "value"}), tabulate_histories(results.records)
        quantities = [quantity for quantity in _ALONG_TRAINING if quantity in histories]
        parts.append(curves.assign(grid=name, quantity="fid"))
        parts += [
            histories[["variant", "seed", "step"]].assign(grid=name, quantity=quantity, value=histories[quantity])
            for quantity in quantities
        ]
    columns = ["grid", "variant", "seed", "step", "quantity", "value", "train_sec"]
    table = pd.concat([part.reindex(columns=columns) for part in parts if len(part)] or [pd.DataFrame(columns=columns)])
    kinds = {"seed": "int64", "step": "int64", "value": "float64", "train_sec": "float64"}
    words = {name: pd.CategoricalDtype(list(dict.fromkeys(table[name]))) for name in ("grid", "variant", "quantity")}
    return table.astype({**kinds, **words}).reset_index(drop=True)


def tabulate_plan(plan: Plan) -> pd.DataFrame:
    """Tabulate the variants of a plan: a row each, the baseline first.

    >>> from gan_ablate import load_grid, plan, tabulate_plan
    >>> tabulate_plan(plan(load_grid("beta1"), budget="smoke"))[["beta1", "num_seeds", "steps"]].values.tolist()
    [['0.5', 2, 120], ['0.0', 2, 120], ['0.9', 2, 120]]

    Args:
        plan: from ``gan_ablate.plan``.

    Returns:
        A column ``block`` where there are several, a column per factor, then ``variant``, ``num_seeds``, ``steps``,
        ``dataset`` and ``first_run``, the id of the run of the first seed.
    """
    blocks = plan.blocks
    return pd.DataFrame(
        {
            **({"block": words} if len(blocks) > 1 else {}),
            **variant.levels,
            "variant": variant.label,
            "num_seeds": len(plan.seeds_of(variant)),
            "steps": variant.config.steps,
            "dataset": variant.config.dataset,
            "first_run": variant.run_id(plan.seeds[0]),
        }
        for words, block in zip(name_blocks(blocks), blocks, strict=True)
        for variant in block.variants
    )
