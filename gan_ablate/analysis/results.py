"""Everything that a report says of one grid, gathered once: its plan, its records and its table."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gan_ablate.claims import CLAIMS, Judgement, judge
from gan_ablate.effects import Effect, compare_event_rates, estimate_effects
from gan_ablate.outcomes import OUTCOMES
from gan_ablate.stats import log_scores, mean_estimate
from gan_ablate.table import Yardsticks, find_yardsticks, is_unsteady, load_results
from gan_ablate.variance import VarianceSplit, split_variance

if TYPE_CHECKING:
    from pathlib import Path

    from gan_ablate.planning import Plan
    from gan_ablate.significance import RateComparison
    from gan_ablate.store import Record, ScoringRecord, Store


_FROM_TRAINING = ("grad_norm_g", "grad_norm_d", "accuracy_d", "confidence_d", "step_ms_median")
"""Outcomes that no extractor has a part in."""

_OTHER_TIMES = (
    "step_ms_p10", "step_ms_p90", "steps_per_sec", "images_per_sec", "train_sec", "scoring_sec", "total_sec",
)  # fmt: skip


@dataclass(frozen=True)
class GridResults:
    """A grid's results so far.

    Attributes:
        store: where they lie.
        plan: what was to be run.
        records: of every run that is over, with its variant's label.
        runs: the same as a tidy table, see ``load_results``.
    """

    store: Store
    plan: Plan
    records: list[tuple[str, Record]]
    runs: pd.DataFrame

    @classmethod
    def load(cls, store: Store, grid: str) -> GridResults:
        """Read a grid's records."""
        plan = store.load_plan(grid)
        records = [(label, record) for _, label, record in store.records(plan)]
        return cls(store, plan, records, load_results(store.root, grid))

    @property
    def name(self) -> str:
        """The grid's name."""
        return self.plan.grid.name

    @property
    def folder(self) -> Path:
        """Where the grid's tables and figures belong."""
        return self.store.root / self.name

    @property
    def labels(self) -> list[str]:
        """Names of all variants, in the plan's order."""
        return [cell.label for cell in self.plan.cells]

    @property
    def scored(self) -> list[ScoringRecord]:
        """The scores of all runs that have a final one."""
        return [r.scoring for _, r in self.records if r.scoring is not None and r.scoring.final is not None]

    @property
    def protocols(self) -> set[tuple[object, ...]]:
        """The ways in which runs were scored; scores compare only where there is one."""
        return {_protocol(r) for _, r in self.records if r.scoring is not None and r.scoring.final is not None}

    @property
    def machines(self) -> set[tuple[str | None, ...]]:
        """What runs were computed on; times compare only where there is one."""
        parts = ("cpu", "instructions", "bfloat16", "gpu", "threads_per_run", "torch")
        finished = [record for _, record in self.records if record.status != "failed"]
        return {(record.device, *(record.environment.get(part) for part in parts)) for record in finished}

    @functools.cached_property
    def yardsticks(self) -> Yardsticks:
        """The target FID and the moment of equal time."""
        return find_yardsticks(self.plan, self.records)

    @functools.cached_property
    def comparable_runs(self) -> pd.DataFrame:
        """The table without what does not compare.

        Scores go where they were made in different ways, times where the machines differ, and a single run's times
        where something else used the machine meanwhile.
        """
        runs = self.runs.copy()
        times = [*(name for name, outcome in OUTCOMES.items() if outcome.is_timed), *_OTHER_TIMES]
        if len(self.protocols) > 1:
            scores = [name for name in OUTCOMES if name not in _FROM_TRAINING]
            runs[[*scores, "fid_sampling_error", "best_curve_fid"]] = np.nan
            runs["collapsed"] = None
        runs.loc[runs["run_id"].isin(self._untimed), times] = np.nan
        return runs

    @functools.cached_property
    def unsteady(self) -> set[str]:
        """Ids of the runs that had to share the machine."""
        return {record.run_id for _, record in self.records if is_unsteady(record)}

    @functools.cached_property
    def _untimed(self) -> set[str]:
        """Ids of the runs whose times compare with no other's."""
        return self.unsteady if len(self.machines) == 1 else {record.run_id for _, record in self.records}

    def effects(self, outcome: str) -> list[Effect]:
        """Estimate the design's effects on an outcome, once.

        None where no run has a comparable value, and for the way to the target where not every run's is known.
        """
        known = self._effects.get(outcome)
        if known is None:
            is_hidden = outcome in ("steps_to_fid", "sec_to_fid") and self._has_unknown_convergence()
            is_hidden |= bool(self.comparable_runs[outcome].isna().all())
            known = [] if is_hidden else estimate_effects(self.plan, self.comparable_runs, outcome)
            self._effects[outcome] = known
        return known

    @functools.cached_property
    def _effects(self) -> dict[str, list[Effect]]:
        return {}

    def _has_unknown_convergence(self) -> bool:
        """Whether a run never reached the target, or had done so before its first point."""
        steps = self.runs["steps_to_fid"].astype(float)
        return bool(steps.isna().any() or (steps <= self._first_point()).any())

    def _first_point(self) -> int:
        """The step of the first point of FID along training; what was reached by then was reached before."""
        firsts = [r.scoring.curve_steps[0] for _, r in self.records if r.scoring is not None and r.scoring.curve_steps]
        return min(firsts, default=0)

    @property
    def is_complete(self) -> bool:
        """Whether every run has a result."""
        return len(self.runs) == len(self.plan.cells) * len(self.plan.seeds) and "failed" not in set(
            self.runs["status"]
        )

    def rates(self, effect: Effect) -> dict[str, RateComparison]:
        """Compare how often runs diverged and collapsed with an effect's level and without; only what happened."""
        compared = {
            event: compare_event_rates(self.plan, self.comparable_runs, effect.levels, event)
            for event in ("diverged", "collapsed")
        }
        return {event: rates for event, rates in compared.items() if rates.count or rates.baseline_count}

    def judgements(self) -> list[Judgement]:
        """Judge the claims that this grid decides; none if it is not the shipped grid, or was only a smoke run."""
        is_shipped = self.plan.grid.source == f"grid {self.name}"
        if not is_shipped or self.plan.budget == "smoke":
            return []
        judged = (judge(claim, self.effects) for claim in CLAIMS if claim.grid == self.name)
        return [judgement for judgement in judged if judgement is not None]

    @functools.cached_property
    def summary(self) -> pd.DataFrame:
        """One row per variant: over its seeds, means with intervals, medians of step times, counts.

        The mean of an outcome on the ratio scale is geometric. ``fid_spread`` is the standard deviation of log FID over
        seeds, ``steps_to_fid_reached`` how many runs reached the target, ``steps_to_fid_is_bound`` whether one did so
        before its first point, so that the mean is an upper bound.
        """
        rows = []
        for cell in self.plan.cells:
            of_cell = self.comparable_runs.loc[self.comparable_runs["cell"] == cell.label]
            row: dict[str, object] = {**cell.levels, "cell": cell.label}
            for name, outcome in OUTCOMES.items():
                values = np.array(of_cell[name], np.float64)  # None becomes NaN
                if outcome.scale == "ratio":
                    estimate = mean_estimate(log_scores(values))
                    if name == "fid":
                        row["fid_spread"] = estimate.std
                    estimate = estimate.as_ratio()
                else:
                    estimate = mean_estimate(values)
                row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            row["steps_to_fid_reached"] = int(of_cell["steps_to_fid"].notna().sum())
            row["steps_to_fid_is_bound"] = bool((of_cell["steps_to_fid"].astype(float) <= self._first_point()).any())
            for column in ("step_ms_median", "step_ms_p10", "step_ms_p90", "steps_per_sec", "images_per_sec"):
                row[column] = of_cell[column].median()
            for column in ("train_sec", "scoring_sec", "total_sec"):
                row[column] = of_cell[column].mean()
            row["classes_covered_fewest"] = of_cell["classes_covered"].min()
            row["peak_memory_mib"] = of_cell["peak_memory_mib"].median()
            row["has_classes"] = bool(of_cell["collapsed"].notna().any())
            row["collapsed"] = int((of_cell["collapsed"] == True).sum())  # noqa: E712 (None is not False)
            row |= {status: int((of_cell["status"] == status).sum()) for status in ("completed", "diverged", "failed")}
            row["planned"] = len(self.plan.seeds)
            rows.append(row)
        return pd.DataFrame(rows)

    def all_effects(self) -> pd.DataFrame:
        """Tabulate every effect on every outcome, with all its intervals and tests."""
        rows = []
        for outcome in OUTCOMES:
            for effect in self.effects(outcome):
                estimate, bootstrap, with_diverged = effect.estimate, effect.bootstrap, effect.with_diverged
                rows.append(
                    {
                        "outcome": outcome,
                        "scale": "log ratio" if effect.outcome.scale == "ratio" else "difference",
                        "effect": effect.name,
                        "interaction": effect.is_interaction,
                        "value": estimate.value,
                        "low": estimate.low,
                        "high": estimate.high,
                        "num_seeds": estimate.num_seeds,
                        "p_t": estimate.p,
                        "p_holm": effect.test.p,
                        "rejected": effect.test.is_rejected,
                        "adjusted_low": effect.adjusted.low,
                        "adjusted_high": effect.adjusted.high,
                        "p_sign_flip": effect.sign_flip.p,
                        "smallest_p_sign_flip": effect.sign_flip.smallest_p,
                        "bootstrap_low": None if bootstrap is None else bootstrap.low,
                        "bootstrap_high": None if bootstrap is None else bootstrap.high,
                        "needed_seeds": effect.needed_seeds,
                        "with_diverged": None if with_diverged is None else with_diverged.value,
                        "with_diverged_low": None if with_diverged is None else with_diverged.low,
                        "with_diverged_high": None if with_diverged is None else with_diverged.high,
                    }
                )
        return pd.DataFrame(rows)

    def variance(self) -> VarianceSplit:
        """Split the variance of log FID between training seeds and the choice of the scored images."""
        shape = (len(self.plan.cells), len(self.plan.seeds), 1)
        scores, errors = np.full(shape, np.nan), np.full(shape[:2], np.nan)
        places = {
            (cell.label, seed): (i, j)
            for i, cell in enumerate(self.plan.cells)
            for j, seed in enumerate(self.plan.seeds)
        }
        for row in self.runs.to_dict("records"):
            place = places[row["cell"], row["seed"]]
            if pd.notna(row["fid"]) and pd.notna(row["fid_sampling_error"]):
                scores[place], errors[place] = np.log(row["fid"]), row["fid_sampling_error"]
        return split_variance(scores, errors)

    def curves(self) -> pd.DataFrame:
        """FID along training: columns cell, seed, step, train_sec (missing where times do not compare), fid."""
        rows = []
        for label, record in self.records:
            if record.scoring is None:
                continue
            has_time = record.run_id not in self._untimed
            scoring = record.scoring
            for step, sec, fid in zip(scoring.curve_steps, scoring.curve_train_sec, scoring.curve_fid, strict=True):
                rows.append((label, record.config.seed, step, sec if has_time else np.nan, fid))
        return pd.DataFrame(rows, columns=["cell", "seed", "step", "train_sec", "fid"])

    def histories(self) -> pd.DataFrame:
        """The histories of all runs, one below the other, with columns cell and seed."""
        parts = [
            pd.DataFrame(record.history).assign(cell=label, seed=record.config.seed)
            for label, record in self.records
            if record.history
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def sheet_titles(self) -> dict[str, str]:
        """What a sheet's run scored, and its variant on average, behind the variant's name."""
        summary = self.summary.set_index("cell")["fid"]
        seed = self.plan.seeds[0]
        own = self.comparable_runs.loc[self.comparable_runs["seed"] == seed].set_index("cell")["fid"].astype(float)
        return {
            label: f"{label}, FID {own[label]:.3g}, {summary[label]:.3g} over all seeds"
            for label in self.labels
            if len(self.plan.seeds) > 1 and math.isfinite(own.get(label, math.nan))
        }

    def sample_sheets(self) -> dict[str, list[Path]]:
        """The sample sheets along training of each variant's first seed, under the variant's name."""
        sheets = {}
        for cell in self.plan.cells:
            record = self.store.load_record(cell.with_seed(self.plan.seeds[0]).run_id)
            if record is None or record.status == "failed":
                continue
            files = sorted((self.store.run_dir(record.run_id) / "samples").glob("step-*.png"))
            note = f", diverged at step {record.diverged_at}" if record.status == "diverged" else ""
            if files:
                sheets[cell.label + note] = files
        return sheets


def _protocol(record: Record) -> tuple[object, ...]:
    """Everything that two scores must share to be compared."""
    scoring = record.scoring
    if scoring is None or scoring.final is None:
        return ()
    counts = scoring.final.num_samples, scoring.num_reference, scoring.curve_samples
    return record.dataset_sha256, scoring.extractor, scoring.extractor_sha256, scoring.resolution, *counts
