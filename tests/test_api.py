from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.api import run_grid
from gan_ablate.design.grid import load_grid
from gan_ablate.design.planning import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.schedule import missing_runs
from gan_ablate.execution.store import Store
from tests.synthetic import save_runs


def test_a_second_time_computes_only_what_is_missing(tmp_path: Path, tiny_grid: Path) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    runs = run_grid(planned, tmp_path / "out", jobs=1)
    assert (runs["status"] == "completed").all()
    folders = {run_id: tmp_path / "out" / "runs" / run_id for run_id in runs["run_id"]}
    gone = runs["run_id"][1]
    (folders[gone] / "record.json").unlink()
    before = {run_id: (folder / "log.txt").stat().st_mtime_ns for run_id, folder in folders.items()}
    again = run_grid(planned, tmp_path / "out", jobs=1)
    changed = {run_id for run_id, f in folders.items() if (f / "log.txt").stat().st_mtime_ns != before[run_id]}
    assert changed == {gone}
    assert again["fid"].tolist() == runs["fid"].tolist()


def test_the_longest_runs_come_first(tmp_path: Path) -> None:
    planned, store = plan(load_grid("architecture"), seeds=2), Store(tmp_path)
    kinds = [config.generator.kind for config in missing_runs(planned, store)]
    assert kinds == ["dcgan", "dcgan", "mlp", "mlp"]
    # What runs of a variant really took replaces the guess.
    save_runs(store, planned, lambda *_: 1.0, step_ms=lambda c: 500.0 if c.config.generator.kind == "mlp" else 1.0)
    more = plan(load_grid("architecture"), seeds=3)
    assert [config.generator.kind for config in missing_runs(more, store)] == ["mlp", "dcgan"]


def test_a_wrong_number_of_jobs_is_named(tmp_path: Path, tiny_grid: Path) -> None:
    with pytest.raises(UserError, match="--jobs 0: valid"):
        run_grid(plan(load_grid(tiny_grid)), tmp_path / "out", jobs=0)
    assert not (tmp_path / "out").exists()
