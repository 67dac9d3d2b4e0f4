from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gan_ablate.analysis.effects import Comparison, Effect, estimate_family
from gan_ablate.analysis.estimates import Estimate, Interval
from gan_ablate.analysis.outcomes import OUTCOMES
from gan_ablate.analysis.sequential import critical_t
from gan_ablate.design.planning import Intervals

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
        assert (effect.adjusted.low, effect.adjusted.high) == pytest.approx((mean - half, mean + half))
    assert [effect.answer for effect in (large, open_, small)] == ["higher", "open", "negligible"]
    assert [effect.needed_seeds is None for effect in (large, open_, small)] == [True, False, True]
    assert (large.levels, large.within, large.place, large.with_diverged) == ({"x": "0"}, {"y": "off"}, "y off", None)
    assert (large.margin, large.is_fixed, large.outcome.name) == (MARGIN, True, "fid")


def test_what_is_small_needs_the_seeds_that_bring_it_within_the_margin() -> None:
    (effect,) = family_of(spread(0.02, 0.3))
    assert effect.answer == "open"
    expected = next(num for num in range(2, 10_000) if 0.02 + critical_t(num) * 0.3 / math.sqrt(num) <= MARGIN)
    assert effect.needed_seeds == expected


def test_without_a_margin_nothing_is_negligible() -> None:
    (small,) = family_of(spread(0.01, 0.02), margin=None)
    assert small.answer == "open"
    assert not small.is_beyond_margin
    assert small.needed_seeds is not None


def test_the_intervals_of_a_growing_family_are_those_of_every_look() -> None:
    values = spread(0.01, 0.2, 9)
    (effect, _) = family_of(values, spread(0.0, 1.0), intervals="sequential")
    assert not effect.is_fixed
    bounds = []
    for num in range(2, 10):
        seen = values[:num]
        half = critical_t(num, 0.975) * seen.std(ddof=1) / math.sqrt(num)
        bounds.append((seen.mean() - half, seen.mean() + half))
    assert effect.strictest.low == pytest.approx(max(low for low, _ in bounds))
    assert effect.strictest.high == pytest.approx(min(high for _, high in bounds))


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
    assert (effect.answer, effect.needed_seeds) == ("open", None)


def test_nothing_to_compare_is_an_empty_family() -> None:
    assert family_of() == []


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.09, 0.09, "negligible"), (-0.1, 0.05, "open"), (-0.05, 0.1, "open"), (-0.2, 0.05, "open")],
)
def test_an_interval_that_touches_the_margin_is_not_within(low: float, high: float, answer: str) -> None:
    (effect,) = family_of(spread(0.0, 1.0))
    estimate = Estimate(0.0, low, high, 6)
    assert dataclasses.replace(effect, estimate=estimate, adjusted=Interval(low, high)).answer == answer


def test_names_are_words() -> None:
    both = Comparison({"batch_norm": "on", "label_smoothing": "off"}, {"a_b": "c_d", "e": "f"}, np.zeros((2, 2)))
    (effect,) = estimate_family([both], OUTCOMES["fid"], MARGIN, "fixed")
    assert effect.name == "batch norm on × label smoothing off"
    assert effect.place == "a b c_d, e f"
    assert effect.is_interaction
