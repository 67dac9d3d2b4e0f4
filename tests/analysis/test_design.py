from __future__ import annotations

import itertools

import numpy as np
import pytest

from gan_ablate.analysis.design import Design, iterate_contrasts, iterate_simple_contrasts
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
    for contrast in (*iterate_contrasts(Design.of(planned)), *iterate_simple_contrasts(Design.of(planned))):
        of_one_side = 2 ** (len(contrast.levels) - 1)
        assert contrast.weights[contrast.weights > 0].sum() == pytest.approx(of_one_side)
        assert contrast.weights.sum() == pytest.approx(0)


def test_one_at_a_time_shows_what_each_level_adds() -> None:
    planned = plan(load_grid("essentials"), seeds=1)
    alone, _, values = planted(planned)
    found = {
        next(iter(c.levels.items())): float(c.weights @ values) for c in list(iterate_contrasts(Design.of(planned)))
    }
    assert found == pytest.approx(alone)
    assert list(iterate_simple_contrasts(Design.of(planned))) == []


def test_a_factorial_shows_levels_on_average_and_what_two_do_together() -> None:
    planned = plan(load_grid("bn_label_smooth"), seeds=1)
    alone, together, values = planted(planned)
    (pair,) = together
    expected = {frozenset([level]): size + together[pair] / 2 for level, size in alone.items()}
    found = {
        frozenset(c.levels.items()): float(c.weights @ values) for c in list(iterate_contrasts(Design.of(planned)))
    }
    assert found == pytest.approx({**expected, pair: together[pair]})


def test_main_effects_come_first_then_each_pair_of_levels_of_two_factors() -> None:
    planned = plan(load_grid("activation"), seeds=1)
    singles = [(name, level) for name, f in planned.grid.factors.items() for level in f.levels if level != f.baseline]
    pairs = [{a, b} for a, b in itertools.combinations(singles, 2) if a[0] != b[0]]
    assert [set(c.levels.items()) for c in list(iterate_contrasts(Design.of(planned)))] == [
        *({single} for single in singles),
        *pairs,
    ]


def test_a_simple_effect_is_a_levels_own_and_what_it_does_where_the_others_stand() -> None:
    planned = plan(load_grid("bn_label_smooth"), seeds=1)
    alone, together, values = planted(planned)
    contrasts = list(iterate_simple_contrasts(Design.of(planned)))
    assert len(contrasts) == 4
    for contrast in contrasts:
        ((level),) = contrast.levels.items()
        ((place),) = contrast.within.items()
        expected = alone[level] + together.get(frozenset((level, place)), 0.0)
        assert contrast.weights @ values == pytest.approx(expected)


def test_a_single_factor_has_no_places_to_stand_at() -> None:
    assert list(iterate_simple_contrasts(Design.of(plan(load_grid("beta1"), seeds=1)))) == []
