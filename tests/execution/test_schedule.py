from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.schedule import find_trained
from gan_ablate.execution.store import GENERATOR_FILE, Store
from tests.synthetic import make_record, save_runs


def test_runs_are_found_that_differ_in_scoring_alone_and_kept_their_generators(tmp_path: Path, tiny_grid: Path) -> None:
    store = Store(tmp_path / "out")
    trained = plan(load_grid(tiny_grid), budget="smoke")
    for variant, config in trained.runs:
        store.save_record(make_record(variant, config.seed, fid=20.0))
        folder = store.run_dir(config.run_id)
        (folder / "config.json").write_text(config.model_dump_json())
        if variant is trained.baseline:
            (folder / GENERATOR_FILE).write_bytes(b"weights")

    def find(*overrides: str, **options: Any) -> set[str]:
        wanted = plan(load_grid(tiny_grid), budget="smoke", overrides=overrides, **options)
        found = find_trained([wanted], store)
        names = {variant.run_id(seed): trained.baseline.run_id(seed) for variant, seed in wanted.seeded_variants}
        assert all(Path(place).name == names[run_id] for run_id, place in found.items())
        return {f"{v.label} {seed}" for v, seed in wanted.seeded_variants if v.run_id(seed) in found}

    kept = {"smoothing off 0", "smoothing off 1"}
    assert find("scoring.num_samples=1300") == find(features="inception") == kept
    assert find("scoring.num_samples=1300", seeds=1) == {"smoothing off 0"}
    assert find("scoring.num_samples=1300", "batch_size=32") == set()
    assert find("scoring.num_samples=1300", steps=9) == set()
    assert find("scoring.features=none") == set()  # nothing to score with
    assert find() == set()  # nothing is missing


@pytest.mark.parametrize(
    ("kept", "changes", "is_found"),
    [(True, {}, True), (True, {"curve_points": 5}, False), (False, {}, False)],
)
def test_best_weights_are_scored_again_where_the_curve_that_chose_them_is_the_same(
    tmp_path: Path, *, kept: bool, changes: dict[str, object], is_found: bool
) -> None:
    store, grid = Store(tmp_path), load_grid("beta1")
    earlier = plan(grid, seeds=1, overrides=[f"scoring.keep_best={str(kept).lower()}"])
    save_runs(store, earlier, lambda *_: 20.0)
    for config in (variant.with_seed(0) for variant in earlier.variants):
        folder = store.run_dir(config.run_id)
        (folder / "config.json").write_text(config.model_dump_json())
        (folder / GENERATOR_FILE).touch()
    settings = {"num_samples": 5_000, "keep_best": "true", **changes}
    wanted = plan(grid, seeds=1, overrides=[f"scoring.{name}={value}" for name, value in settings.items()])
    found = find_trained([wanted], store)
    assert found.keys() == (set(wanted.run_ids) if is_found else set())
