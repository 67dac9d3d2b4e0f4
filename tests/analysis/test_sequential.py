from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from bench.populations import Population
from bench.sequential_simulations import coverage, false_verdicts, false_verdicts_of_fixed, reject
from gan_ablate.analysis.estimates import Estimate, mean_estimate
from gan_ablate.analysis.sequential import (
    CALIBRATED_LOOKS,
    PRIOR_SEEDS,
    calibrated_level,
    critical_t,
    estimate_at_looks,
    seeds_to_settle,
    sequential_estimate,
    sequential_margin_p,
    settling_range,
)
from gan_ablate.analysis.tests import holm

RNG = np.random.default_rng(0)


def evidence(t: float, num: int) -> float:
    """The Bayes factor by its definition: the t statistic's density under the mixture over that without an effect.

    A noncentral t whose noncentrality is N(0, n / g) is a central t, scaled by √(1 + n / g).
    """
    scale = math.sqrt(1 + num / PRIOR_SEEDS)

    def log_density(x: float) -> float:
        return -num / 2 * math.log1p(x * x / (num - 1))

    return math.exp(log_density(t / scale) - log_density(t)) / scale


@pytest.mark.parametrize("num", [5, 8, 30])
def test_p_is_the_smallest_of_all_looks_on_the_same_side_by_the_bayes_factor(num: int) -> None:
    values = RNG.normal(0.8, 1, num)
    factors = [1.0]
    for seen in range(2, num + 1):
        estimate = mean_estimate(values[:seen])
        t = estimate.value / (estimate.std / math.sqrt(seen))
        if estimate.value * values.mean() > 0:
            factors.append(evidence(t, seen))
    assert calibrated_level(sequential_estimate(values).p) == pytest.approx(1 / max(factors))


def test_estimate_that_changes_its_sign_loses_what_was_found() -> None:
    values = np.concatenate([[1.0, 1.1, 0.9, 1.05, 0.95, 1.0], np.full(20, -1.5) + 0.3 * np.sin(np.arange(20))])
    looks = estimate_at_looks(values)
    assert looks.p[5] < 0.001
    assert looks.p[np.flatnonzero(values.cumsum() < 0)[0]] > 0.05


@pytest.mark.parametrize("error", [0.9, 0.05, 0.05 / 6, 0.05 / 8, 0.05 / 20, 1e-6])
def test_calibrated_level_is_monotone_and_p_is_its_inverse(error: float) -> None:
    assert error < calibrated_level(error) < calibrated_level(1.01 * error)
    assert calibrated_level(error) < 2 * error
    values = np.array([0.0, 1.0, 0.5, 0.8, 0.2, 0.9, 0.4])
    at = critical_t(len(values), 1 - error) * values.std(ddof=1) / math.sqrt(len(values)) if error < 0.2 else math.nan
    if math.isfinite(at):
        assert estimate_at_looks(values - values.mean() + at).p[-1] == pytest.approx(error)


def test_level_of_the_issue_spends_its_error_by_the_hundredth_look() -> None:
    """Against the definition: E of normal numbers without an effect, at every look."""
    values = np.random.default_rng(11).standard_normal((4_000, CALIBRATED_LOOKS))
    smallest = estimate_at_looks(values).p.min(axis=1)
    for error in (0.05, 0.025, 0.1):
        assert np.mean(smallest < error) == pytest.approx(error, abs=3.5 * math.sqrt(error / 4_000))


@pytest.mark.parametrize("confidence", [0.95, 1 - 0.05 / 6])
@pytest.mark.parametrize("num", [6, 10, 60])
def test_the_critical_t_is_where_the_evidence_reaches_one_over_alpha(num: int, confidence: float) -> None:
    assert evidence(critical_t(num, confidence), num) == pytest.approx(1 / calibrated_level(1 - confidence))


def test_no_t_is_enough_for_the_first_seeds() -> None:
    assert [math.isinf(critical_t(num, 0.95)) for num in (2, 3, 4)] == [True, True, False]
    estimate = sequential_estimate(np.array([1.0, 1.1]))
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert estimate.p > 0.05


def test_the_interval_is_that_of_all_seeds() -> None:
    values = RNG.normal(0.5, 1, 20)
    for num in range(4, 21):
        seen = mean_estimate(values[:num])
        half = critical_t(num, 0.95) * seen.std / math.sqrt(num)
        estimate = sequential_estimate(values[:num])
        assert (estimate.low, estimate.high) == pytest.approx((seen.value - half, seen.value + half))


