"""The variance of a score, split into training seed, choice of the images and extractor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gan_ablate.design.plan import Plan


@dataclass(frozen=True)
class VarianceSplit:
    """Where a score's variance comes from, each part as a variance of the same (log) score.

    Attributes:
        seed: between training seeds, sampling taken out.
        sampling: from the choice of the images that were scored.
        extractor: between retrained extractors, on how they disagree about a seed; NaN where there was only one.
    """

    seed: float
    sampling: float
    extractor: float

    def shares(self) -> VarianceSplit:
        """Return each part over their sum."""
        total = sum(part for part in (self.seed, self.sampling, self.extractor) if not math.isnan(part)) or math.nan
        return VarianceSplit(self.seed / total, self.sampling / total, self.extractor / total)


def split_variance(scores: NDArray[np.float64], sampling_errors: NDArray[np.float64]) -> VarianceSplit:
    """Split the variance of scores into training seed, sampling and extractor, by the method of moments.

    A two-way layout without replication: score = variant + extractor + seed + (seed × extractor) + sampling error.
    A retrained extractor shifts all scores of a variant alike, which no comparison under one extractor sees; what
    matters is how it orders the seeds, the interaction's mean square. The seeds' mean square minus that, over the
    number of extractors, is the seeds' variance (Searle, Casella and McCulloch, "Variance Components", 1992, 4.3).

    Args:
        scores: (variants, seeds, extractors) log scores; at least two seeds; a variant with a NaN is left out.
        sampling_errors: (variants, seeds) their standard errors from the choice of images, which all extractors share.
    """
    kept = np.isfinite(scores).all(axis=(1, 2)) & np.isfinite(sampling_errors).all(axis=1)
    scores, sampling_errors = scores[kept], sampling_errors[kept]
    num_variants, num_seeds, num_extractors = scores.shape
    if num_variants == 0:
        return VarianceSplit(math.nan, math.nan, math.nan)
    sampling = float(np.square(sampling_errors).mean())
    seed_means = scores.mean(axis=2)
    between = float(seed_means.var(axis=1, ddof=1).mean())
    extractor = math.nan
    if num_extractors > 1:
        residuals = scores - seed_means[:, :, None] - scores.mean(axis=1)[:, None, :]
        residuals += scores.mean(axis=(1, 2))[:, None, None]
        freedom = num_variants * (num_seeds - 1) * (num_extractors - 1)
        extractor = float(np.square(residuals).sum()) / freedom
        between -= extractor / num_extractors
    return VarianceSplit(max(0.0, between - sampling), sampling, extractor)


def split_grid_variance(plan: Plan, runs: pd.DataFrame) -> VarianceSplit:
    """Split the variance of log FID between training seeds and the choice of the scored images."""
    shape = (len(plan.cells), len(plan.seeds), 1)
    scores, errors = np.full(shape, np.nan), np.full(shape[:2], np.nan)
    positions = {(cell.label, seed): (i, j) for i, cell in enumerate(plan.cells) for j, seed in enumerate(plan.seeds)}
    for row in runs.to_dict("records"):
        position = positions[row["cell"], row["seed"]]
        if pd.notna(row["fid"]) and pd.notna(row["fid_sampling_error"]):
            scores[position], errors[position] = np.log(row["fid"]), row["fid_sampling_error"]
    return split_variance(scores, errors)
