from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gan_ablate.analysis.comparability import is_unsteady
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import (
    find_yardsticks,
    first_reached,
    load_results,
    oscillation,
    summarise_history,
    tabulate_runs,
    value_at,
)
from gan_ablate.design.grid import load_grid
from gan_ablate.design.outcomes import RESULT_COLUMNS
from gan_ablate.design.plan import Plan, Variant, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from gan_ablate.scoring.scores import ProbeScores, RepresentationScores
from tests.synthetic import make_record, save_runs

BETAS = {"0.5": 20.0, "0.0": 40.0, "0.9": 80.0}


def save(out: Path) -> None:
    save_runs(
        Store(out),
        plan(load_grid("beta1"), seeds=2),
        lambda variant, _: BETAS[variant.levels["beta1"]],
        step_ms=lambda variant: 10.0 if variant.levels["beta1"] == "0.0" else 20.0,
    )


def test_a_row_is_a_run_with_its_factors_and_every_column(tmp_path: Path) -> None:
    save(tmp_path)
    runs = load_results(tmp_path, "beta1")
    assert list(runs.columns) == ["beta1", *RESULT_COLUMNS]
    assert len(runs) == 6
    assert runs["fid"].tolist() == [BETAS[beta] for beta in runs["beta1"]]
    assert not runs["collapsed"].any()


def test_columns_have_types_also_where_all_values_are_missing(tmp_path: Path) -> None:
    save(tmp_path)
    runs = load_results(tmp_path, "beta1")
    assert object not in set(runs.dtypes)
    assert runs["fid_ema"].isna().all()
    expected = {"fid": "float64", "fid_ema": "float64", "diverged_at": "Int64", "collapsed": "boolean", "seed": "int64"}
    assert {name: str(runs[name].dtype) for name in expected} == expected
    assert list(runs["beta1"].cat.categories) == ["0.5", "0.0", "0.9"]  # the baseline first
    assert list(runs["status"].cat.categories) == ["completed", "diverged", "failed"]


def test_the_target_is_what_the_baseline_reaches_half_way(tmp_path: Path) -> None:
    """A synthetic curve has ten points and falls to 1.6 of its end at the fifth."""
    save(tmp_path)
    runs = load_results(tmp_path, "beta1").set_index(["beta1", "seed"])
    assert runs.loc[("0.5", 0), "steps_to_fid"] == pytest.approx(750)
    assert runs.loc[("0.5", 0), "sec_to_fid"] == pytest.approx(15)
    # The target is 32. At twice the baseline's FID the curve ends at 44: it never gets there.
    assert runs.loc[("0.0", 0), "steps_to_fid"] == 1500
    assert float(runs["sec_to_fid"]["0.0", 0]) == float(runs["train_sec"]["0.0", 0])
    assert runs["target_bound"].to_dict() == {key: "" if key[0] == "0.5" else "≥" for key in runs.index}
    assert runs["fid_reached"].to_dict() == {key: key[0] == "0.5" for key in runs.index}


def test_equal_time_is_when_the_fastest_variant_was_done(tmp_path: Path) -> None:
    save(tmp_path)
    runs = load_results(tmp_path, "beta1").set_index(["beta1", "seed"])
    assert runs.loc[("0.0", 1), "fid_equal_time"] == pytest.approx(40 * 1.1)  # its own end, after 15 s
    assert runs.loc[("0.5", 1), "fid_equal_time"] == pytest.approx(20 * 1.6)  # half-way, after 15 of 30 s


