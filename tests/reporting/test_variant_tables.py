from __future__ import annotations

import math

import pytest

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.reporting.variant_tables import (
    cost_table,
    scores_table,
    setup_table,
    stability_table,
    variants_table,
)
from tests.synthetic import make_results


@pytest.fixture
def results() -> GridResults:
    return make_results(plan(load_grid("beta1"), seeds=2), lambda _, seed: 20.0 + seed)


def test_every_table_has_a_row_for_each_variant(results: GridResults) -> None:
    for tabulate in (variants_table, stability_table, cost_table):
        header, _, *rows = tabulate(results.summary).splitlines()
        assert len(rows) == len(results.plan.variants)
        assert {row.count("|") for row in rows} == {header.count("|")}


def test_scores_end_with_those_of_real_images(results: GridResults) -> None:
    *_, last = scores_table(results.summary, {"precision": 0.75}).splitlines()
    assert last.startswith("| *real images*")
    assert "0.75" in last


def test_variants_without_scores_have_no_columns_of_scores(results: GridResults) -> None:
    unscored = results.summary.assign(fid=float("nan"))
    assert "FID" in variants_table(results.summary)
    assert "FID" not in variants_table(unscored)


def test_setup_names_budget_and_preset_once(results: GridResults) -> None:
    table = setup_table(results)
    assert table.count(results.plan.grid.base) == 1
    assert "seeds 0 to 1" in table


def test_columns_of_only_dashes_are_left_out_and_a_table_of_them_is_none(results: GridResults) -> None:
    times = ["step_ms_median", "step_ms_p10", "step_ms_p90", "images_per_sec", "train_sec", "scoring_sec"]
    untimed = results.summary.assign(**dict.fromkeys(times, math.nan))
    assert cost_table(untimed).splitlines()[0].split() == ["|", "variant", "|", "process", "peak,", "MiB", "|"]
    assert cost_table(untimed.assign(peak_memory_mib=math.nan)) == ""
