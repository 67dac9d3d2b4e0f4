from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from bench.sequential_simulations import Population, coverage, false_verdicts, false_verdicts_of_fixed
from gan_ablate.analysis.estimates import Estimate, mean_estimate
from gan_ablate.analysis.sequential import (
    PRIOR_SEEDS,
    critical_t,
    estimate_at_looks,
    seeds_to_settle,
    sequential_estimate,
)

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
def test_p_is_the_smallest_of_all_looks_by_the_bayes_factor(num: int) -> None:
    values = RNG.normal(0.8, 1, num)
    factors = [1.0]
    for seen in range(2, num + 1):
        estimate = mean_estimate(values[:seen])
        t = estimate.value / (estimate.std / math.sqrt(seen))
        factors.append(evidence(t, seen))
    assert sequential_estimate(values).p == pytest.approx(1 / max(factors))


@pytest.mark.parametrize("confidence", [0.95, 1 - 0.05 / 6])
@pytest.mark.parametrize("num", [6, 10, 60])
def test_the_critical_t_is_where_the_evidence_reaches_one_over_alpha(num: int, confidence: float) -> None:
    assert evidence(critical_t(num, confidence), num) == pytest.approx(1 / (1 - confidence))


def test_no_t_is_enough_for_the_first_seeds() -> None:
    assert [math.isinf(critical_t(num, 0.95)) for num in (2, 3, 4)] == [True, True, False]
    estimate = sequential_estimate(np.array([1.0, 1.1]))
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert estimate.p > 0.05


def test_the_interval_is_what_no_look_has_excluded() -> None:
    values = RNG.normal(0.5, 1, 20)
    bounds = []
    for num in range(4, 21):
        seen = mean_estimate(values[:num])
        half = critical_t(num, 0.95) * seen.std / math.sqrt(num)
        bounds.append((seen.value - half, seen.value + half))
    for num in range(4, 21):
        estimate = sequential_estimate(values[:num])
        assert estimate.low == pytest.approx(max(low for low, _ in bounds[: num - 3]))
        assert estimate.high == pytest.approx(min(high for _, high in bounds[: num - 3]))
        assert estimate.value == pytest.approx(values[:num].mean())


def test_more_seeds_never_widen_the_interval_nor_raise_p() -> None:
    for _ in range(20):
        values = RNG.standard_t(3, 25) + 0.3
        estimates = [sequential_estimate(values[:num]) for num in range(2, 26)]
        for earlier, later in itertools.pairwise(estimates):
            assert later.p <= earlier.p
            assert earlier.low <= later.low <= later.high <= earlier.high


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_the_interval_excludes_zero_exactly_where_p_is_below(confidence: float) -> None:
    outcomes = set()
    for _ in range(200):
        values = RNG.normal(RNG.choice([0, 1.0]), 1, 12)
        estimate = sequential_estimate(values, confidence)
        excludes_zero = estimate.low > 0 or estimate.high < 0
        assert excludes_zero == (estimate.p < 1 - confidence)
        outcomes.add(excludes_zero)
    assert outcomes == {True, False}


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


def test_an_effect_as_large_as_the_margin_is_found_and_one_of_nothing_needs_a_margin() -> None:
    assert seeds_to_settle(Estimate(0.0, 0, 0, 5, std=0.1), None, 0.95) is None
    assert seeds_to_settle(Estimate(0.1, 0, 0, 5, std=0.1), 0.1, 0.95) is not None
    assert seeds_to_settle(Estimate(0.1, 0, 0, 1), 0.1, 0.95) is None


@pytest.mark.parametrize("truths", [(0.0,) * 6, (1.0,) * 6, (0.0, 1.0) * 3])
def test_looking_after_every_seed_is_seldom_wrong(truths: tuple[float, ...]) -> None:
    """In at most 5 % of families any verdict, at any look; Student's t is wrong several times as often."""
    ours, naive = false_verdicts(Population.NORMAL, np.array(truths), 1.0, num_repetitions=150)
    assert ours <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 150)
    assert naive > 2 * ours


@pytest.mark.parametrize("truths", [(0.0,) * 6, (3.0,) * 6, (0.0, 3.0) * 3])
def test_verdicts_of_a_fixed_number_of_seeds_are_seldom_wrong(truths: tuple[float, ...]) -> None:
    shares = false_verdicts_of_fixed(5, np.array(truths), 3.0, num_repetitions=400)
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    assert shares.effect <= most
    assert shares.negligible <= most


def test_intersected_intervals_cover() -> None:
    assert coverage(Population.NORMAL, num_repetitions=600) >= 0.95


def test_seeds_that_contradict_earlier_ones_leave_everything_open() -> None:
    """Seven seeds in which nothing happens, then a collapse in each: not draws of one distribution."""
    values = np.concatenate([RNG.normal(0, 0.01, 7), RNG.normal(0.9, 0.05, 20)])
    assert sequential_estimate(values[:7]).high < math.log(1.1)
    looks = estimate_at_looks(values)
    contradicted = int(np.flatnonzero(np.isinf(looks.low) & (np.arange(len(values)) > 6))[0])
    assert (looks.p[contradicted:] == 1).all()
    assert np.isinf(looks.high[contradicted:]).all()
    assert (np.isinf(looks.low) == np.isinf(looks.high)).all()
    estimate = sequential_estimate(values)
    assert not (estimate.low > 0)
    assert not (estimate.high < 0)


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
        assert looks.high[num - 1] == pytest.approx(min(looks.high[num - 2], seen.mean() + half))
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
