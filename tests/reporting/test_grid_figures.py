from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.store import Store
from gan_ablate.reporting import grid_figures
from tests.synthetic import make_results, save_runs


@pytest.mark.parametrize(
    ("grid", "panels"),
    [
        ("bn_label_smooth", {"": 4}),
        ("essentials", {"architecture": 2, "dropout": 4, "beta1": 3}),
    ],
)
def test_many_variants_are_parted_by_factor(grid: str, panels: dict[str, int]) -> None:
    planned = plan(load_grid(grid), seeds=1)
    look = grid_figures.style_of(make_results(planned, lambda *_: 20.0))
    assert {title: len(look.panels[title]) for title in panels} == panels
    assert {label for panel in look.panels.values() for label in panel} == {
        variant.label for variant in planned.variants
    }


def test_sample_grids_are_those_of_the_first_seed_and_say_where_a_run_diverged(tmp_path: Path) -> None:
    store, planned = Store(tmp_path), plan(load_grid("beta1"), seeds=2)
    save_runs(store, planned, lambda variant, seed: None if variant.label == "beta1 0.9" and seed == 0 else 20.0)
    grids = grid_figures.find_sample_grids(GridResults.load(store, "beta1"))
    assert list(grids) == ["beta1 0.5", "beta1 0.0", "beta1 0.9, diverged at step 3"]
    for variant, files in zip(planned.variants, grids.values(), strict=True):
        assert [file.name for file in files] == ["step-000000.png", "step-001500.png"]
        assert variant.with_seed(0).run_id in str(files[0])
