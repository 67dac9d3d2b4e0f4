from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gan_ablate.stats import contrast_estimate, mean_estimate

RNG = np.random.default_rng(0)


def test_the_interval_is_scipys_t_interval() -> None:
    values = RNG.normal(3, 2, size=7)
    estimate = mean_estimate(values)
    low, high = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((values.mean(), low, high))
    assert estimate.num_seeds == 7


def test_a_difference_is_scipys_paired_t_test() -> None:
    values = RNG.normal(size=(5, 3))
    estimate = contrast_estimate(values, np.array([-1.0, 0.0, 1.0]))
    low, high = scipy_stats.ttest_rel(values[:, 2], values[:, 0]).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_a_missing_value_leaves_its_seed_out_only_where_it_counts() -> None:
    values = np.array([[1.0, 2.0, np.nan], [1.0, 3.0, 7.0], [1.0, 4.0, 8.0]])
    assert contrast_estimate(values, np.array([-1.0, 1.0, 0.0])).num_seeds == 3
    assert contrast_estimate(values, np.array([-1.0, 0.0, 1.0])).num_seeds == 2


def test_one_seed_has_no_interval_and_none_has_no_value() -> None:
    one, none = mean_estimate(np.array([2.0, np.nan])), mean_estimate(np.array([np.nan]))
    assert (one.value, one.num_seeds) == (2.0, 1)
    assert math.isnan(one.low)
    assert not one.excludes_zero
    assert math.isnan(none.value)


def test_log_ratios_turn_into_percent() -> None:
    halved = mean_estimate(np.log([0.5, 0.5, 0.5])).as_percent_change()
    assert halved.value == pytest.approx(-50)
    assert mean_estimate(np.log([2.0, 8.0])).as_ratio().value == pytest.approx(4)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    covered = [(estimate := mean_estimate(RNG.normal(1, 1, size=5))).low <= 1 <= estimate.high for _ in range(4_000)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)
