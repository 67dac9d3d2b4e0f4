from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from gan_ablate.analysis.design import Design
from gan_ablate.analysis.estimates import Estimate, mean_estimate
from gan_ablate.analysis.families import estimate_effects
from gan_ablate.analysis.tests import (
    MOST_SEEDS,
    RateComparison,
    _power,
    compare_rates,
    fewest_seeds,
    holm,
    margin_alpha,
    margin_p,
    median_estimate,
    median_margin_p,
    seeds_by_signs,
    seeds_needed,
    sign_flip_test,
    sign_p_value,
)
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, Variant, plan
from tests.synthetic import make_results

RNG = np.random.default_rng(0)


def test_the_sign_flip_test_is_scipys_permutation_test() -> None:
    values = RNG.normal(0.4, 1, size=8)
    expected = scipy_stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=10**6)
    found = sign_flip_test(values)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.smallest_p == 2 / 2**8


def test_the_sign_flip_test_of_equal_signs_is_its_smallest_p() -> None:
    assert sign_flip_test(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).p == 2 / 32
    assert sign_flip_test(np.zeros(4)).p == 1
    nothing = sign_flip_test(np.array([np.nan]))
    assert math.isnan(nothing.p)
    assert math.isnan(nothing.smallest_p)


def test_many_seeds_are_flipped_at_random_and_the_same_way_every_time() -> None:
    values = RNG.normal(0.3, 1, size=24)
    first = sign_flip_test(values)
    assert first == sign_flip_test(values)
    assert first.p == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue, abs=0.02)


def test_holm_is_statsmodels() -> None:
    p_values = [0.01, 0.04, 0.03, 0.2, 0.0005]
    rejected, adjusted, _, _ = multipletests(p_values, 0.05, method="holm")
    tests = holm(p_values)
    assert [test.p for test in tests] == pytest.approx(adjusted)
    assert [test.is_rejected for test in tests] == rejected.tolist()


def test_a_test_that_cannot_be_made_yet_is_one_of_the_family() -> None:
    missing, *others = holm([math.nan, 0.02, 0.04])
    assert math.isnan(missing.p)
    assert math.isnan(missing.confidence)
    assert missing.is_rejected is False
    assert [test.p for test in others] == pytest.approx([0.06, 0.08])


def test_an_adjusted_p_is_no_more_than_one() -> None:
    assert [test.p for test in holm([0.9, 0.02, 0.8])] == pytest.approx([1, 0.06, 1])


def test_equal_p_values_are_tested_in_their_order_whatever_their_last_bit() -> None:
    for last in (-1e-15, 0.0, 1e-15):
        first, second = holm([0.01, 0.01 * (1 + last)])
        assert (first.confidence, second.confidence) == (0.975, 0.95)
        assert holm([0.025 * (1 + last), 0.9])[0].is_rejected is False
    assert holm([0.01 * (1 + 1e-6), 0.01])[0].confidence == 0.95


def test_no_level_is_above_that_of_the_fewest() -> None:
    first, second, third = holm([0.001, 0.02, 0.024], fewest=2)
    assert [test.confidence for test in (first, second, third)] == pytest.approx([1 - 0.05 / 3, 0.975, 0.975])
    assert third.is_rejected
    assert third.p == pytest.approx(0.048)
    assert not holm([0.03], fewest=2)[0].is_rejected


def test_p_of_the_margin_is_scipys_of_two_one_sided_tests() -> None:
    values = RNG.normal(0.1, 0.3, 8)
    low = scipy_stats.ttest_1samp(values, -0.5, alternative="greater").pvalue
    high = scipy_stats.ttest_1samp(values, 0.5, alternative="less").pvalue
    assert margin_p(values, 0.5) == pytest.approx(max(low, high))
    assert margin_p(values + 0.9, 0.5) > 0.5
    assert math.isnan(margin_p(np.full(4, 0.1), 0.5))


