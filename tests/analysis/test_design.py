from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from gan_ablate.analysis.design import list_contrasts, list_simple_contrasts, pairing_gain
from gan_ablate.design.grid import list_grids, load_grid
from gan_ablate.design.plan import Plan, plan

RNG = np.random.default_rng(0)


def planted(planned: Plan) -> tuple[dict[tuple[str, str], float], dict[frozenset[tuple[str, str]], float], list[float]]:
    """Draw what each level adds and each two of them beside, nothing at baselines, and sum them for every variant."""
    levels = [
        (name, level)
        for name, factor in planned.grid.factors.items()
        for level in factor.levels
        if level != factor.baseline
    ]
    alone = {level: float(RNG.normal()) for level in levels}
    together = {frozenset((a, b)): float(RNG.normal()) for a in levels for b in levels if a[0] < b[0]}
    values = []
    for variant in planned.variants:
        at = set(variant.levels.items())
        values.append(
            7.0
            + sum(size for level, size in alone.items() if level in at)
            + sum(size for pair, size in together.items() if pair <= at)
        )
    return alone, together, values


@pytest.mark.parametrize("grid", list_grids())
def test_both_sides_of_a_contrast_have_equal_weight(grid: str) -> None:
    planned = plan(load_grid(grid), seeds=1)
    for contrast in (*list_contrasts(planned), *list_simple_contrasts(planned)):
        of_one_side = 2 ** (len(contrast.levels) - 1)
        assert contrast.weights[contrast.weights > 0].sum() == pytest.approx(of_one_side)
        assert contrast.weights.sum() == pytest.approx(0)


def test_one_at_a_time_shows_what_each_level_adds() -> None:
    planned = plan(load_grid("essentials"), seeds=1)
    alone, _, values = planted(planned)
    found = {next(iter(c.levels.items())): float(c.weights @ values) for c in list_contrasts(planned)}
    assert found == pytest.approx(alone)
    assert list_simple_contrasts(planned) == []


def test_a_factorial_shows_levels_on_average_and_what_two_do_together() -> None:
    planned = plan(load_grid("bn_label_smooth"), seeds=1)
    alone, together, values = planted(planned)
    (pair,) = together
    expected = {frozenset([level]): size + together[pair] / 2 for level, size in alone.items()}
    found = {frozenset(c.levels.items()): float(c.weights @ values) for c in list_contrasts(planned)}
    assert found == pytest.approx({**expected, pair: together[pair]})


def test_main_effects_come_first_then_each_pair_of_levels_of_two_factors() -> None:
    planned = plan(load_grid("activation"), seeds=1)
    singles = [(name, level) for name, f in planned.factors.items() for level in f.levels if level != f.baseline]
    pairs = [{a, b} for a, b in itertools.combinations(singles, 2) if a[0] != b[0]]
    assert [set(c.levels.items()) for c in list_contrasts(planned)] == [*({single} for single in singles), *pairs]


def test_a_simple_effect_is_a_levels_own_and_what_it_does_where_the_others_stand() -> None:
    planned = plan(load_grid("bn_label_smooth"), seeds=1)
    alone, together, values = planted(planned)
    contrasts = list_simple_contrasts(planned)
    assert len(contrasts) == 4
    for contrast in contrasts:
        ((level),) = contrast.levels.items()
        ((place),) = contrast.within.items()
        expected = alone[level] + together.get(frozenset((level, place)), 0.0)
        assert contrast.weights @ values == pytest.approx(expected)


def test_a_single_factor_has_no_places_to_stand_at() -> None:
    assert list_simple_contrasts(plan(load_grid("beta1"), seeds=1)) == []


def test_the_gain_is_the_ratio_of_the_two_variances() -> None:
    values = RNG.normal(size=(9, 1)) + 0.5 * RNG.normal(size=(9, 2))
    expected = values.var(axis=0, ddof=1).sum() / (values[:, 0] - values[:, 1]).var(ddof=1)
    assert pairing_gain(values).value == pytest.approx(expected)


@pytest.mark.parametrize(("spreads", "correlation"), [((1.0, 1.0), 0.0), ((1.0, 4.0), 0.5), ((1.0, 1.0), 0.8)])
def test_interval_has_its_nominal_coverage(spreads: tuple[float, float], correlation: float) -> None:
    a, b = spreads
    shared = correlation * a * b
    truth = (a**2 + b**2) / (a**2 + b**2 - 2 * shared)
    covered = []
    for _ in range(1_500):
        values = RNG.multivariate_normal([0, 0], [[a**2, shared], [shared, b**2]], 5)
        gain = pairing_gain(values)
        covered.append(gain.low <= truth <= gain.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_too_few_seeds_or_no_spread_tell_nothing() -> None:
    assert math.isfinite(pairing_gain(RNG.normal(size=(4, 2))).high)
    unpaired = np.array([[1.0, -1.0], [2.0, -2.0], [4.0, -4.0], [9.0, -9.0]])  # their sum has no spread
    for values in (RNG.normal(size=(3, 2)), unpaired):
        gain = pairing_gain(values)
        assert all(math.isnan(number) for number in (gain.value, gain.low, gain.high))
        assert gain.num_seeds == len(values)
    with_gaps = np.where(np.arange(12).reshape(6, 2) == 3, np.nan, RNG.normal(size=(6, 2)))
    assert pairing_gain(with_gaps).num_seeds == 5
    alike = RNG.normal(size=(6, 1)) + np.zeros((1, 2))
    assert math.isnan(pairing_gain(alike).value)


def test_the_gain_does_not_depend_on_the_unit() -> None:
    values = RNG.normal(size=(6, 2))
    gain = pairing_gain(values)
    for unit in (1e-12, 1e12):
        scaled = pairing_gain(unit * values)
        assert (scaled.low, scaled.value, scaled.high) == pytest.approx((gain.low, gain.value, gain.high))
