from __future__ import annotations

import math
from typing import get_args

import pytest

from gan_ablate.design import outcomes
from gan_ablate.design.claims import Expectation
from gan_ablate.design.outcomes import OUTCOMES, RATIO_OUTCOMES, RESULT_COLUMNS, percent_change
from gan_ablate.design.validation import validate
from gan_ablate.errors import UserError


def test_every_outcome_is_a_column() -> None:
    assert set(OUTCOMES) <= set(RESULT_COLUMNS)


def test_columns_of_runs_csv_keep_their_order() -> None:
    assert RESULT_COLUMNS == (
    "variant", "seed", "run_id", "status", "fid", "fid_sampling_error", "kid", "precision", "recall", "density",
    "coverage", "classifier_score", "classes_covered", "class_divergence", "collapsed", "nearest_ratio",
    "fid_batch_stats", "fid_ema", "label_accuracy", "fid_floor", "kid_floor", "num_samples", "extractor",
    "best_curve_fid", "fid_infinity", "fid_best", "best_step",
    "oscillation", "steps_to_fid", "fid_reached", "target_bound", "sec_to_fid", "fid_equal_time",
        "grad_norm_g",
    "grad_norm_d", "accuracy_d", "confidence_d", "d_real_end", "d_fake_end", "probe_gain", "arithmetic_gain",
    "filter_gain", "step_ms_median", "step_ms_p10", "step_ms_p90", "steps_per_sec", "images_per_sec",
    "peak_memory_mib", "steps", "train_sec", "scoring_sec", "total_sec", "diverged_at",
)  # fmt: skip


def test_every_outcome_may_be_claimed() -> None:
    assert set(get_args(outcomes.OutcomeName)) == set(OUTCOMES)
    assert set(RATIO_OUTCOMES) == {name for name, outcome in OUTCOMES.items() if outcome.scale == "ratio"}
    assert all(Expectation(outcome=name, direction="lower").outcome == name for name in OUTCOMES)


def test_an_unknown_outcome_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(
        UserError, match=r"claims: outcome = \"fit\": should be 'fid', 'fid_batch_stats', .* or 'step_ms_median'"
    ):
        validate(Expectation, {"outcome": "fit", "direction": "lower"}, "claims")


@pytest.mark.parametrize(
    ("ratio", "change"), [(2.0, 100.0), (0.5, -50.0), (1.0, 0.0), (1.1, 10.0), (0.9, -10.0), (6.0, 500.0)]
)
def test_a_log_ratio_is_a_change_in_percent(ratio: float, change: float) -> None:
    assert percent_change(math.log(ratio)) == pytest.approx(change)


def test_a_small_change_in_percent_keeps_its_digits() -> None:
    assert percent_change(1e-9) == pytest.approx(1e-7 * (1 + 0.5e-9), rel=1e-12, abs=0)


def test_bounds_without_end_are_changes_in_percent() -> None:
    assert percent_change(math.inf) == math.inf
    assert percent_change(-math.inf) == -100
    assert percent_change(1e4) == math.inf
    assert math.isnan(percent_change(math.nan))
