"""Populations from which simulations sample: normal, heavy-tailed, skewed, and as in the study."""

from __future__ import annotations

import enum
import functools
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from gan_ablate.analysis.results import GridResults
from gan_ablate.execution.store import Store


class Population(enum.Enum):
    """The distribution of simulated paired differences, with mean 0 and standard deviation 1."""

    NORMAL = "normal"
    HEAVY = "heavy tails (t, 5 degrees of freedom)"
    SKEWED = "skewed (log-normal, σ 0.5)"
    STUDY = "as in the study"

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Sample differences."""
        match self:
            case Population.NORMAL:
                return rng.standard_normal(shape)
            case Population.HEAVY:
                return rng.standard_t(5, shape) / math.sqrt(5 / 3)
            case Population.SKEWED:
                variance = (math.exp(0.25) - 1) * math.exp(0.25)
                return (rng.lognormal(0, 0.5, shape) - math.exp(0.125)) / math.sqrt(variance)
            case Population.STUDY:
                return rng.choice(study_noise(), shape)


@functools.cache
def study_noise(folder: str = "results/study") -> NDArray[np.float64]:
    """Return the noise of log FID of all variants of a study, of mean 0 and standard deviation 1.

    It has the studentised residuals of every variant with five or more seeds of which none collapsed: those have
    another test. They are mapped from Student's t to the normal distribution, so that normal noise gives normal numbers
    whatever the number of seeds.

    Args:
        folder: the results folder.
    """
    store, of_variants = Store(Path(folder)), dict[str, NDArray[np.float64]]()
    for name in store.list_plans():
        for _, runs in GridResults.load(store, name).comparable.runs.groupby("variant"):
            scores = np.log(runs["fid"].dropna().to_numpy(np.float64))
            first = str(runs["run_id"].iloc[0])  # several grids share a variant
            if len(scores) >= max(5, len(of_variants.get(first, ())) + 1) and not runs["collapsed"].eq(True).any():
                of_variants[first] = scores
    noise = np.concatenate([_normal_residuals(scores) for scores in of_variants.values()])
    centred: NDArray[np.float64] = noise - noise.mean()
    return centred / float(centred.std())


def _normal_residuals(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what would be standard normal numbers if the scores were normal (Cook and Weisberg, 1982, 2.2.10)."""
    num = len(scores)
    residuals = (scores - scores.mean()) / math.sqrt(1 - 1 / num)
    others = (np.square(scores - scores.mean()).sum() - residuals**2) / (num - 2)
    normal: NDArray[np.float64] = scipy_stats.norm.ppf(scipy_stats.t.cdf(residuals / np.sqrt(others), num - 2))
    return normal
