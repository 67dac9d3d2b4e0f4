from __future__ import annotations

import math

import numpy as np
import pytest

from gan_ablate.analysis.design import pairing_gain

RNG = np.random.default_rng(0)


def test_the_gain_is_the_ratio_of_the_two_variances() -> None:
    values = RNG.normal(size=(9, 1)) + 0.5 * RNG.normal(size=(9, 2))
    expected = values.var(axis=0, ddof=1).sum() / (values[:, 0] - values[:, 1]).var(ddof=1)
    assert pairing_gain(values).value == pytest.approx(expected)


@pytest.mark.parametrize(("spreads", "correlation"), [((1.0, 1.0), 0.0), ((1.0, 4.0), 0.5), ((1.0, 1.0), 0.8)])
def test_the_interval_covers_as_often_as_it_says(spreads: tuple[float, float], correlation: float) -> None:
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
