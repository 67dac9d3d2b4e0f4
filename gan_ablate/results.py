"""Everything that a report says of one grid, gathered once: its plan, its records and its table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gan_ablate.effects import Effect, estimate_effects
from gan_ablate.stats import mean_estimate
from gan_ablate.store import Record, ScoringRecord, Store, load_results

if TYPE_CHECKING:
    from pathlib import Path

    from gan_ablate.planning import Plan


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
        parts = ("cpu", "gpu", "threads_per_run", "torch")
        finished = [record for _, record in self.records if record.status != "failed"]
        return {(record.device, *(record.environment.get(part) for part in parts)) for record in finished}

    def effects(self) -> list[Effect]:
        """Estimate the design's effects, or none where scores do not compare; step times only of one machine."""
        if len(self.protocols) != 1:
            return []
        runs = self.runs if len(self.machines) == 1 else self.runs.assign(step_ms_median=np.nan)
        return estimate_effects(self.plan, runs)

    def summary(self) -> pd.DataFrame:
        """One row per variant, over its seeds: means with intervals, median step times, the fewest classes covered."""
        rows = []
        for cell in self.plan.cells:
            of_cell = self.runs.loc[self.runs["cell"] == cell.label]
            row: dict[str, object] = {**cell.levels, "cell": cell.label}
            estimates = {
                column: mean_estimate(np.log(of_cell[column].to_numpy(np.float64))).as_ratio()
                for column in ("fid", "fid_batch_stats")
            } | {
                column: mean_estimate(of_cell[column].to_numpy(np.float64))
                for column in ("kid", "steps_per_sec", "train_sec", "total_sec")
            }
            for column, estimate in estimates.items():
                row |= {column: estimate.value, f"{column}_low": estimate.low, f"{column}_high": estimate.high}
            for column in ("step_ms_median", "step_ms_p10", "step_ms_p90", "images_per_sec"):
                row[column] = of_cell[column].median()
            row["classes_covered"] = of_cell["classes_covered"].min()
            row["peak_memory_mib"] = of_cell["peak_memory_mib"].max()
            row |= {status: int((of_cell["status"] == status).sum()) for status in ("completed", "diverged", "failed")}
            row["planned"] = len(self.plan.seeds)
            rows.append(row)
        return pd.DataFrame(rows)

    def curves(self) -> pd.DataFrame:
        """FID along training: columns cell, seed, step, train_sec, fid."""
        rows = [
            (label, record.config.seed, *point)
            for label, record in self.records
            if record.scoring is not None
            for point in zip(
                record.scoring.curve_steps, record.scoring.curve_train_sec, record.scoring.curve_fid, strict=True
            )
        ]
        return pd.DataFrame(rows, columns=["cell", "seed", "step", "train_sec", "fid"])

    def histories(self) -> pd.DataFrame:
        """The histories of all runs, one below the other, with columns cell and seed."""
        parts = [
            pd.DataFrame(record.history).assign(cell=label, seed=record.config.seed)
            for label, record in self.records
            if record.history
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def sample_sheets(self) -> dict[str, Path]:
        """The last sample sheet of each variant's first seed, under the variant's name; one that diverged says so."""
        sheets = {}
        for cell in self.plan.cells:
            record = self.store.load_record(cell.with_seed(self.plan.seeds[0]).run_id)
            if record is None or record.status == "failed":
                continue
            files = sorted((self.store.run_dir(record.run_id) / "samples").glob("step-*.png"))
            note = f", diverged at step {record.diverged_at}" if record.status == "diverged" else ""
            if files:
                sheets[cell.label + note] = files[-1]
        return sheets


def _protocol(record: Record) -> tuple[object, ...]:
    """Everything that two scores must share to be compared."""
    scoring = record.scoring
    if scoring is None or scoring.final is None:
        return ()
    resolution, num_samples = scoring.resolution, scoring.final.num_samples
    return record.dataset_sha256, scoring.extractor_sha256, num_samples, scoring.num_reference, resolution
