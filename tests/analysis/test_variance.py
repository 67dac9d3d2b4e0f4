from __future__ import annotations

import math

import numpy as np
import pytest

from gan_ablate.analysis.variance import VarianceSplit, split_grid_variance, split_variance
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from tests.synthetic import make_results


def simulate(seed: float, sampling: float, extractor: float, shape: tuple[int, int, int]) -> VarianceSplit:
    """Scores with these standard deviations, and a shift per variant and per extractor that must not count."""
    rng = np.random.default_rng(0)
    variants, seeds, extractors = shape
    scores = rng.normal(0, 3, (variants, 1, 1)) + rng.normal(0, 2, (variants, 1, extractors))
    scores = scores + rng.normal(0, seed, (variants, seeds, 1)) + rng.normal(0, sampling, (variants, seeds, 1))
    scores = scores + rng.normal(0, extractor, shape)
    return split_variance(scores, np.full((variants, seeds), sampling))


def test_the_parts_are_those_that_were_put_in() -> None:
    split = simulate(0.3, 0.1, 0.2, (400, 5, 3))
    assert math.sqrt(split.seed) == pytest.approx(0.3, rel=0.05)
    assert math.sqrt(split.sampling) == pytest.approx(0.1)
    assert math.sqrt(split.extractor) == pytest.approx(0.2, rel=0.05)


def test_one_extractor_cannot_tell_its_own_part() -> None:
    split = simulate(0.3, 0.1, 0.0, (400, 5, 1))
    assert math.isnan(split.extractor)
    assert math.sqrt(split.seed) == pytest.approx(0.3, rel=0.05)
    shares = split.shares()
    assert shares.seed + shares.sampling == pytest.approx(1)


def test_no_part_is_negative() -> None:
    assert simulate(0.0, 0.5, 0.5, (3, 3, 2)).seed >= 0


def test_variants_with_missing_seeds_are_left_out() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 4, 1))
    errors = np.full((3, 4), 0.1)
    whole = split_variance(scores[1:], errors[1:])
    scores[0, 2] = np.nan
    assert split_variance(scores, errors).seed == whole.seed
    assert math.isnan(split_variance(scores[:1], errors[:1]).shares().seed)


def test_a_variant_with_a_missing_sampling_error_alone_is_left_out() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 4, 1))
    errors = np.full((3, 4), 0.1)
    whole = split_variance(scores[1:], errors[1:])
    errors[0, 2] = np.nan
    assert split_variance(scores, errors).seed == whole.seed > 0


def test_shares_of_all_parts_make_one() -> None:
    shares = VarianceSplit(seed=3.0, sampling=1.0, extractor=4.0).shares()
    assert (shares.seed, shares.sampling, shares.extractor) == (0.375, 0.125, 0.5)


def test_two_extractors_that_disagree_about_seeds_are_told_from_the_seeds() -> None:
    """One variant: the extractors agree on the means of its two seeds, 1 apart, and are ±0.5 off them by turns."""
    split = split_variance(np.array([[[0.5, -0.5], [0.5, 1.5]]]), np.zeros((1, 2)))
    # Residuals are ±0.5 with one degree of freedom: 4 · 0.25. Of the means' variance of 0.5 half of that is noise.
    assert split.extractor == pytest.approx(1)
    assert split.seed == pytest.approx(0)
    parallel = split_variance(np.array([[[0.5, -0.5], [1.5, 0.5]]]), np.zeros((1, 2)))
    assert (parallel.extractor, parallel.seed) == pytest.approx((0, 0.5))


def test_a_grids_variance_is_of_log_fid_within_variants() -> None:
    planned = plan(load_grid("beta1"), seeds=3)
    fids = {cell.label: 20 * np.exp([0.0, 0.1 * i, 0.3 * i]) for i, cell in enumerate(planned.cells, 1)}
    runs = make_results(planned, lambda cell, seed: float(fids[cell.label][seed])).runs
    runs["fid_sampling_error"] = 0.01 * (1 + runs["seed"])
    split = split_grid_variance(planned, runs.sample(frac=1, random_state=0))
    assert split.sampling == pytest.approx((0.01**2 + 0.02**2 + 0.03**2) / 3)
    between = np.mean([np.var(np.log(of_cell), ddof=1) for of_cell in fids.values()])
    assert split.seed == pytest.approx(between - split.sampling)
    assert math.isnan(split.extractor)


@pytest.mark.parametrize("column", ["fid", "fid_sampling_error"])
def test_a_grids_variants_with_runs_that_lack_a_score_or_its_error_are_left_out(column: str) -> None:
    planned = plan(load_grid("beta1"), seeds=3)
    runs = make_results(planned, lambda cell, seed: 20.0 * (1 + seed * len(cell.label))).runs
    others = runs.loc[runs["cell"] != planned.cells[2].label]
    expected = split_grid_variance(planned, others)
    runs.loc[(runs["cell"] == planned.cells[2].label) & (runs["seed"] == 1), column] = np.nan
    found = split_grid_variance(planned, runs)
    assert (found.seed, found.sampling) == (expected.seed, expected.sampling)
    assert found.seed > 0
