from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import load_results
from gan_ablate.design.grid import RESULT_COLUMNS, load_grid
from gan_ablate.design.planning import Cell, plan
from gan_ablate.execution.store import Record, Store
from tests.synthetic import save_runs

BETAS = {"0.5": 20.0, "0.0": 40.0, "0.9": 80.0}


def save(out: Path) -> None:
    save_runs(
        Store(out),
        plan(load_grid("beta1"), seeds=2),
        lambda cell, _: BETAS[cell.levels["beta1"]],
        step_ms=lambda cell: 10.0 if cell.levels["beta1"] == "0.0" else 20.0,
    )


def test_a_row_is_a_run_with_its_factors_and_every_column(tmp_path: Path) -> None:
    save(tmp_path)
    runs = load_results(tmp_path, "beta1")
    assert list(runs.columns) == ["beta1", *RESULT_COLUMNS]
    assert len(runs) == 6
    assert runs["fid"].tolist() == [BETAS[beta] for beta in runs["beta1"]]
    assert not runs["collapsed"].any()


def test_the_target_is_what_the_baseline_reaches_half_way(tmp_path: Path) -> None:
    """A synthetic curve has ten points and falls to 1.6 of its end at the fifth."""
    save(tmp_path)
    runs = load_results(tmp_path, "beta1").set_index(["beta1", "seed"])
    assert runs.loc[("0.5", 0), "steps_to_fid"] == pytest.approx(750)
    assert runs.loc[("0.5", 0), "sec_to_fid"] == pytest.approx(15)
    # The target is 32. At twice the baseline's FID the curve ends at 44: it never gets there.
    assert runs.loc[("0.0", 0), "steps_to_fid"] == 1500
    assert runs["sec_to_fid"].isna()[("0.0", 0)]
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

    def fid(cell: Cell, seed: int) -> float | None:
        return None if (cell.levels["beta1"], seed) == ("0.9", 0) else 20.0

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
    assert results.yardsticks.target_fid == pytest.approx(20 * 1.6)  # not 25 * 1.6


def test_a_run_that_shared_the_machine_does_not_say_how_fast_a_variant_is(tmp_path: Path) -> None:
    save(tmp_path)
    store, planned = Store(tmp_path), plan(load_grid("beta1"), seeds=2)
    (fastest,) = (cell for cell in planned.cells if cell.levels["beta1"] == "0.0")
    record = store.load_record(fastest.run_id(0))
    assert record is not None
    assert record.throughput is not None
    assert record.scoring is not None
    unsteady = record.throughput.model_copy(update={"step_ms_p10": 1.0, "step_ms_p90": 10.0})
    slower = record.scoring.model_copy(update={"curve_train_sec": [3 * at for at in record.scoring.curve_train_sec]})
    store.save_record(record.model_copy(update={"throughput": unsteady, "scoring": slower}))
    assert GridResults.load(store, "beta1").yardsticks.equal_sec == pytest.approx(15)  # of its other seed alone
