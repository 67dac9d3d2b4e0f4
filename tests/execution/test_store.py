from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from gan_ablate.analysis.table import load_results
from gan_ablate.design.grid import load_grid
from gan_ablate.design.planning import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Record, Store
from gan_ablate.files import write_atomically
from tests.configs import make_config
from tests.synthetic import save_runs


def test_a_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    store, config = Store(tmp_path), make_config()
    record = Record(run_id=config.run_id, status="failed", message="why", config=config)
    assert store.load_record(config.run_id) is None
    store.save_record(record)
    assert store.load_record(config.run_id) == record


@pytest.mark.parametrize(("status", "is_done"), [("completed", True), ("diverged", True), ("failed", False)])
def test_a_divergence_is_a_result_and_a_failure_is_not(tmp_path: Path, status: str, is_done: bool) -> None:
    store, config = Store(tmp_path), make_config()
    store.save_record(Record(run_id=config.run_id, status=status, config=config))  # type: ignore[arg-type]
    assert store.is_done(config.run_id) is is_done


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]  # noqa: PTH208 (hidden files too)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "abc" / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text("{", "utf-8")
    with pytest.raises(UserError, match=r"abc/record\.json: cannot be read .* delete its folder to run it again"):
        Store(tmp_path).load_record("abc")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"--out .*results: cannot be written to \(Permission denied\)"):
        Store(tmp_path / "results").check_writable()


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


@pytest.mark.parametrize("content", ["{", "[]", '{"old": 1}'])
def test_a_broken_plan_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "mine.json").write_text(content, "utf-8")
    with pytest.raises(UserError, match=r"plans/mine\.json.*delete it and run the grid again"):
        Store(tmp_path).load_plan("mine")


def test_a_grid_that_was_never_run_is_named_with_those_that_were(tmp_path: Path, tiny_grid: Path) -> None:
    Store(tmp_path).save_plan(plan(load_grid(tiny_grid), budget="smoke"))
    with pytest.raises(UserError, match="no grid tinny; did you mean tiny"):
        load_results(tmp_path, "tinny")


def test_a_record_in_another_runs_folder_is_refused(tmp_path: Path) -> None:
    store, mine, other = Store(tmp_path), make_config(seed=0), make_config(seed=1)
    store.save_record(Record(run_id=mine.run_id, status="completed", config=mine))
    (store.run_dir(other.run_id)).mkdir()
    (store.run_dir(other.run_id) / "record.json").write_bytes((store.run_dir(mine.run_id) / "record.json").read_bytes())
    with pytest.raises(UserError, match=f"its configuration is that of run {mine.run_id}"):
        store.load_record(other.run_id)


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    """A temporary file is its owner's alone; a results folder is shared."""
    write_atomically(tmp_path / "record.json", "x")
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o644