@pytest.mark.parametrize(
    ("class_counts", "recall", "is_collapsed"),
    [
        ((1_000,) * 10, 0.7, False),
        ((2_500,) * 4 + (0,) * 6, 0.7, True),
        ((1_700,) * 5 + (1_500,) + (0,) * 4, 0.7, False),
        # Five classes hold a hundredth each, and one nearly two thirds: about three, were they drawn evenly.
        ((6_200, 2_500, 1_000, 150, 150) + (0,) * 5, 0.7, True),
        # Every class, the same few images of each.
        ((1_000,) * 10, 0.04, True),
        ((1_000,) * 10, 0.06, False),
        (None, 0.04, True),
        (None, 0.5, False),
    ],
)
def test_a_run_of_few_kinds_of_images_has_collapsed(
    tmp_path: Path, class_counts: tuple[int, ...] | None, recall: float, *, is_collapsed: bool
) -> None:
    save(tmp_path)
    store = Store(tmp_path)
    record = store.load_record(plan(load_grid("beta1"), seeds=2).baseline.with_seed(0).run_id)
    assert record is not None
    assert record.scoring is not None
    assert record.scoring.final is not None
    final = record.scoring.final.model_copy(update={"class_counts": class_counts, "recall": recall})
    store.save_record(record.model_copy(update={"scoring": record.scoring.model_copy(update={"final": final})}))
    runs = load_results(tmp_path, "beta1").set_index(["beta1", "seed"])
    assert runs.loc[("0.5", 0), "collapsed"] == is_collapsed
    assert not runs.loc[("0.5", 1), "collapsed"]


def test_runs_that_diverged_or_failed_keep_their_rows(tmp_path: Path) -> None:
    planned = plan(load_grid("beta1"), seeds=2)

    def fid(variant: Variant, seed: int) -> float | None:
        return None if (variant.levels["beta1"], seed) == ("0.9", 0) else 20.0

    store = Store(tmp_path)
    save_runs(store, planned, fid)
    broken = planned.baseline.with_seed(1)
    store.save_record(Record(run_id=broken.run_id, status="failed", message="planted", config=broken))
    runs = load_results(tmp_path, "beta1").set_index(["beta1", "seed"])
    assert runs.loc[("0.9", 0), "status"] == "diverged"
    assert runs.loc[("0.5", 1), "status"] == "failed"
    assert runs["fid"].isna()[("0.9", 0)]
    assert runs.loc[("0.9", 0), "diverged_at"] == 3


def test_the_target_is_a_geometric_mean_of_seeds(tmp_path: Path) -> None:
    save_runs(Store(tmp_path), plan(load_grid("beta1"), seeds=2), lambda _, seed: (10.0, 40.0)[seed])
    results = GridResults.load(Store(tmp_path), "beta1")
    assert results.folder == tmp_path / "beta1"
    assert results.yardsticks.target_fid == pytest.approx(20 * 1.6)  # not 25 * 1.6


def test_a_run_that_shared_the_machine_does_not_say_how_fast_a_variant_is(tmp_path: Path) -> None:
    save(tmp_path)
    store, planned = Store(tmp_path), plan(load_grid("beta1"), seeds=2)
    (fastest,) = (variant for variant in planned.variants if variant.levels["beta1"] == "0.0")
    record = store.load_record(fastest.run_id(0))
    assert record is not None
    assert record.throughput is not None
    assert record.scoring is not None
    unsteady = record.throughput.model_copy(update={"step_ms_p10": 1.0, "step_ms_p90": 10.0})
    slower = record.scoring.model_copy(update={"curve_train_sec": [3 * at for at in record.scoring.curve_train_sec]})
    store.save_record(record.model_copy(update={"throughput": unsteady, "scoring": slower}))
    assert GridResults.load(store, "beta1").yardsticks.equal_sec == pytest.approx(15)  # of its other seed alone


LEARNT = RepresentationScores(
    probes=[
        ProbeScores(num_labels=100, trained=0.7, untrained=0.5, pixels=0.2),
        ProbeScores(num_labels=1_000, trained=0.9, untrained=0.7, pixels=0.8),
    ],
    arithmetic=0.5,
    arithmetic_shuffled=0.2,
    filter_auc=0.8,
    filter_auc_untrained=0.7,
)


def rescored(record: Record, **changes: object) -> Record:
    assert record.scoring is not None
    return record.model_copy(update={"scoring": record.scoring.model_copy(update=changes)})


def table_of(planned: Plan, *records: Record) -> pd.DataFrame:
    """Tabulate runs of the baseline."""
    baseline = planned.baseline
    return tabulate_runs(planned, [(baseline.levels, baseline.label, record) for record in records])


