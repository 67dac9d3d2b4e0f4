"""A grid's results in, the sample sheets that its runs left and what to write above them out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gan_ablate.analysis.results import GridResults


def sheet_titles(results: GridResults) -> dict[str, str]:
    """What a sheet's run scored, and its variant on average, behind the variant's name."""
    summary = results.summary.set_index("cell")["fid"]
    seed = results.plan.seeds[0]
    own = results.comparable.runs.loc[results.comparable.runs["seed"] == seed].set_index("cell")["fid"].astype(float)
    return {
        label: f"{label}, FID {own[label]:.3g}, {summary[label]:.3g} over all seeds"
        for label in results.labels
        if len(results.plan.seeds) > 1 and math.isfinite(own.get(label, math.nan))
    }


def sample_sheets(results: GridResults) -> dict[str, list[Path]]:
    """The sample sheets along training of each variant's first seed, under the variant's name."""
    sheets = {}
    for cell in results.plan.cells:
        record = results.store.load_record(cell.with_seed(results.plan.seeds[0]).run_id)
        if record is None or record.status == "failed":
            continue
        files = results.store.sample_sheets(record.run_id)
        note = f", diverged at step {record.diverged_at}" if record.status == "diverged" else ""
        if files:
            sheets[cell.label + note] = files
    return sheets