def test_interval_of_the_margin_has_twice_the_level_and_at_least_95_percent() -> None:
    levels = [margin_alpha(alpha) for alpha in (0.01, 0.02, 0.025, 0.04, 0.05)]
    assert levels == pytest.approx([0.02, 0.04, 0.05, 0.05, 0.05])


def test_an_interval_that_touches_zero_is_no_rejection() -> None:
    assert [test.is_rejected for test in holm([0.25, 0.9], alpha=0.5)] == [False, False]
    assert [test.is_rejected for test in holm([0.2499, 0.9], alpha=0.5)] == [True, False]


def test_holms_interval_excludes_zero_exactly_where_its_test_rejects() -> None:
    for _ in range(300):
        samples = RNG.normal(RNG.choice([0, 0.8, 1.5], size=4), 1, size=(6, 4))
        tests = holm([mean_estimate(column).p for column in samples.T])
        for column, test in zip(samples.T, tests, strict=True):
            bounds = mean_estimate(column, test.confidence)
            assert (bounds.low > 0 or bounds.high < 0) == test.is_rejected


def test_rates_are_compared_exactly() -> None:
    # Of the 252 ways to give 5 of 10 runs the event, 2 are as extreme as 5 against 0.
    comparison = compare_rates(np.ones(5), np.zeros(5), is_fixed=True)
    assert comparison.p == pytest.approx(2 / 252)
    assert (comparison.count, comparison.total, comparison.baseline_count, comparison.baseline_total) == (5, 5, 0, 5)
    assert math.isnan(compare_rates(np.array([np.nan]), np.ones(1), is_fixed=True).p)


@pytest.mark.parametrize(("size", "alpha"), [(0.3, 0.05), (0.5, 0.05), (1.0, 0.05), (0.5, 0.01), (1.3, 0.0125)])
def test_the_seeds_needed_are_those_of_statsmodels_power_analysis(size: float, alpha: float) -> None:
    expected = TTestPower().solve_power(size, power=0.8, alpha=alpha)
    needed = seeds_needed(Estimate(size, 0, 0, num_seeds=5, std=1.0), alpha)
    assert needed is not None
    assert abs(needed - math.ceil(expected)) <= 1


@pytest.mark.parametrize("size", [2, 3, 5, 20])
def test_a_large_effect_needs_few_seeds(size: float) -> None:
    """Where library routines for the noncentral t fail, against simulation."""
    needed = seeds_needed(Estimate(size, 0, 0, num_seeds=3, std=1.0), 0.01)
    assert needed is not None

    def power(num: int) -> float:
        samples = np.random.default_rng(0).normal(size, 1, size=(20_000, num))
        t = samples.mean(axis=1) / samples.std(axis=1, ddof=1) * math.sqrt(num)
        return float((np.abs(t) > scipy_stats.t.ppf(0.995, num - 1)).mean())

    assert power(needed) >= 0.79
    assert needed == 2 or power(needed - 1) < 0.81


def test_no_number_of_seeds_finds_what_is_not_there() -> None:
    assert seeds_needed(Estimate(0.0, 0, 0, 5, std=1.0)) is None
    assert seeds_needed(Estimate(1e-4, 0, 0, 5, std=1.0)) is None
    assert seeds_needed(Estimate(1.0, math.nan, math.nan, 1)) is None
    assert seeds_needed(Estimate(1.0, math.nan, math.nan, 4, std=0.0)) is None


@pytest.mark.parametrize(("size", "std"), [(0.0, 0.03), (0.0, 0.1), (0.03, 0.05), (0.15, 0.1)])
def test_effect_within_the_margin_needs_fewer_seeds(size: float, std: float) -> None:
    """Against simulation: the interval excludes zero or lies within the margin with a chance of 80 %."""
    margin = math.log(1.1)
    needed = seeds_needed(Estimate(size, 0, 0, num_seeds=5, std=std), 0.05, margin)
    assert needed is not None

    def chance(num: int) -> float:
        samples = np.random.default_rng(0).normal(size, std, size=(20_000, num))
        mean = samples.mean(axis=1)
        half = scipy_stats.t.ppf(0.975, num - 1) * samples.std(axis=1, ddof=1) / math.sqrt(num)
        return float(((np.abs(mean) > half) | (np.abs(mean) + half < margin)).mean())

    assert chance(needed) >= 0.79
    assert needed == 2 or chance(needed - 1) < 0.81