def test_every_column_equals_its_records_field() -> None:
    planned = plan(load_grid("beta1"), seeds=4)
    record = make_record(planned.baseline, 3, 30.0, extractor_sha256="0123456789abcdef" * 4)
    history = {name: [0.25, 0.5, 0.75, 0.75] for name in record.history}
    changes = {"history": {**history, "step": [0.0, 500.0, 1_000.0, 1_500.0]}, "diverged_at": 7}
    assert record.scoring is not None
    assert record.scoring.final is not None
    final, best = (record.scoring.final.model_copy(update=update) for update in ({"fid_infinity": 29.0}, {"fid": 27.0}))
    others = {"fid_ema": 28.0, "fid_batch_stats": 31.0, "final": final, "best": best, "best_step": 1_000}
    record = rescored(record, representation=LEARNT, **others).model_copy(update=changes)
    row = table_of(planned, record).iloc[0].to_dict()
    late = [30 * (1.2, 1.3, 1.1)[at % 3] for at in range(26)]
    assert row == pytest.approx(
        {
            "beta1": "0.5",
            "variant": planned.baseline.label,
            "seed": 3,
            "run_id": planned.baseline.run_id(3),
            "status": "completed",
            "fid": 30.0,
            "fid_sampling_error": 0.01,
            "kid": 1.0,
            "precision": 0.8,
            "recall": 0.7,
            "density": 0.9,
            "coverage": 0.6,
            "classifier_score": 8.0,
            "classes_covered": 10,
            "class_divergence": 0.0,
            "collapsed": False,
            "nearest_ratio": 1.1,
            "fid_batch_stats": 31.0,
            "fid_ema": 28.0,
            "label_accuracy": None,
            "fid_floor": 0.05,
            "kid_floor": 0.05 / 30,
            "num_samples": 10_000,
            "extractor": "0123456789ab",
            "best_curve_fid": 33.0,
            "fid_infinity": 29.0,
            "fid_best": 27.0,
            "best_step": 1_000,
            "oscillation": math.sqrt(np.mean(np.diff(np.log(late), 2) ** 2) / 6),
            "steps_to_fid": 750.0,  # alone, it reaches its own target half-way
            "fid_reached": True,
            "target_bound": "",
            "sec_to_fid": 15.0,
            "fid_equal_time": 33.0,  # and is the fastest: at its end
            "grad_norm_g": (0.25 * 0.5 * 0.75**2) ** 0.25,
            "grad_norm_d": (0.25 * 0.5 * 0.75**2) ** 0.25,
            "accuracy_d": 0.75,
            "confidence_d": 0.5,
            "d_real_end": 0.75,
            "d_fake_end": 0.75,
            "probe_gain": 0.1,
            "arithmetic_gain": 0.3,
            "filter_gain": 0.1,
            "step_ms_median": 20.0,
            "step_ms_p10": 18.0,
            "step_ms_p90": 24.0,
            "steps_per_sec": 50.0,
            "images_per_sec": 3_200.0,
            "peak_memory_mib": 500e6 / 1024**2,
            "steps": 1_500,
            "train_sec": 30.0,
            "scoring_sec": 3.0,
            "total_sec": 33.0,
            "diverged_at": 7,
        }
    )


def test_a_run_that_was_cut_short_has_what_it_came_to_and_nothing_of_its_end() -> None:
    planned = plan(load_grid("beta1"), seeds=2)
    whole = make_record(planned.baseline, 0, 30.0)
    cut = make_record(planned.baseline, 1, 30.0).model_copy(update={"status": "diverged"})
    row = table_of(planned, whole, rescored(cut, final=None)).iloc[1]
    for name in ("best_curve_fid", "fid_floor", "step_ms_median", "fid_batch_stats"):
        assert pd.notna(row[name])
    ends = ("accuracy_d", "oscillation", "fid_reached", "target_bound", "steps_to_fid", "sec_to_fid", "fid_equal_time")
    for name in (*ends, "fid", "recall", "collapsed", "scoring_sec", "probe_gain"):
        assert pd.isna(row[name]), name


