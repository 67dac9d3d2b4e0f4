from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from gan_ablate.analysis.design import Design
from gan_ablate.analysis.effects import Effect
from gan_ablate.analysis.estimates import mean_estimate
from gan_ablate.analysis.families import Comparison, estimate_effects, estimate_family, estimate_simple_effects
from gan_ablate.analysis.sequential import critical_t, seeds_to_settle
from gan_ablate.design.grid import load_grid
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.design.plan import Intervals, Variant, plan
from gan_ablate.reporting.sentences import adjusted_text, decision_sentence
from tests.synthetic import make_results

MARGIN = 0.1


def sides_of(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two sides with these differences, around what a seed does to both."""
    luck = np.random.default_rng(1).normal(0, 3, len(differences))
    return np.stack([luck + differences, luck], axis=1)


def family_of(
    *differences: NDArray[np.float64], margin: float | None = MARGIN, intervals: Intervals = "fixed"
) -> list[Effect]:
    comparisons = [Comparison({"x": str(i)}, {"y": "off"}, sides_of(of_one)) for i, of_one in enumerate(differences)]
    return estimate_family(comparisons, OUTCOMES["fid"], margin, intervals)


def spread(mean: float, std: float, num: int = 6) -> NDArray[np.float64]:
    """Numbers of exactly this mean and standard deviation."""
    values = np.random.default_rng(0).normal(size=num)
    standard: NDArray[np.float64] = (values - values.mean()) / values.std(ddof=1)
    return mean + std * standard


def half_width(std: float, num: int, confidence: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, num - 1)) * std / math.sqrt(num)


def test_a_familys_intervals_are_students_at_the_levels_of_holm_and_bonferroni() -> None:
    large, open_, small = family_of(spread(1.0, 0.1), spread(0.2, 0.3), spread(0.01, 0.02))
    for effect, mean, std in ((large, 1.0, 0.1), (open_, 0.2, 0.3), (small, 0.01, 0.02)):
        estimate = effect.estimate
        assert (estimate.value, estimate.std, estimate.num_seeds) == pytest.approx((mean, std, 6))
        half = half_width(std, 6, 0.95)
        assert (estimate.low, estimate.high) == pytest.approx((mean - half, mean + half))
        half = half_width(std, 6, 1 - 0.05 / 3)
        assert (effect.strictest.low, effect.strictest.high) == pytest.approx((mean - half, mean + half))
        if effect is small:  # the first of the tests of the margin, which have one side
            half = half_width(std, 6, 1 - 2 * 0.05 / 3)
        assert (effect.adjusted.low, effect.adjusted.high) == pytest.approx((mean - half, mean + half))
    assert [effect.decision for effect in (large, open_, small)] == ["higher", "inconclusive", "negligible"]
    assert [effect.needed_seeds is None for effect in (large, open_, small)] == [True, False, True]
    assert (large.levels, large.within, large.place, large.with_diverged) == ({"x": "0"}, {"y": "off"}, "y off", None)
    assert (large.margin, large.is_fixed, large.outcome.name) == (MARGIN, True, "fid")


def test_what_is_small_needs_the_seeds_that_bring_it_within_the_margin() -> None:
    (effect,) = family_of(spread(0.02, 0.3))
    assert effect.decision == "inconclusive"
    expected = next(num for num in range(2, 10_000) if 0.02 + critical_t(num) * 0.3 / math.sqrt(num) <= MARGIN)
    assert effect.needed_seeds == expected


def test_without_a_margin_nothing_is_negligible() -> None:
    (small,) = family_of(spread(0.01, 0.02), margin=None)
    assert small.decision == "inconclusive"
    assert not small.is_beyond_margin
    assert small.needed_seeds is not None


def test_the_intervals_of_a_growing_family_are_those_of_all_seeds() -> None:
    values = spread(0.01, 0.2, 9)
    (effect, _) = family_of(values, spread(0.0, 1.0), intervals="sequential")
    assert not effect.is_fixed
    half = critical_t(9, 0.975) * 0.2 / 3
    assert (effect.strictest.low, effect.strictest.high) == pytest.approx((0.01 - half, 0.01 + half))


def test_what_was_imputed_is_estimated_beside() -> None:
    imputed = sides_of(spread(0.7, 0.2))
    comparison = Comparison({"x": "0"}, {}, sides_of(spread(0.5, 0.1)), imputed)
    (effect,) = estimate_family([comparison], OUTCOMES["fid"], MARGIN, "fixed")
    assert effect.with_diverged is not None
    half = half_width(0.2, 6, 0.95)
    assert (effect.with_diverged.low, effect.with_diverged.high) == pytest.approx((0.7 - half, 0.7 + half))
    assert effect.estimate.value == pytest.approx(0.5)


def test_a_single_seed_has_a_value_and_no_bounds() -> None:
    (effect,) = family_of(np.array([0.5]))
    assert effect.estimate.value == pytest.approx(0.5)
    bounds = (effect.adjusted.low, effect.adjusted.high, effect.strictest.low, effect.strictest.high)
    assert all(math.isnan(bound) for bound in bounds)
    assert (effect.decision, effect.needed_seeds) == ("inconclusive", None)


def test_nothing_to_compare_is_an_empty_family() -> None:
    assert family_of() == []


@pytest.mark.parametrize(
    ("mean", "low", "decision"),
    [
        (0.0, -0.099, "negligible"),
        (0.0, -0.101, "inconclusive"),
        (0.03, -0.039, "negligible"),
        (-0.03, -0.101, "inconclusive"),
    ],
)
def test_single_effect_is_negligible_where_its_own_interval_lies_within_the_margin(
    mean: float, low: float, decision: str
) -> None:
    (effect,) = family_of(spread(mean, (mean - low) / half_width(1.0, 6, 0.95)))
    assert effect.estimate.low == pytest.approx(low)
    assert effect.adjusted == effect.estimate.interval
    assert effect.decision == decision


def test_names_are_words() -> None:
    both = Comparison({"batch_norm": "on", "label_smoothing": "off"}, {"a_b": "c_d", "e": "f"}, np.zeros((2, 2)))
    (effect,) = estimate_family([both], OUTCOMES["fid"], MARGIN, "fixed")
    assert effect.name == "batch norm on × label smoothing off"
    assert effect.place == "a b c_d, e f"
    assert effect.is_interaction


# Seeds differ by far more than variants do: only a paired analysis sees the effects.
SEED_FACTOR = (1.0, 5.0, 2.0, 9.0, 3.0)


def effects_of(grid: str, log_fid: dict[str, float], noise: float = 0.0, outcome: str = "fid") -> dict[str, Effect]:
    planned = plan(load_grid(grid), budget="standard")

    def fid(variant: Variant, seed: int) -> float:
        active = [key for key in log_fid if all(f"{f}:{v}" in levels(variant) for f, v in parts(key))]
        return SEED_FACTOR[seed] * math.exp(
            sum(log_fid[key] for key in active) + noise * math.sin(7 * seed + len(active))
        )

    def levels(variant: Variant) -> set[str]:
        return {f"{factor}:{level}" for factor, level in variant.levels.items()}

    def parts(key: str) -> list[tuple[str, str]]:
        return [(part.split(":")[0], part.split(":")[1]) for part in key.split("*")]

    results = make_results(planned, fid, step_ms=lambda variant: 30.0 if "batch_norm:off" in levels(variant) else 20.0)
    return {effect.name: effect for effect in estimate_effects(Design.of(planned), results.runs, outcome)}


def test_main_effects_and_interaction_are_what_was_planted() -> None:
    planted = {"batch_norm:off": -0.7, "label_smoothing:on": 0.1, "batch_norm:off*label_smoothing:on": 0.4}
    effects = effects_of("bn_label_smooth", planted)
    # Averaged over the other factor's levels, a main effect contains half the interaction.
    assert effects["batch norm off"].estimate.value == pytest.approx(-0.7 + 0.2)
    assert effects["label smoothing on"].estimate.value == pytest.approx(0.1 + 0.2)
    interaction = effects["batch norm off × label smoothing on"]
    assert interaction.estimate.value == pytest.approx(0.4)
    assert interaction.is_interaction
    assert [effect.estimate.num_seeds for effect in effects.values()] == [5, 5, 5]


def test_step_times_are_compared_too() -> None:
    effects = effects_of("bn_label_smooth", {}, outcome="step_ms_median")
    assert effects["batch norm off"].estimate.as_percent_change().value == pytest.approx(50)
    assert effects["label smoothing on"].estimate.value == pytest.approx(0)


def test_an_effect_smaller_than_the_spread_of_seeds_is_found_by_pairing() -> None:
    effects = effects_of("bn_label_smooth", {"batch_norm:off": -0.2}, noise=0.01)
    assert effects["batch norm off"].estimate.high < 0
    assert effects["batch norm off"].estimate.value == pytest.approx(-0.2, abs=0.03)


def test_one_at_a_time_compares_each_level_with_the_baseline() -> None:
    effects = effects_of("essentials", {"beta1:0.9": 0.5, "dropout:elements-50": -0.3})
    assert effects["beta1 0.9"].estimate.value == pytest.approx(0.5)
    assert effects["beta1 0.0"].estimate.value == pytest.approx(0)
    assert effects["dropout elements-50"].estimate.value == pytest.approx(-0.3)
    assert len(effects) == 10
    assert not any(effect.is_interaction for effect in effects.values())


def test_three_levels_give_two_effects() -> None:
    effects = effects_of("beta1", {"beta1:0.0": -0.1, "beta1:0.9": 0.6})
    assert effects["beta1 0.0"].estimate.value == pytest.approx(-0.1)
    assert effects["beta1 0.9"].estimate.value == pytest.approx(0.6)


def test_an_effect_carries_its_tests() -> None:
    effects = effects_of("beta1", {"beta1:0.9": 0.6, "beta1:0.0": 0.001}, noise=0.05)
    strong, none = effects["beta1 0.9"], effects["beta1 0.0"]
    assert strong.test.is_rejected
    assert strong.adjusted.low > 0
    assert strong.needed_seeds is None  # it is settled
    assert strong.test.p == pytest.approx(min(1, 2 * strong.estimate.p))
    assert strong.sign_flip.p == strong.sign_flip.smallest_p == 2 / 2**5
    assert strong.bootstrap is None
    assert not none.test.is_rejected
    assert none.adjusted.low <= 0 <= none.adjusted.high
    assert none.needed_seeds is None or none.needed_seeds > 5
    assert strong.with_diverged is None


def test_diverged_runs_are_as_bad_as_the_worst_or_worse() -> None:
    planned = plan(load_grid("beta1"))

    def fid(variant: Variant, seed: int) -> float | None:
        if variant.levels["beta1"] == "0.9":
            return None if seed < 2 else 20.0
        return 40.0 if seed == 4 else 20.0

    runs = make_results(planned, fid).runs
    effects = {effect.name: effect for effect in estimate_effects(Design.of(planned), runs)}
    typical, counted = effects["beta1 0.9"].estimate, effects["beta1 0.9"].with_diverged
    assert effects["beta1 0.9"].basis == "median"
    # Two seeds are at least twice as bad, two are equal, one is half as bad.
    assert (typical.num_seeds, typical.value) == (5, 0)
    assert counted is not None
    # Two seeds at the worst FID there is, 40, against 20; two equal ones; one of half.
    assert counted.num_seeds == 5
    assert counted.value == pytest.approx((2 - 1) * math.log(2) / 5)
    other = effects["beta1 0.0"]
    assert other.estimate.num_seeds == 5
    assert other.estimate.value == pytest.approx(0)


def test_outcomes_on_the_difference_scale_are_subtracted() -> None:
    effects = effects_of("beta1", {"beta1:0.9": math.log(2)}, outcome="kid")
    baseline = [factor / 30 for factor in SEED_FACTOR]  # a synthetic KID is FID / 30
    assert effects["beta1 0.9"].estimate.value == pytest.approx(sum(baseline) / 5)


def test_an_outcome_that_no_run_has_gives_effects_without_values() -> None:
    effects = effects_of("beta1", {}, outcome="nearest_ratio")
    assert effects["beta1 0.9"].estimate.value == pytest.approx(0)
    planned = plan(load_grid("beta1"))
    runs = make_results(planned, lambda *_: 20.0).runs.assign(recall=None)
    assert all(effect.estimate.num_seeds == 0 for effect in estimate_effects(Design.of(planned), runs, "recall"))


def test_simple_effects_stand_at_each_level_of_the_other_factors() -> None:
    planned = plan(load_grid("bn_label_smooth"))
    gains = {("off", "off"): 0.0, ("on", "off"): -0.7, ("off", "on"): 0.2, ("on", "on"): -0.6}

    def fid(variant: Variant, seed: int) -> float:
        at = variant.levels["batch_norm"], variant.levels["label_smoothing"]
        spread = 0.3 if at == ("off", "on") else 0.001
        return SEED_FACTOR[seed] * math.exp(gains[at] + spread * math.sin(7 * seed + len(variant.label)))

    runs = make_results(planned, fid).runs
    effects = estimate_simple_effects(Design.of(planned), runs)
    found = {(effect.name, effect.place): effect for effect in effects}
    assert len(found) == 4
    steady, uneven = (found["label smoothing on", f"batch norm {level}"] for level in ("on", "off"))
    assert steady.estimate.value == pytest.approx(0.1, abs=0.002)
    assert uneven.estimate.value == pytest.approx(0.2, abs=0.2)
    # Neither borrows the other's spread, and the four are one family.
    assert uneven.estimate.std > 100 * steady.estimate.std
    assert steady.test.confidence >= 0.95
    assert found["batch norm off", "label smoothing off"].estimate.value == pytest.approx(0.7, abs=0.002)
    assert estimate_simple_effects(Design.of(plan(load_grid("essentials"))), runs) == []


def test_interval_and_margin_give_the_decision() -> None:
    planned = plan(load_grid("dropout"))
    gains = {"none": 0.0, "channels-25": 0.5, "elements-30": 0.05, "elements-50": 0.0}

    def fid(variant: Variant, seed: int) -> float:
        level = variant.levels["dropout"]
        return SEED_FACTOR[seed] * math.exp(gains[level] + 0.002 * math.sin(7 * seed + 3 * list(gains).index(level)))

    runs = make_results(planned, fid).runs
    large, small, none = estimate_effects(Design.of(planned), runs)
    assert (large.decision, large.is_too_small, large.is_beyond_margin) == ("higher", False, True)
    assert (small.decision, small.is_too_small, small.is_beyond_margin) == ("higher", True, False)
    assert (none.decision, none.is_too_small, none.needed_seeds) == ("negligible", False, None)
    strict = planned.model_copy(update={"grid": planned.grid.model_copy(update={"margin": 0.001})})
    assert estimate_effects(Design.of(strict), runs)[-1].decision == "inconclusive"


def test_sequential_seeds_get_sequential_intervals() -> None:
    fixed = plan(load_grid("beta1"))
    runs = make_results(
        fixed, lambda variant, seed: 20 + seed + math.sin(7 * float(variant.levels["beta1"]) * (seed + 1))
    ).runs
    sequential = estimate_effects(Design.of(fixed.model_copy(update={"intervals": "sequential"})), runs)
    for wide, narrow in zip(sequential, estimate_effects(Design.of(fixed), runs), strict=True):
        assert wide.estimate.value == narrow.estimate.value
        assert wide.estimate.p > narrow.estimate.p
        assert wide.adjusted.low < narrow.adjusted.low


def test_a_change_of_mode_is_neither_negligible_nor_too_small() -> None:
    planned = plan(load_grid("architecture"), seeds=14).model_copy(update={"intervals": "sequential"})

    def fid(variant: Variant, seed: int) -> float:
        is_changed = variant.levels["architecture"] == "dcgan" and seed >= 7
        return 20 * math.exp(0.9 * is_changed + 0.01 * math.sin(7 * seed + len(variant.label)))

    runs = make_results(planned, fid).runs
    for num_seeds in range(7, 15):
        (effect,) = estimate_effects(Design.of(planned.model_copy(update={"seeds": planned.seeds[:num_seeds]})), runs)
        assert (effect.decision == "negligible") is (num_seeds == 7)
        assert not effect.is_too_small
        assert effect.estimate.low < effect.estimate.value < effect.estimate.high


def drifting(*means: float) -> NDArray[np.float64]:
    """Eight seeds around each mean in turn."""
    return np.concatenate([mean + 0.02 * np.sin(np.arange(8) + i) for i, mean in enumerate(means)])


def test_effect_found_at_an_earlier_look_says_at_how_many_seeds() -> None:
    """Its interval touches zero again, and it is not called inconclusive beside that it raises FID."""
    (now,) = family_of(drifting(0.3), intervals="sequential")
    assert (now.decision, now.earlier_seeds) == ("higher", None)
    (later,) = family_of(drifting(0.3, -0.2), intervals="sequential")
    assert later.adjusted.low < 0 < later.estimate.value
    assert later.decision == "higher"
    assert later.earlier_seeds is not None
    (at,) = family_of(drifting(0.3, -0.2)[: later.earlier_seeds], intervals="sequential")
    (before,) = family_of(drifting(0.3, -0.2)[: later.earlier_seeds - 1], intervals="sequential")
    assert (at.decision, at.earlier_seeds, before.decision) == ("higher", None, "inconclusive")
    sentence = decision_sentence(later, None)
    assert f"found at {later.earlier_seeds} seeds" in sentence
    assert "raises FID" in sentence
    (fixed,) = family_of(drifting(0.3, -0.2))
    assert fixed.earlier_seeds is None
    (turned,) = family_of(drifting(0.3, -0.9), intervals="sequential")
    assert (turned.decision, turned.earlier_seeds) == ("inconclusive", None)


def test_effect_negligible_at_an_earlier_look_says_at_how_many_seeds() -> None:
    values = np.append(drifting(0.0), 0.5)
    (later,) = family_of(values, intervals="sequential")
    assert later.adjusted.high > MARGIN > later.estimate.value
    assert later.decision == "negligible"
    (at,) = family_of(values[: later.earlier_seeds], intervals="sequential")
    assert (at.decision, at.earlier_seeds) == ("negligible", None)
    assert adjusted_text(later).endswith(f", negligible at {later.earlier_seeds} seeds")


def test_estimate_is_inflated_where_seeds_were_added_until_a_small_effect_was_found() -> None:
    small, large = spread(0.5, 0.3, 12), spread(0.9, 0.3, 12)
    assert family_of(small, intervals="sequential")[0].is_inflated
    assert not family_of(large, intervals="sequential")[0].is_inflated
    assert not family_of(small)[0].is_inflated
    assert not family_of(spread(0.02, 0.3, 12), intervals="sequential")[0].is_inflated


def test_likely_seeds_lie_around_the_needed_ones() -> None:
    (effect,) = family_of(spread(0.2, 0.3, 8), intervals="sequential")
    assert effect.likely_seeds is not None
    low, high = effect.likely_seeds
    assert effect.needed_seeds is not None
    assert 8 <= low <= effect.needed_seeds
    assert high is None or high >= effect.needed_seeds
    assert family_of(spread(0.9, 0.3, 12), intervals="sequential")[0].likely_seeds is None


def test_margin_of_differences_is_the_outcomes_own_and_that_of_kid_a_share_of_the_baseline() -> None:
    planned = plan(load_grid("beta1"))
    runs = make_results(planned, lambda variant, seed: 20.0 + seed + math.sin(len(variant.label) * seed)).runs
    runs["kid"] = np.where(runs["variant"] == planned.baseline.label, 0.7, 0.71) + 0.001 * runs["seed"] % 2
    runs["recall"] = 0.6
    effects = estimate_effects(Design.of(planned), runs, "kid")
    expected = 0.1 * runs.loc[runs["variant"] == planned.baseline.label, "kid"].mean()
    assert [effect.margin for effect in effects] == pytest.approx([expected] * 2)
    assert {effect.margin for effect in estimate_effects(Design.of(planned), runs, "recall")} == {0.05}
    assert estimate_effects(Design.of(planned), runs.assign(kid=0.0), "kid")[0].margin is None


def test_sequential_design_has_no_sign_flip_test() -> None:
    planned = plan(load_grid("beta1"))
    runs = make_results(planned, lambda variant, seed: 20.0 + seed + math.sin(len(variant.label) * seed)).runs
    assert estimate_effects(Design.of(planned), runs)[0].sign_flip.p > 0
    (sequential, _) = estimate_effects(Design.of(planned.model_copy(update={"intervals": "sequential"})), runs)
    assert math.isnan(sequential.sign_flip.p)
    assert sequential.bootstrap is None


def test_tests_of_the_margin_are_a_family_of_their_own() -> None:
    """Large effects beside it loosen Holm's level for zero, not the one at which "negligible" is said of a family."""
    half = half_width(1.0, 6, 1 - 2 * 0.05 / 3)
    for room, decision in ((1.01, "negligible"), (0.99, "inconclusive")):
        large, other, none = family_of(spread(0.9, 0.1), spread(0.6, 0.1), spread(0.0, MARGIN / half / room))
        assert large.test.is_rejected
        assert other.test.is_rejected
        assert none.test.confidence == pytest.approx(0.95)
        # At Holm's level for zero, which is its own 95 % interval here, it would be called negligible.
        assert max(abs(none.estimate.low), abs(none.estimate.high)) < MARGIN
        assert none.decision == decision
        assert none.adjusted.lies_within(MARGIN) is (decision == "negligible")


def test_second_negligible_effect_is_tested_at_the_level_of_one_fewer() -> None:
    first, second, _ = family_of(spread(0.0, 0.001), spread(0.001, 0.01), spread(0.5, 0.5))
    assert (first.decision, second.decision) == ("negligible", "negligible")
    assert first.confidence == pytest.approx(1 - 2 * 0.05 / 3)
    assert second.confidence == pytest.approx(0.95)
    assert second.adjusted.low == pytest.approx(second.estimate.low)


def test_an_effect_that_is_found_has_the_interval_of_holms_level() -> None:
    """Three effects: the clearest is judged at 1 - 0.05/3, the next at 1 - 0.05/2."""
    planted = {"batch_norm:on": -0.7, "label_smoothing:on": 0.3}
    effects = effects_of("bn_label_smooth", planted, noise=0.03)
    found = sorted((effect for effect in effects.values() if effect.is_found), key=lambda effect: effect.estimate.p)
    assert len(found) == 2
    for rank, effect in enumerate(found):
        differences = effect.sides[:, 0] - effect.sides[:, 1]
        assert effect.test.confidence == pytest.approx(1 - 0.05 / (3 - rank))
        wider = mean_estimate(differences, 1 - 0.05 / (3 - rank))
        assert (effect.adjusted.low, effect.adjusted.high) == pytest.approx((wider.low, wider.high))
        assert effect.adjusted.low < effect.estimate.low
        assert effect.adjusted.high > effect.estimate.high


def test_seeds_are_counted_at_the_strictest_level_of_the_family() -> None:
    effects = effects_of("bn_label_smooth", {"label_smoothing:on": 0.12}, noise=0.2)
    needing = [effect for effect in effects.values() if effect.needed_seeds is not None]
    assert needing
    for effect in needing:
        assert effect.needed_seeds == seeds_to_settle(effect.estimate, effect.margin, 1 - 0.05 / 3)
    assert any(e.needed_seeds != seeds_to_settle(e.estimate, e.margin, 0.95) for e in needing)


def test_a_diverged_run_counts_as_the_lowest_where_higher_is_better() -> None:
    planned = plan(load_grid("dropout"), seeds=3)
    runs = make_results(
        planned, lambda variant, seed: None if (variant.label, seed) == ("dropout elements-50", 0) else 20.0
    ).runs
    recall = np.where(runs["dropout"] == "none", 0.9, 0.5 + 0.01 * runs["seed"])
    runs["recall"] = np.where(runs["status"] == "completed", recall, np.nan)
    effects = {effect.name: effect for effect in estimate_effects(Design.of(planned), runs, "recall")}
    with_diverged = effects["dropout elements-50"].with_diverged
    assert with_diverged is not None
    assert with_diverged.value == pytest.approx(np.mean([0.5 - 0.9, 0.51 - 0.9, 0.52 - 0.9]))


def test_a_diverged_run_has_no_place_among_outcomes_of_which_neither_direction_is_better() -> None:
    planned = plan(load_grid("beta1"), seeds=3)
    runs = make_results(
        planned, lambda variant, seed: None if (variant.levels["beta1"], seed) == ("0.9", 0) else 20.0
    ).runs
    assert [effect.with_diverged is None for effect in estimate_effects(Design.of(planned), runs, "fid")] == [
        False,
        False,
    ]
    assert [effect.with_diverged is None for effect in estimate_effects(Design.of(planned), runs, "grad_norm_g")] == [
        True,
        True,
    ]
    none_left = runs.assign(fid=np.nan)
    assert [effect.with_diverged is None for effect in estimate_effects(Design.of(planned), none_left, "fid")] == [
        True,
        True,
    ]


def test_run_that_diverged_late_keeps_its_earlier_values() -> None:
    """It is imputed where it is missing, and only there."""
    planned = plan(load_grid("beta1"), seeds=2)
    runs = make_results(planned, lambda variant, seed: 20.0 * 2 ** (seed + (variant.levels["beta1"] == "0.9"))).runs
    runs.loc[(runs["beta1"] == "0.9") & (runs["seed"] == 0), "status"] = "diverged"
    high = next(effect for effect in estimate_effects(Design.of(planned), runs) if effect.levels == {"beta1": "0.9"})
    assert high.with_diverged is not None
    assert high.with_diverged.value == pytest.approx(high.estimate.value) == pytest.approx(math.log(2))


def test_runs_of_seeds_and_variants_that_are_not_the_plans_are_left_out() -> None:
    planned = plan(load_grid("beta1"), seeds=3)
    runs = make_results(planned, lambda variant, seed: 20.0 + seed + len(variant.label) * math.sin(seed)).runs
    strangers = runs.assign(variant="a stranger", fid=1.0)
    fewer = planned.model_copy(update={"seeds": (1, 2)})
    expected = estimate_effects(Design.of(fewer), runs.loc[runs["seed"] > 0])
    found = estimate_effects(Design.of(fewer), pd.concat([strangers, runs.iloc[::-1]]))
    assert [effect.estimate for effect in found] == [effect.estimate for effect in expected]
    assert {effect.estimate.num_seeds for effect in found} == {2}


def test_notebook_shows_an_effect_in_a_line() -> None:
    results = make_results(plan(load_grid("beta1"), seeds=3), lambda variant, _: 10.0 * (1 + ("0.9" in variant.label)))
    effect = results.verdicts.effects("fid")[1]
    assert effect._repr_html_().startswith("<b>beta1 0.9</b>: FID +100.0 % [")
    assert effect._repr_html_().endswith(", 3 seeds")