def test_more_seeds_never_raise_p_while_the_estimate_keeps_its_sign() -> None:
    for _ in range(20):
        values = RNG.standard_t(3, 25) + 0.3
        estimates = [sequential_estimate(values[:num]) for num in range(2, 26)]
        for earlier, later in itertools.pairwise(estimates):
            assert later.p <= earlier.p or earlier.value * later.value < 0
            assert later.low < later.value < later.high


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_p_is_below_the_level_exactly_where_a_look_excluded_zero_on_that_side(confidence: float) -> None:
    outcomes = set()
    for _ in range(200):
        values = RNG.normal(RNG.choice([0, 1.0]), 1, 12)
        looks, is_above = estimate_at_looks(values, confidence), values.mean() > 0
        excludes_zero = bool((looks.low > 0).any() if is_above else (looks.high < 0).any())
        assert excludes_zero == (looks.p[-1] < 1 - confidence)
        outcomes.add(excludes_zero)
    assert outcomes == {True, False}


def test_p_of_the_margin_is_below_half_the_level_exactly_where_a_look_lay_within() -> None:
    outcomes = set()
    for _ in range(200):
        values = RNG.normal(RNG.choice([0, 0.8]), 0.6, 12)
        looks = estimate_at_looks(values, 0.95, margin=1.0)
        lies_within = bool(((looks.low > -1) & (looks.high < 1)).any() and abs(values.mean()) < 1)
        assert lies_within == (looks.p_beyond[-1] < 0.025)
        assert looks.p_beyond[-1] == sequential_margin_p(values, 1.0)
        outcomes.add(lies_within)
    assert outcomes == {True, False}
    assert (estimate_at_looks(values).p_beyond == 1).all()
    assert math.isnan(sequential_margin_p(np.full(5, 0.1), 1.0))


def test_evidence_of_looks_outside_the_margin_is_none_for_lying_within() -> None:
    values = np.concatenate([5 + 0.1 * np.sin(np.arange(8)), np.full(9, -4.0) + 0.1 * np.cos(np.arange(9))])
    looks = estimate_at_looks(values, margin=1.0)
    assert abs(values.mean()) < 1
    assert looks.p_beyond[-1] > 0.2


def test_many_sequences_at_once_are_estimated_like_each_alone() -> None:
    values = RNG.normal(0.5, 1, (3, 2, 15))
    every = estimate_at_looks(values, margin=0.7)
    alone = estimate_at_looks(values[2, 1], margin=0.7)
    for name in ("low", "high", "p", "p_beyond"):
        assert getattr(every, name)[2, 1].tolist() == getattr(alone, name).tolist()


def test_seeds_without_a_score_are_no_looks() -> None:
    values = RNG.normal(0.5, 1, 9)
    with_gap = np.insert(values, 4, np.nan)
    assert sequential_estimate(with_gap) == sequential_estimate(values)


def test_seeds_that_agree_have_nothing_to_test() -> None:
    estimate = sequential_estimate(np.full(6, 0.25))
    assert math.isnan(estimate.p)
    assert estimate.num_seeds == 6


@pytest.mark.parametrize(("value", "std"), [(0.5, 0.2), (0.0, 0.05), (0.02, 0.1), (-0.3, 0.4)])
def test_needed_seeds_are_the_first_whose_interval_decides(value: float, std: float) -> None:
    margin = math.log(1.1)
    needed = seeds_to_settle(Estimate(value, 0, 0, 5, std=std), margin, 0.95)
    assert needed is not None

    def is_settled(num: int) -> bool:
        half = critical_t(num) * std / math.sqrt(num)
        return abs(value) >= half or abs(value) + half <= margin

    assert is_settled(needed)
    assert not is_settled(needed - 1)


def test_range_of_needed_seeds_holds_the_number_of_the_estimate() -> None:
    estimate = Estimate(0.1, 0, 0, 8, std=0.15)
    needed, likely = seeds_to_settle(estimate, None, 0.95), settling_range(estimate, None, 0.95)
    assert needed is not None
    assert likely is not None
    low, high = likely
    assert 8 <= low < needed
    assert high is None or high > needed  # without a margin, an effect of nothing is never decided
    assert settling_range(dataclasses.replace(estimate, num_seeds=200), None, 0.95) != likely
    assert settling_range(Estimate(0.1, 0, 0, 8, std=0.0), None, 0.95) is None


def test_an_effect_as_large_as_the_margin_is_found_and_one_of_nothing_needs_a_margin() -> None:
    assert seeds_to_settle(Estimate(0.0, 0, 0, 5, std=0.1), None, 0.95) is None
    assert seeds_to_settle(Estimate(0.1, 0, 0, 5, std=0.1), 0.1, 0.95) is not None
    assert seeds_to_settle(Estimate(0.1, 0, 0, 1), 0.1, 0.95) is None