def test_unscored_run_has_the_columns_of_training() -> None:
    planned = plan(load_grid("beta1"), seeds=2)
    bare = make_record(planned.baseline, 0, 30.0).model_copy(update={"scoring": None, "throughput": None})
    pointless = rescored(make_record(planned.baseline, 1, 30.0), curve_steps=[], curve_train_sec=[], curve_fid=[])
    table = table_of(planned, bare, pointless)
    assert table["accuracy_d"].tolist() == [0.5, 0.5]
    assert table["fid"].isna().tolist() == [True, False]
    assert table["step_ms_median"].isna().tolist() == [True, False]
    for name in ("best_curve_fid", "oscillation", "fid_reached", "fid_equal_time", "extractor"):
        assert pd.isna(table[name][0]), name
    # Without a curve nothing is timed, and the grid has no target to reach.
    assert table[["best_curve_fid", "fid_reached", "steps_to_fid", "fid_equal_time"]].iloc[1].isna().all()


def test_a_grids_target_is_read_next_to_half_way_and_of_two_as_near_at_the_earlier() -> None:
    planned = plan(load_grid("beta1"), seeds=2)
    record = make_record(planned.baseline, 0, 30.0)
    curve = {"curve_steps": [300, 700, 1_000], "curve_train_sec": [1.0, 2.0, 3.0], "curve_fid": [50.0, 40.0, 35.0]}
    assert find_yardsticks(planned, [(planned.baseline.label, rescored(record, **curve))]).target_fid == (
        pytest.approx(40)
    )
    curve["curve_steps"] = [300, 500, 1_000]
    yardsticks = find_yardsticks(planned, [(planned.baseline.label, rescored(record, **curve))])
    assert yardsticks.target_fid == pytest.approx(40)
    assert yardsticks.equal_sec == 3


def test_seeds_that_are_added_do_not_change_the_target() -> None:
    """Of the baseline's first four seeds alone, whatever the later ones reach."""
    planned = plan(load_grid("beta1"), seeds=6)
    fids = [20.0, 22.0, 18.0, 21.0, 90.0, 2.0]
    records = [(planned.baseline.label, make_record(planned.baseline, seed, fid)) for seed, fid in enumerate(fids)]
    targets = [find_yardsticks(planned, records[:num]).target_fid for num in range(1, 7)]
    assert targets[3] == pytest.approx(1.6 * math.exp(np.mean(np.log(fids[:4]))))
    assert targets[3:] == [targets[3]] * 3
    assert targets[2] != targets[3]


def test_a_target_that_is_reached_before_the_first_point_is_a_bound_from_above() -> None:
    planned = plan(load_grid("beta1"), seeds=2)
    usual, low, _ = planned.variants
    records = [make_record(usual, 0, 30.0), make_record(low, 0, 2.0)]
    named = [(variant.levels, variant.label, record) for variant, record in zip((usual, low), records, strict=True)]
    assert tabulate_runs(planned, named)["target_bound"].tolist() == ["", "≤"]


def test_yardsticks_are_of_whole_runs_the_target_of_the_baseline_and_the_time_of_the_fastest_variant() -> None:
    planned = plan(load_grid("beta1"), seeds=2)
    usual, low, high = planned.variants
    diverged = make_record(usual, 1, 5.0, step_ms=1.0).model_copy(update={"status": "diverged"})
    unscored = make_record(usual, 1, 5.0, step_ms=1.0).model_copy(update={"scoring": None})
    pointless = rescored(make_record(usual, 1, 5.0, step_ms=1.0), curve_steps=[], curve_train_sec=[], curve_fid=[])
    records = [
        *((usual.label, record) for record in (diverged, unscored, pointless)),
        (low.label, make_record(low, 0, 90.0, step_ms=10.0)),
        (low.label, make_record(low, 1, 90.0, step_ms=40.0)),
        (high.label, make_record(high, 0, 60.0, step_ms=20.0)),
        (usual.label, make_record(usual, 0, 30.0, step_ms=30.0)),
    ]
    yardsticks = find_yardsticks(planned, records)
    assert yardsticks.target_fid == pytest.approx(30 * 1.6)
    # Seconds of 1,500 steps: 37.5 on average, 30 and 45. The quickest run of all is of a variant that is slower.
    assert yardsticks.equal_sec == pytest.approx(30)
    nothing = find_yardsticks(planned, records[:3])
    assert (nothing.target_fid, nothing.equal_sec) == (None, None)


