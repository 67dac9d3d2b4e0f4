from __future__ import annotations

import json
from pathlib import Path

import pytest

from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution import index
from gan_ablate.execution.index import Summary, summarise_runs
from gan_ablate.execution.schedule import estimate_seconds
from gan_ablate.execution.store import Store
from tests.synthetic import make_record, save_runs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    planned = plan(load_grid("beta1"), seeds=2)
    save_runs(Store(tmp_path), planned, lambda cell, _: None if cell.label.endswith("0.9") else 20.0)
    return Store(tmp_path)


def read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a record was read")

    monkeypatch.setattr(Store, "load_record", refuse)


def test_records_are_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_ids = list(store.load_plan("beta1").run_ids)
    found = summarise_runs(store, [*run_ids, "absent"])
    assert list(found) == run_ids
    assert sorted(run.status for run in found.values()) == ["completed"] * 4 + ["diverged"] * 2
    assert found[run_ids[0]] == Summary("completed", 20.0)
    read_nothing(monkeypatch)
    assert summarise_runs(store, run_ids) == found


def test_a_record_that_has_changed_is_read_again(store: Store) -> None:
    planned = store.load_plan("beta1")
    run_ids = list(planned.run_ids)
    summarise_runs(store, run_ids)
    store.save_record(make_record(planned.baseline, 0, None, step_ms=7.0))
    (store.run_dir(run_ids[1]) / "record.json").unlink()
    found = summarise_runs(store, run_ids)
    assert found[run_ids[0]] == Summary("diverged", 7.0)
    assert run_ids[1] not in found


def test_an_index_that_is_deleted_or_damaged_is_made_anew(store: Store) -> None:
    run_ids = list(store.load_plan("beta1").run_ids)
    found = summarise_runs(store, run_ids)
    path = store.cache_dir / "index.json"
    whole = path.read_bytes()
    for content in (b"", whole[:-5], whole.replace(b"diverged", b"complete"), b'{"layout": 1, "runs": 5}', b"[]"):
        path.write_bytes(content)
        assert summarise_runs(store, run_ids) == found
        assert json.loads(path.read_bytes()) == json.loads(whole)
    path.unlink()
    assert summarise_runs(store, run_ids) == found


def test_a_damaged_record_is_named(store: Store) -> None:
    run_ids = list(store.load_plan("beta1").run_ids)
    (store.run_dir(run_ids[0]) / "record.json").write_text("x")
    with pytest.raises(UserError, match=r"record\.json: cannot be read"):
        summarise_runs(store, run_ids)


def test_a_disk_that_takes_no_index_stops_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    assert len(summarise_runs(store, store.load_plan("beta1").run_ids)) == 6
    assert not list(store.cache_dir.iterdir())


def test_the_index_is_read_once_for_all_variants(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = store.load_plan("beta1")
    summarise_runs(store, planned.run_ids)
    reads: list[Path] = []
    load = index._load

    def count(path: Path) -> dict[str, list[object]]:
        reads.append(path)
        return load(path)

    monkeypatch.setattr(index, "_load", count)
    seconds = estimate_seconds([planned, planned], store)
    assert len(reads) == 1
    assert set(seconds) == set(planned.run_ids)