def test_sums_that_are_equal_on_paper_count_as_equal() -> None:
    """0.1 + 0.2 - 0.3 is not 0 in binary; among all flips of equal sizes, ties must count on both sides."""
    values = np.array([0.1, 0.2, 0.3, -0.6, 0.7, 0.1, 0.2])
    exact = np.round(values * 10).astype(int)
    signs = 1 - 2 * ((np.arange(2**7)[:, None] >> np.arange(7)) & 1)
    sums = np.abs(signs @ exact)
    assert sign_flip_test(values).p == (sums >= abs(exact.sum())).mean()


@pytest.mark.parametrize(("size", "num"), [(0.0, 4), (0.2, 3), (0.5, 10), (0.5, 40), (1.0, 8)])
def test_the_chance_to_find_an_effect_is_that_of_the_noncentral_t(size: float, num: int) -> None:
    critical, shift = scipy_stats.t.ppf(0.975, num - 1), size * math.sqrt(num)
    expected = scipy_stats.nct.sf(critical, num - 1, shift) + scipy_stats.nct.cdf(-critical, num - 1, shift)
    assert _power(size, num, 0.05, None) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("size", "num", "room"), [(0.0, 6, 1.0), (0.3, 10, 0.8), (0.6, 12, 1.2), (0.1, 5, 1.5)])
def test_power_is_that_of_simulated_studies(size: float, num: int, room: float) -> None:
    rng, draws = np.random.default_rng(0), 1_000_000
    means = np.abs(rng.normal(size, 1 / math.sqrt(num), draws))
    halves = scipy_stats.t.ppf(0.975, num - 1) * np.sqrt(rng.chisquare(num - 1, draws) / (num - 1) / num)
    expected = ((means > halves) | (means + halves < room)).mean()
    assert _power(size, num, 0.05, room) == pytest.approx(expected, abs=2e-3)
    strict = halves * scipy_stats.t.ppf(1 - 0.05 / 6, num - 1) / scipy_stats.t.ppf(0.975, num - 1)
    within = halves * scipy_stats.t.ppf(1 - 0.05 / 3, num - 1) / scipy_stats.t.ppf(0.975, num - 1)
    expected = ((means > strict) | (means + within < room)).mean()
    assert _power(size, num, 0.05 / 3, room) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    ("enough", "found"),
    [(0, 2), (2, 2), (3, 3), (777, 777), (MOST_SEEDS, MOST_SEEDS), (MOST_SEEDS + 1, None), (10**9, None)],
)
def test_needed_seeds_are_at_least_two_and_none_beyond_the_limit(enough: int, found: int | None) -> None:
    assert fewest_seeds(lambda num: num >= enough) == found


def rates_of(planned: Plan, runs: pd.DataFrame, name: str) -> RateComparison:
    effects = estimate_effects(Design.of(planned), runs)
    return next(effect for effect in effects if effect.name == name).rates["diverged"]


def test_rates_of_events_are_of_runs_that_ended_and_of_the_baseline() -> None:
    """Of a one-at-a-time grid; a run that failed tells nothing of divergence."""
    planned = plan(load_grid("essentials"), seeds=4)
    runs = make_results(planned, lambda variant, seed: None if "beta1 0.9" in variant.label and seed < 2 else 20.0).runs
    runs.loc[(runs["variant"] == "beta1 0.9") & (runs["seed"] == 3), "status"] = "failed"
    runs.loc[(runs["variant"] == planned.baseline.label) & (runs["seed"] == 0), "status"] = "diverged"
    rates = rates_of(planned, runs, "beta1 0.9")
    assert (rates.count, rates.total) == (2, 3)
    assert (rates.baseline_count, rates.baseline_total) == (1, 4)


