from __future__ import annotations

import math

import numpy as np
import pytest

from gan_ablate.analysis.pairing import pairing_gain

RNG = np.random.default_rng(0)
DIFFERENCE = np.array([1.0, -1.0])


def test_the_gain_is_the_ratio_of_the_two_variances() -> None:
    values = RNG.normal(size=(9, 1)) + 0.5 * RNG.normal(size=(9, 2))
    expected = values.var(axis=0, ddof=1).sum() / (values[:, 0] - values[:, 1]).var(ddof=1)
    assert pairing_gain(values, DIFFERENCE).value == pytest.approx(expected)


@pytest.mark.parametrize(("spreads", "correlation"), [((1.0, 1.0), 0.0), ((1.0, 4.0), 0.5), ((1.0, 1.0), 0.8)])
def test_the_interval_covers_as_often_as_it_says(spreads: tuple[float, float], correlation: float) -> None:
    a, b = spreads
    shared = correlation * a * b
    truth = (a**2 + b**2) / (a**2 + b**2 - 2 * shared)
    covered = []
    for _ in range(1_500):
        values = RNG.multivariate_normal([0, 0], [[a**2, shared], [shared, b**2]], 5)
        gain = pairing_gain(values, DIFFERENCE)
        covered.append(gain.low <= truth <= gain.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_averages_of_several_variants_are_compared_as_two_sides() -> None:
    values = RNG.normal(size=(7, 4))
    weights = np.array([0.5, 0.5, -0.5, -0.5])
    sides = np.stack([values[:, :2].mean(axis=1), values[:, 2:].mean(axis=1)], axis=1)
    assert pairing_gain(values, weights).value == pytest.approx(pairing_gain(sides, DIFFERENCE).value)


def test_too_few_seeds_or_no_spread_tell_nothing() -> None:
    assert math.isnan(pairing_gain(RNG.normal(size=(3, 2)), DIFFERENCE).value)
    with_gaps = np.where(np.arange(12).reshape(6, 2) == 3, np.nan, RNG.normal(size=(6, 2)))
    assert pairing_gain(with_gaps, DIFFERENCE).num_seeds == 5
    alike = RNG.normal(size=(6, 1)) + np.zeros((1, 2))
    assert math.isnan(pairing_gain(alike, DIFFERENCE).value)