def test_a_run_is_unsteady_beyond_half_as_much_again() -> None:
    record = make_record(plan(load_grid("beta1"), seeds=1).baseline, 0, 30.0)
    assert record.throughput is not None
    for slowest, is_slow in ((15.0, False), (15.1, True)):
        steps = record.throughput.model_copy(update={"step_ms_p10": 10.0, "step_ms_p90": slowest})
        assert is_unsteady(record.model_copy(update={"throughput": steps})) is is_slow
    assert not is_unsteady(record.model_copy(update={"throughput": None}))


def test_a_steady_fall_does_not_oscillate() -> None:
    assert oscillation([100 * 0.9**i for i in range(26)]) == pytest.approx(0, abs=1e-9)


def test_oscillation_is_what_second_differences_leave() -> None:
    fid = [50 * math.exp(0.1 * (-1) ** i) for i in range(26)]  # second differences of log FID are ±0.4
    assert oscillation(fid) == pytest.approx(0.4 / math.sqrt(6))


def test_oscillation_is_the_size_of_independent_errors() -> None:
    rng = np.random.default_rng(0)
    fid = [100 * math.exp(0.07 * error - step / 2_000) for step, error in enumerate(rng.standard_normal(4_000))]
    assert oscillation(fid) == pytest.approx(0.07, rel=0.05)


def test_oscillation_of_26_independent_errors_spreads_by_a_fifth() -> None:
    errors = np.exp(0.05 * np.random.default_rng(1).standard_normal((400, 26)))
    logs = [math.log(found) for of_run in errors if (found := oscillation(of_run.tolist())) is not None]
    assert np.std(logs) == pytest.approx(0.20, abs=0.02)


def test_smooth_trajectory_hardly_oscillates() -> None:
    """Convergence is no oscillation: this one falls by a third over its last half, and bends."""
    found = oscillation([18 + 80 * math.exp(-step / 300) for step in range(750, 1_501, 30)])
    assert found is not None
    assert found < 0.001


@pytest.mark.parametrize("num", [0, 1, 25])
def test_too_few_points_do_not_tell_an_oscillation(num: int) -> None:
    assert oscillation([10.0] * num) is None


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


def test_a_target_that_a_point_just_meets_is_reached_there() -> None:
    assert first_reached(25, [100, 300, 400], [100, 25, 25]) == pytest.approx(300)
    assert first_reached(25, [100, 300], [100, 25]) == pytest.approx(300)
    assert first_reached(20, [100, 300, 500], [80, 40, 10]) == pytest.approx(400)


def test_fid_between_steps_is_interpolated_on_the_log_scale() -> None:
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


def test_results_are_one_row_per_run_with_a_column_per_factor(tmp_path: Path, tiny_grid: Path) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    save_runs(Store(tmp_path), planned, lambda _, seed: 10.0 + seed)
    runs = load_results(tmp_path, "tiny")
    assert len(runs) == 4
    assert runs["smoothing"].tolist() == ["off", "on", "off", "on"]
    assert runs["seed"].tolist() == [0, 0, 1, 1]
    assert runs["fid"].tolist() == [10.0, 10.0, 11.0, 11.0]
    record = json.loads((tmp_path / "runs" / runs["run_id"][2] / "record.json").read_text())
    assert record["scoring"]["final"]["fid"] == runs["fid"][2]
    assert record["throughput"]["step_ms_median"] == runs["step_ms_median"][2]


def test_a_diverged_run_is_a_row_without_a_score(tmp_path: Path, tiny_grid: Path) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    save_runs(Store(tmp_path), planned, lambda _, seed: None if seed else 5.0)
    runs = load_results(tmp_path, "tiny")
    assert runs["status"].tolist() == ["completed", "completed", "diverged", "diverged"]
    assert runs["fid"].isna().tolist() == [False, False, True, True]


def test_a_grid_that_was_never_run_is_named_with_those_that_were(tmp_path: Path, tiny_grid: Path) -> None:
    Store(tmp_path).save_plan(plan(load_grid(tiny_grid), budget="smoke"))
    with pytest.raises(UserError, match="no grid tinny; did you mean tiny"):
        load_results(tmp_path, "tinny")
