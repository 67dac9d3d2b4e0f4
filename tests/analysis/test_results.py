from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gan_ablate.analysis.results import load_curves, summarise_variants, tabulate_plan
from gan_ablate.design.grid import load_grid
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.design.plan import Plan, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from tests.synthetic import make_results, save_runs


def planned_runs(num_seeds: int) -> tuple[Plan, pd.DataFrame]:
    """Of the grid of β1, whose baseline is at 0.5; columns are there to be overwritten."""
    planned = plan(load_grid("beta1"), seeds=num_seeds)
    return planned, make_results(planned, lambda _, seed: 20.0 + seed).runs


def baseline_row(planned: Plan, runs: pd.DataFrame, **columns: list[object]) -> pd.Series:
    """Summarise with these values for the baseline's runs, a value per seed."""
    is_baseline = runs["variant"] == planned.baseline.label
    for name, values in columns.items():
        changed = runs[name].astype(object)
        changed[is_baseline] = values
        runs = runs.assign(**{name: changed})
    return summarise_variants(planned, runs).iloc[0]


def test_variants_are_listed_in_the_plans_order_with_their_levels() -> None:
    planned, runs = planned_runs(2)
    summary = summarise_variants(planned, runs)
    assert summary["variant"].tolist() == [variant.label for variant in planned.variants]
    assert summary["beta1"].tolist() == ["0.5", "0.0", "0.9"]


def test_means_are_geometric_on_the_ratio_scale_and_plain_on_the_other() -> None:
    planned, runs = planned_runs(4)
    fid, recall = [10.0, 40.0, 20.0, 15.0], [0.1, 0.4, 0.5, 0.2]
    row = baseline_row(planned, runs, fid=list(fid), recall=list(recall))
    logs = np.log(fid)
    low, high = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert (row["fid_low"], row["fid"], row["fid_high"]) == pytest.approx(
        (math.exp(low), stats.gmean(fid), math.exp(high))
    )
    assert row["fid_spread"] == pytest.approx(np.std(logs, ddof=1))
    low, high = stats.ttest_1samp(recall, 0).confidence_interval(0.95)
    assert (row["recall_low"], row["recall"], row["recall_high"]) == pytest.approx((low, np.mean(recall), high))


def test_a_run_without_a_value_is_left_out_of_the_mean() -> None:
    planned, runs = planned_runs(3)
    row = baseline_row(planned, runs, fid=[10.0, None, 40.0], label_accuracy=[None, 0.5, 0.7])
    assert row["fid"] == pytest.approx(20)
    assert row["label_accuracy"] == pytest.approx(0.6)
    assert {f"{name}{end}" for name in OUTCOMES for end in ("", "_low", "_high")} <= set(row.index)


@pytest.mark.parametrize(
    ("reached", "bounds", "bound"),
    [
        ([True, True], ["", ""], ""),
        ([True, True], ["≤", ""], "≤"),
        ([False, True], ["≥", ""], "≥"),
        ([False, True], ["≥", "≤"], "~"),
        ([None, None], [None, None], ""),
    ],
)
def test_steps_to_the_target_are_marked_as_a_bound(reached: list[object], bounds: list[object], bound: str) -> None:
    planned, runs = planned_runs(2)
    row = baseline_row(planned, runs, fid_reached=reached, target_bound=bounds)
    assert row["steps_to_fid_bound"] == bound
    assert row["fid_reached"] == reached.count(True)


def test_times_of_steps_are_medians_and_those_of_runs_means() -> None:
    planned, runs = planned_runs(3)
    medians = ["step_ms_median", "step_ms_p10", "step_ms_p90", "steps_per_sec", "images_per_sec", "peak_memory_mib"]
    means = ["train_sec", "scoring_sec", "total_sec"]
    values = {name: [1.0, 2.0, 9.0] for name in (*medians, *means)}
    row = baseline_row(planned, runs, **values, classes_covered=[7, 3, 5])  # type: ignore[arg-type]
    assert [row[name] for name in medians] == [2] * len(medians)
    assert [row[name] for name in means] == [4] * len(means)
    assert row["classes_covered_fewest"] == 3


def test_runs_are_counted_by_how_they_ended() -> None:
    planned, runs = planned_runs(4)
    statuses: list[object] = ["completed", "completed", "failed", "diverged"]
    row = baseline_row(planned, runs, status=statuses, collapsed=[True, True, False, None])
    assert (row["completed"], row["diverged"], row["failed"], row["collapsed"]) == (2, 1, 1, 2)
    assert row["is_collapse_known"]
    row = baseline_row(planned, runs, collapsed=[None] * 4)
    assert (row["collapsed"], row["is_collapse_known"]) == (0, False)


def test_a_variant_that_was_stopped_early_had_fewer_runs_planned() -> None:
    planned, runs = planned_runs(4)
    stopped = planned.model_copy(update={"stopped": {planned.variants[1].label: 3}})
    assert summarise_variants(stopped, runs)["planned"].tolist() == [4, 3, 4]


def test_only_a_sequential_grid_with_scores_has_looks() -> None:
    fixed = plan(load_grid("beta1"), seeds=5)
    sequential = fixed.model_copy(update={"until_settled": True, "intervals": "sequential"})
    assert make_results(fixed, lambda _, seed: 20.0 + seed).looks == ()
    assert make_results(sequential, lambda *_: None).looks == ()
    assert make_results(sequential, lambda _, seed: 20.0 + seed).looks


def test_curves_of_all_grids_are_one_tidy_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("beta1", "dropout"):
        save_runs(store, plan(load_grid(name), seeds=2), lambda _, seed: 20.0 + seed)
    curves = load_curves(tmp_path)
    assert list(curves["grid"].cat.categories) == ["beta1", "dropout"]
    assert object not in set(curves.dtypes)
    ends = curves[(curves["quantity"] == "fid") & (curves["step"] == 1500) & (curves["grid"] == "beta1")]
    record = store.load_record(plan(load_grid("beta1")).baseline.run_id(0))
    assert record is not None
    assert record.scoring is not None
    first = ends[(ends["variant"] == "beta1 0.5") & (ends["seed"] == 0)]
    assert first["value"].tolist() == [record.scoring.curve_fid[-1]]
    assert first["train_sec"].tolist() == [record.scoring.curve_train_sec[-1]]
    losses = curves[(curves["quantity"] == "loss_d") & (curves["variant"] == "beta1 0.5") & (curves["seed"] == 0)]
    assert losses["value"].tolist() == record.history["loss_d"]
    assert losses["train_sec"].isna().all()
    assert set(load_curves(tmp_path, "dropout")["grid"]) == {"dropout"}
    with pytest.raises(UserError, match="beta2"):
        load_curves(tmp_path, "beta2")


def test_curves_of_an_empty_folder_are_an_empty_table(tmp_path: Path) -> None:
    curves = load_curves(tmp_path)
    assert curves.empty
    assert list(curves) == ["grid", "variant", "seed", "step", "quantity", "value", "train_sec"]


def test_plan_is_tabulated_with_its_blocks() -> None:
    planned = plan(load_grid("beta1"), seeds=2, dataset=["mnist-10k", "fashion-mnist"])
    table = tabulate_plan(planned)
    assert table["block"].tolist() == ["mnist-10k"] * 3 + ["fashion-mnist"] * 3
    assert table["beta1"].tolist() == ["0.5", "0.0", "0.9"] * 2
    assert set(table["num_seeds"]) == {2}
    assert "block" not in tabulate_plan(plan(load_grid("beta1")))