@pytest.mark.parametrize("truths", [(0.0,) * 6, (1.0,) * 6, (0.0, 1.0) * 3])
def test_looking_after_every_seed_is_seldom_wrong(truths: tuple[float, ...]) -> None:
    """In at most 5 % of families either kind of verdict, at any look; Student's t is wrong several times as often."""
    ours, naive = false_verdicts(Population.NORMAL, np.array(truths), 1.0, num_repetitions=400)
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    assert ours.effect <= most
    assert ours.negligible <= most
    assert ours.any <= ours.effect + ours.negligible + 1e-9
    assert naive > 2 * ours.any


def test_families_at_once_are_rejected_like_each_by_holm() -> None:
    p_values = RNG.uniform(0, 0.05, (50, 4)) ** 2
    for fewest in (1, 2):
        rejected = reject(p_values, fewest)
        assert rejected.tolist() == [[t.is_rejected for t in holm(list(p), fewest=fewest)] for p in p_values]


@pytest.mark.parametrize("truths", [(0.0,) * 6, (3.0,) * 6, (0.0, 3.0) * 3])
def test_verdicts_of_a_fixed_number_of_seeds_are_seldom_wrong(truths: tuple[float, ...]) -> None:
    shares = false_verdicts_of_fixed(5, np.array(truths), 3.0, num_repetitions=400)
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    assert shares.effect <= most
    assert shares.negligible <= most


def test_intervals_of_all_looks_cover() -> None:
    assert coverage(Population.NORMAL, num_repetitions=2_000) >= 0.95


def test_seeds_that_contradict_earlier_ones_undo_what_was_negligible() -> None:
    """Seven seeds in which nothing happens, then a collapse in each: not draws of one distribution."""
    margin = math.log(1.1)
    values = np.concatenate([RNG.normal(0, 0.01, 7), RNG.normal(0.9, 0.05, 20)])
    looks = estimate_at_looks(values, margin=margin)
    assert looks.p_beyond[6] < 0.01
    assert (looks.p_beyond[8:] == 1).all()
    assert (looks.low < looks.high).all()


@pytest.mark.parametrize("start", [2.0, 0.0])
def test_the_first_look_and_those_at_seeds_that_agree_exclude_nothing(start: float) -> None:
    values = start + np.array([0.0, 0.0, 0.0, 0.0, 0.1, 0.05])
    looks = estimate_at_looks(values)
    assert looks.low[:4].tolist() == [-math.inf] * 4
    assert looks.high[:4].tolist() == [math.inf] * 4
    assert looks.p[:4].tolist() == [1.0] * 4
    # From the fifth on there is a spread to go by.
    for num in (5, 6):
        seen = values[:num]
        half = critical_t(num) * seen.std(ddof=1) / math.sqrt(num)
        assert looks.high[num - 1] == pytest.approx(seen.mean() + half)
    assert (looks.p[5] < 1e-3) == (start == 2.0)


@pytest.mark.parametrize("shift", [1e6, -1e9])
def test_the_looks_at_what_lies_far_from_zero_are_the_same_further_on(shift: float) -> None:
    values = np.random.default_rng(4).normal(0, 1, 12)
    near, far = estimate_at_looks(values), estimate_at_looks(values + shift)
    assert far.low[3:] - shift == pytest.approx(near.low[3:], abs=1e-5)
    assert far.high[3:] - shift == pytest.approx(near.high[3:], abs=1e-5)


def test_looks_do_not_depend_on_the_unit() -> None:
    values = np.random.default_rng(5).normal(1, 1, 12)
    near, small = estimate_at_looks(values), estimate_at_looks(1e-9 * values)
    assert small.p == pytest.approx(near.p)
    assert 1e9 * small.low[3:] == pytest.approx(near.low[3:])


def test_no_spread_or_no_value_is_never_decided() -> None:
    assert seeds_to_settle(Estimate(0.5, 0, 0, 5, std=0.0), 0.1, 0.95) is None
    assert seeds_to_settle(Estimate(math.nan, 0, 0, 5, std=0.1), 0.1, 0.95) is None
    assert seeds_to_settle(Estimate(math.inf, 0, 0, 5, std=0.1), None, 0.95) is None


def test_at_least_two_seeds_are_needed() -> None:
    """At a level so low that two are enough, and an effect so large that they are."""
    assert math.isfinite(critical_t(2, 0.2))
    assert seeds_to_settle(Estimate(1e6, 0, 0, 5, std=0.1), None, 0.2) == 2