def test_rates_of_an_interaction_compare_both_levels_with_both_baselines() -> None:
    """Runs diverge without batch norm, and one with it; with one level alone they count on neither side."""
    planned = plan(load_grid("bn_label_smooth"), seeds=4)

    def fid(variant: Variant, seed: int) -> float | None:
        lacks_norm, is_smooth = variant.levels["batch_norm"] == "off", variant.levels["label_smoothing"] == "on"
        diverges = (lacks_norm and is_smooth and seed < 3) or (lacks_norm != is_smooth)
        diverges |= variant.config.seed + seed == 0
        return None if diverges else 20.0

    runs = make_results(planned, fid).runs
    both = rates_of(planned, runs, "batch norm off × label smoothing on")
    assert (both.count, both.total, both.baseline_count, both.baseline_total) == (3, 4, 1, 4)
    norm = rates_of(planned, runs, "batch norm off")
    assert (norm.count, norm.total, norm.baseline_count, norm.baseline_total) == (7, 8, 5, 8)


@pytest.mark.parametrize(("against", "num"), [(0, 5), (1, 8), (3, 12), (6, 12)])
def test_signs_of_a_fixed_number_of_seeds_are_the_sign_test(against: int, num: int) -> None:
    expected = scipy_stats.binomtest(against, num).pvalue
    assert sign_p_value(against, num, is_fixed=True) == pytest.approx(expected)


@pytest.mark.parametrize(("family", "seeds"), [(1, 6), (3, 8), (6, 9)])
def test_signs_can_find_an_effect_from_so_many_seeds(family: int, seeds: int) -> None:
    smallest = [sign_p_value(0, num, is_fixed=False) for num in range(1, 20)]
    assert next(num for num, p in enumerate(smallest, start=1) if p < 0.05 / family) == seeds


@pytest.mark.parametrize("chance", [0.5, 0.3])
def test_signs_hold_their_error_at_every_look(chance: float) -> None:
    """By the exact probabilities of every path of up to 100 signs; zeros, which are on no side, only lower it."""
    paths, found = {0: 1.0}, 0.0  # the seeds above zero → the probability of not having found anything
    for num in range(1, 101):
        after: dict[int, float] = {}
        for above, probability in paths.items():
            for sign, share in ((1, chance), (0, 1 - chance)):
                after[above + sign] = after.get(above + sign, 0.0) + share * probability
        limit = 0.05 if chance == 0.5 else 0.025
        for above in list(after):
            sides = (num - above, above) if chance == 0.5 else (num - above,)
            if any(sign_p_value(against, num, is_fixed=False) < 0.05 for against in sides):
                found += after.pop(above)
        paths = after
    assert found < limit


@pytest.mark.parametrize("is_fixed", [True, False])
def test_the_interval_of_a_median_excludes_zero_exactly_where_the_signs_do(is_fixed: bool) -> None:
    for shift in np.linspace(-2, 2, 21):
        values = RNG.normal(shift, 1, 13)
        bounds = np.stack([values, values], axis=1)
        estimate = median_estimate(bounds, is_fixed=is_fixed)
        assert estimate.value == np.median(values)
        assert estimate.low <= estimate.value <= estimate.high
        assert (estimate.low > 0 or estimate.high < 0) == (estimate.p < 0.05)


def test_the_interval_of_a_median_is_that_of_order_statistics() -> None:
    """The sign test of ten seeds excludes zero with one seed against: the second smallest, and the second largest."""
    values = np.arange(10.0)
    estimate = median_estimate(np.stack([values, values], axis=1), is_fixed=True)
    assert (estimate.low, estimate.value, estimate.high, estimate.num_seeds) == (1, 4.5, 8, 10)


