from __future__ import annotations

import math

import numpy as np
import pytest

from gan_ablate.grid import RESULT_COLUMNS
from gan_ablate.outcomes import OUTCOMES, first_reached, oscillation, summarise_history

STEPS = [100, 200, 300, 400, 500, 600, 700, 800]


def test_every_outcome_is_a_column() -> None:
    assert set(OUTCOMES) <= set(RESULT_COLUMNS)


def test_a_steady_fall_does_not_oscillate() -> None:
    assert oscillation(STEPS, [100 * 0.9**i for i in range(8)]) == pytest.approx(0, abs=1e-9)


def test_oscillation_is_the_deviation_from_a_line_on_the_log_scale() -> None:
    swings = [0.0, 0.0, 0.0, 0.1, -0.1, 0.1, -0.1, 0.1]
    late = np.array(swings[3:])  # from half of 800 steps on
    design = np.stack([np.ones(5), np.array(STEPS[3:])], 1)
    _, residuals, _, _ = np.linalg.lstsq(design, late, rcond=None)
    fid = [50 * math.exp(swing) for swing in swings]
    assert oscillation(STEPS, fid) == pytest.approx(math.sqrt(residuals[0] / 3))


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
