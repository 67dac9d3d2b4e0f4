from __future__ import annotations

import pytest

from gan_ablate.analysis.comparability import Comparability, machine_of
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.records import Record
from tests.synthetic import make_results


def compared(**changes: object) -> Comparability:
    """Six runs, of which the second's record is changed."""
    results = make_results(plan(load_grid("beta1"), seeds=2), lambda _, seed: 20.0 + seed)
    records = list(results.records)
    label, record = records[1]
    records[1] = label, record.model_copy(update=changes)
    return Comparability(records, results.runs)


def changed(record: Record, part: str, **changes: object) -> dict[str, object]:
    return {part: getattr(record, part).model_copy(update=changes)}


def any_record() -> Record:
    return compared().records[1][1]


def test_runs_that_were_scored_in_one_way_on_one_machine_compare() -> None:
    comparable = compared()
    assert len(comparable.protocols) == len(comparable.machines) == 1
    assert comparable.untimed == set()
    assert comparable.runs.equals(comparable.all_runs)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("extractor", "garments"),
        ("extractor_sha256", "f" * 64),
        ("num_reference", 5_000),
        ("resolution", 32),
        ("curve_samples", 2_000),
    ],
)
def test_scores_go_where_they_were_made_in_different_ways(name: str, value: object) -> None:
    record = any_record()
    comparable = compared(**changed(record, "scoring", **{name: value}))
    assert len(comparable.protocols) == 2
    for column in ("fid", "kid", "recall", "steps_to_fid", "best_curve_fid", "fid_sampling_error", "collapsed"):
        assert comparable.runs[column].isna().all(), column
        assert comparable.all_runs[column].notna().any(), column
    for column in ("grad_norm_g", "accuracy_d", "confidence_d", "step_ms_median", "train_sec"):
        assert comparable.runs[column].notna().all(), column


def test_as_many_samples_of_the_same_images_are_one_way_to_score() -> None:
    record = any_record()
    assert record.scoring is not None
    assert record.scoring.final is not None
    fewer = record.scoring.final.model_copy(update={"num_samples": 5_000})
    assert len(compared(**changed(record, "scoring", final=fewer)).protocols) == 2
    assert len(compared(dataset_sha256="a" * 64).protocols) == 2
    # A run without a final score takes no part.
    assert len(compared(**changed(record, "scoring", final=None, resolution=64)).protocols) == 1
    assert len(compared(scoring=None).protocols) == 1


@pytest.mark.parametrize(
    "changes",
    [{"device": "cuda"}, *({"environment": {part: "another"}} for part in ("cpu", "gpu", "torch", "threads_per_run"))],
)
def test_the_times_of_a_run_on_another_machine_go_alone(changes: dict[str, object]) -> None:
    comparable = compared(**changes)
    assert len(comparable.machines) == 2
    assert comparable.untimed == comparable.elsewhere == {any_record().run_id}
    for column in ("step_ms_median", "sec_to_fid", "fid_equal_time", "train_sec", "scoring_sec", "steps_per_sec"):
        assert comparable.runs[column].isna().tolist() == [False, True, False, False, False, False], column
    assert comparable.runs[["fid", "steps_to_fid", "grad_norm_g"]].notna().all(axis=None)


def test_times_are_of_the_machine_that_most_had_to_themselves() -> None:
    """Four of six runs are on a GPU, two of them shared it: as many as on the processor, which came first."""
    results = compared()
    shared = any_record().throughput
    assert shared is not None
    records = [
        (label, record.model_copy(update={"device": "cpu" if number < 2 else "cuda"}))
        for number, (label, record) in enumerate(results.records)
    ]
    assert Comparability(records, results.all_runs).timed_machine == machine_of(records[2][1])
    unsteady = shared.model_copy(update={"step_ms_p90": 100.0})
    for number in (4, 5):
        label, record = records[number]
        records[number] = label, record.model_copy(update={"throughput": unsteady})
    comparable = Comparability(records, results.all_runs)
    assert comparable.timed_machine == machine_of(records[0][1])
    assert comparable.runs["step_ms_median"].notna().tolist() == [True, True, False, False, False, False]


def test_a_machine_that_only_failed_is_none() -> None:
    assert len(compared(device="cuda", status="failed").machines) == 1


def test_the_times_of_a_run_that_shared_its_machine_go_alone() -> None:
    record = any_record()
    comparable = compared(**changed(record, "throughput", step_ms_p90=100.0))
    assert comparable.untimed == comparable.unsteady == {record.run_id}
    for column in ("step_ms_median", "total_sec", "fid_equal_time"):
        assert comparable.runs[column].isna().tolist() == [False, True, False, False, False, False], column
    assert comparable.runs["fid"].notna().all()
