from __future__ import annotations

import math

import numpy as np
import pytest

from gan_ablate.analysis.outcomes import OUTCOMES, first_reached, oscillation, summarise_history, value_at
from gan_ablate.design.grid import RESULT_COLUMNS

STEPS = [100, 200, 300, 400, 500, 600, 700, 800]


def test_every_outcome_is_a_column() -> None:
    assert set(OUTCOMES) <= set(RESULT_COLUMNS)


def test_a_steady_fall_does_not_oscillate() -> None:
    assert oscillation(STEPS, [100 * 0.9**i for i in range(8)]) == pytest.approx(0, abs=1e-9)


def test_oscillation_is_what_second_differences_leave() -> None:
    swings = [0.0, 0.0, 0.0, 0.1, -0.1, 0.1, -0.1, 0.1]  # the last five count: from half of 800 steps on
    fid = [50 * math.exp(swing) for swing in swings]
    # Second differences of ±0.1 in turn are ±0.4.
    assert oscillation(STEPS, fid) == pytest.approx(0.4 / math.sqrt(6))


def test_oscillation_is_the_size_of_independent_errors() -> None:
    rng = np.random.default_rng(0)
    steps = list(range(1, 4_001))
    fid = [100 * math.exp(0.07 * error - step / 2_000) for step, error in enumerate(rng.standard_normal(4_000))]
    assert oscillation(steps, fid) == pytest.approx(0.07, rel=0.05)


def test_a_smooth_course_hardly_oscillates() -> None:
    """Convergence is no oscillation: this one falls by a third over its last half, and bends."""
    fid = [18 + 80 * math.exp(-step / 300) for step in range(150, 1_501, 150)]
    found = oscillation(list(range(150, 1_501, 150)), fid)
    assert found is not None
    assert found < 0.015


def test_what_happens_early_is_no_oscillation() -> None:
    wild_start = [900, 20, 900, 50, 45, 40.5, 36.45, 32.805]
    assert oscillation(STEPS, wild_start) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("num", [0, 1, 3])
def test_too_few_points_do_not_tell_an_oscillation(num: int) -> None:
    assert oscillation(STEPS[:num], [10.0] * num) is None


def test_a_target_is_reached_between_two_points_on_the_log_scale() -> None:
    # From 100 to 25 in 100 steps, log FID falls evenly: 50 is reached half-way.
    assert first_reached(50, [100, 200, 300], [100, 25, 10]) == pytest.approx(150)
    assert first_reached(100, [100, 200], [100, 25]) == 100
    assert first_reached(5, [100, 200], [100, 25]) is None


def test_a_target_counts_when_it_is_reached_first() -> None:
    assert first_reached(50, [100, 200, 300], [40, 100, 40]) == 100


def test_histories_are_reduced_over_the_last_half_and_gradients_over_all() -> None:
    history = {
        "step": [10.0, 20.0, 30.0, 40.0],
        "grad_norm_g": [1.0, 10.0, 100.0, 1000.0],
        "grad_norm_d": [2.0, 2.0, 2.0, 0.0],
        "accuracy_d": [0.0, 0.6, 0.8, 1.0],
        "d_real": [0.0, 0.9, 0.9, 0.9],
        "d_fake_before": [0.0, 0.1, 0.2, 0.3],
    }
    summary = summarise_history(history)
    assert summary["grad_norm_g"] == pytest.approx(10**1.5)
    assert summary["grad_norm_d"] is not None
    assert 0 < summary["grad_norm_d"] < 2  # a vanished gradient counts, and does not break the logarithm
    assert summary["accuracy_d"] == pytest.approx(0.8)
    assert summary["confidence_d"] == pytest.approx((0.9 + 0.85 + 0.8) / 3)


def test_a_run_that_never_got_to_a_measurement_has_no_summary() -> None:
    assert set(summarise_history({}).values()) == {None}


def test_four_late_points_are_enough_to_tell_an_oscillation() -> None:
    # Second differences of log FID are -0.2 and 0.2; the point at half-way is late, the one before is not.
    fid = [1e6, *(10 * math.exp(swing) for swing in (0.0, 0.1, 0.0, 0.1))]
    assert oscillation([399, 400, 500, 600, 800], fid) == pytest.approx(0.2 / math.sqrt(6))


def test_a_target_that_a_point_just_meets_is_reached_there() -> None:
    assert first_reached(25, [100, 300, 400], [100, 25, 25]) == pytest.approx(300)
    assert first_reached(25, [100, 300], [100, 25]) == pytest.approx(300)
    assert first_reached(20, [100, 300, 500], [80, 40, 10]) == pytest.approx(400)


def test_fid_at_a_place_lies_between_its_neighbours_on_the_log_scale() -> None:
    places, fid = [100.0, 200.0, 400.0], [100.0, 25.0, 16.0]
    assert [value_at(place, places, fid) for place in (100, 150, 300, 400, 999)] == pytest.approx([100, 50, 20, 16, 16])
    assert value_at(99.9, places, fid) is None
    assert value_at(1.0, [], []) is None


def test_a_historys_end_is_its_last_tenth_and_its_last_half_begins_half_way() -> None:
    steps = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 85.0, 90.0, 100.0]
    ramp = [0.1 * i for i in range(1, 11)]
    flat = [1.0] * 10
    summary = summarise_history(
        {
            "step": steps,
            "grad_norm_g": [2.0, 8.0] * 5,
            "grad_norm_d": [0.0, *flat[1:]],
            "accuracy_d": ramp,
            "d_real": ramp,
            "d_fake_before": [value**2 for value in ramp],
        }
    )
    assert summary == pytest.approx(
        {
            "grad_norm_g": 4.0,
            "grad_norm_d": 2**-12.6,  # the smallest normal float32 is 2 to the -126
            "accuracy_d": 0.75,
            "confidence_d": sum(0.1 * i + 1 - 0.01 * i * i for i in range(5, 11)) / 12,
            "d_real_end": 0.95,
            "d_fake_end": 0.905,
        }
    )
    assert set(summarise_history({})) == set(summary)


def test_steps_without_their_fid_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        oscillation(STEPS, [10.0] * 7)