def test_zeros_and_unknown_differences_count_for_neither_side() -> None:
    values = np.array([1.0, 1, 1, 1, 1, 1, 0, 0])
    assert median_estimate(np.stack([values, values], axis=1), is_fixed=True).p == pytest.approx(2 * 37 / 256)
    bounds = np.array([[1.0, np.inf]] * 6 + [[-np.inf, np.inf]] * 2)
    estimate = median_estimate(bounds, is_fixed=True)
    assert estimate.p == pytest.approx(2 * 37 / 256)
    assert (estimate.value, estimate.low, estimate.high) == (1, -np.inf, np.inf)
    nothing = median_estimate(np.array([[-np.inf, np.inf]] * 9), is_fixed=True)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high, nothing.p) == (-np.inf, np.inf, 1)
    assert median_estimate(np.full((3, 2), np.nan), is_fixed=True).num_seeds == 0


def test_seeds_that_signs_need_follow_from_their_shares() -> None:
    bounds = np.array([[1.0, 1.0]] * 5)
    assert seeds_by_signs(bounds, None, 0.05, is_fixed=True) == 6
    assert seeds_by_signs(bounds, None, 0.05 / 6, is_fixed=False) == 9
    assert seeds_by_signs(0 * bounds, 0.1, 0.05, is_fixed=True) == 6  # within the margin
    assert seeds_by_signs(np.array([[1.0, 1.0], [-1.0, -1.0]]), 0.1, 0.05, is_fixed=True) is None


def test_rates_of_pairs_hold_at_every_look() -> None:
    """Of runs that share a seed and so tend to share the event, and of others."""
    rng, found = np.random.default_rng(0), {0.0: 0, 0.5: 0}
    for share in found:
        for _ in range(200):
            common, alone = rng.random((30, 1)) < 0.3, rng.random((30, 2)) < 0.3
            happened = np.where(rng.random((30, 1)) < share, common, alone).astype(float)
            ps = (compare_rates(*happened[:num].T, is_fixed=False).p for num in range(2, 31))
            found[share] += min(ps) < 0.05
    assert max(found.values()) <= 0.05 * 200


def test_rates_that_differ_are_found_with_five_pairs() -> None:
    rates = compare_rates(np.ones(5), np.zeros(5), is_fixed=False)
    assert rates.p == pytest.approx(0.0066, abs=1e-4)
    again = compare_rates(np.array([1, 1, np.nan]), np.array([0, 0, 0.0]), is_fixed=False)
    assert (again.count, again.total, again.baseline_count, again.baseline_total) == (2, 2, 0, 3)


@pytest.mark.parametrize(
    ("counts", "p", "change"),
    [
        ((5, 5, 0, 5), 0.01, "higher"),
        ((0, 5, 5, 5), 0.01, "lower"),
        ((5, 5, 0, 5), 0.06, None),
        ((5, 5, 0, 5), math.nan, None),
    ],
)
def test_a_change_of_rates_is_told_by_holms_p(counts: tuple[int, int, int, int], p: float, change: str | None) -> None:
    assert RateComparison(*counts, 0.001, p).change == change


def test_median_is_negligible_where_enough_seeds_lie_within_the_margin() -> None:
    """Nine of ten seeds change little, and one jumps: two one-sided tests of signs, each with at most one against."""
    values = np.array([0.01, -0.02, 0.0, 0.03, -0.01, 0.02, 0.01, -0.03, 0.0, 1.5])
    bounds = np.stack([values, values], axis=1)
    assert median_margin_p(bounds, 0.1, is_fixed=True) == pytest.approx(11 / 1024)
    assert median_margin_p(bounds, 0.1, is_fixed=False) > median_margin_p(bounds, 0.1, is_fixed=True)
    assert median_margin_p(bounds + 0.5, 0.1, is_fixed=True) == 1.0
    unknown = np.tile([-np.inf, np.inf], (10, 1))
    assert median_margin_p(unknown, 0.1, is_fixed=True) == 1.0
    assert math.isnan(median_margin_p(np.full((3, 2), np.nan), 0.1, is_fixed=True))
