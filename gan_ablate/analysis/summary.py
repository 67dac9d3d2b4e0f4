"""A grid's comparable runs in, one row per variant out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gan_ablate.analysis.outcomes import OUTCOMES
from gan_ablate.analysis.stats import log_scores, mean_estimate

if TYPE_CHECKING:
    from gan_ablate.design.planning import Plan


def summarise_variants(plan: Plan, runs: pd.DataFrame, first_point: int) -> pd.DataFrame:
    """Summarise each variant over its seeds: means with intervals, medians of step times, counts.

    The mean of an outcome on the ratio scale is geometric. ``fid_spread`` is the standard deviation of log FID over
    seeds, ``fid_reached`` how many runs reached the target, ``steps_to_fid_bound`` what the mean steps to it are where
    not all are known: ``"≥"`` if a run never did, ``"≤"`` if one did before its first point, ``"~"`` if both.

    Args:
        plan: whose variants, in its order.
        runs: its comparable runs.
        first_point: the step of the first point of FID along training.
    """
    rows = []
    for cell in plan.cells:
        of_cell = runs.loc[runs["cell"] == cell.label]
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
        row["fid_reached"] = int(of_cell["fid_reached"].eq(True).sum())  # None is neither
        is_late = bool(of_cell["fid_reached"].eq(False).any())
        is_early = bool((of_cell["steps_to_fid"].astype(float) <= first_point).any())
        row["steps_to_fid_bound"] = {(0, 0): "", (0, 1): "≤", (1, 0): "≥", (1, 1): "~"}[is_late, is_early]
        for column in ("step_ms_median", "step_ms_p10", "step_ms_p90", "steps_per_sec", "images_per_sec"):
            row[column] = of_cell[column].median()
        for column in ("train_sec", "scoring_sec", "total_sec"):
            row[column] = of_cell[column].mean()
        row["classes_covered_fewest"] = of_cell["classes_covered"].min()
        row["peak_memory_mib"] = of_cell["peak_memory_mib"].median()
        row["is_collapse_known"] = bool(of_cell["collapsed"].notna().any())
        row["collapsed"] = int((of_cell["collapsed"] == True).sum())  # noqa: E712 (None is not False)
        row |= {status: int((of_cell["status"] == status).sum()) for status in ("completed", "diverged", "failed")}
        row["planned"] = len(plan.seeds_of(cell))
        rows.append(row)
    return pd.DataFrame(rows)
