from __future__ import annotations

import math

import numpy as np
import pytest

from gan_ablate.analysis.variance import VarianceSplit, split_variance


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
