from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from gan_ablate.analysis.table import load_results
from gan_ablate.atomic_io import check_seal, write_atomically
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution import store as store_module
from gan_ablate.execution.forecast import estimate_seconds
from gan_ablate.execution.records import Record, RunSummary
from gan_ablate.execution.store import UNTIL_SETTLED, Store, record_stamp, summarise_runs
from tests.configs import make_config
from tests.synthetic import make_record, save_runs


def test_a_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    store, config = Store(tmp_path), make_config()
    record = Record(run_id=config.run_id, status="failed", message="why", config=config)
    assert store.load_record(config.run_id) is None
    store.save_record(record)
    assert store.load_record(config.run_id) == record


def test_a_run_that_is_not_over_has_no_result(tmp_path: Path) -> None:
    assert not Store(tmp_path).is_done("abc")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "abc").write_text("a file where a folder should be", "utf-8")
    assert Store(tmp_path).load_record("abc") is None


def test_a_failure_is_kept_with_its_run_and_its_reason(tmp_path: Path) -> None:
    store, config = Store(tmp_path), make_config()
    record = store.save_failure(config, "out of memory")
    assert (record.run_id, record.status, record.message, record.config) == (
        config.run_id,
        "failed",
        "out of memory",
        config,
    )
    assert store.load_record(config.run_id) == record


def test_each_kind_of_file_has_its_place_in_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.run_dir("abc") == tmp_path / "runs" / "abc"
    assert store.lease_path("abc") == tmp_path / "runs" / "abc" / ".lease"
    assert store.archived_record("abc") == tmp_path / "records" / "abc.json.gz"
    assert store.archived_sample_grid("abc", "step-000010.png") == tmp_path / "sheets" / "abc" / "step-000010.png"
    assert store.cache_dir == tmp_path / "cache"


def test_checkpoints_of_a_run_of_several_lengths_share_a_folder(tmp_path: Path) -> None:
    store, short, other = Store(tmp_path), make_config(steps=3), make_config(steps=3, seed=1)
    long = short.model_copy(update={"steps": 7})
    paths = [store.checkpoint_path(config) for config in (short, long, other)]
    assert [path.name for path in paths] == [f"{config.run_id}.checkpoint" for config in (short, long, other)]
    assert paths[0].parent == paths[1].parent != paths[2].parent
    assert all(path.parent.parent == tmp_path / "checkpoints" for path in paths)
    shortest = make_config(steps=1)  # which names the folder
    assert paths[0].parent.name == store.checkpoint_path(shortest).parent.name == shortest.run_id


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_sample_grids_are_in_the_order_of_training(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.sample_grids("abc") == []
    archived = touch(tmp_path / "sheets" / "abc" / "step-000007.png")
    assert store.sample_grids("abc") == [archived]
    samples = tmp_path / "runs" / "abc" / "samples"
    names = ("step-1000000.png", "step-000000.png", "step-999999.png", "step-last.png")
    sample_grids = {name: touch(samples / name) for name in names}
    for name in ("interpolation.png", "step-000001.png.part"):
        touch(samples / name)
    expected = ["step-last.png", "step-000000.png", "step-999999.png", "step-1000000.png"]
    assert store.sample_grids("abc") == [sample_grids[name] for name in expected]


def test_sample_grids_of_the_same_step_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    samples = tmp_path / "runs" / "abc" / "samples"
    for name in ("step-5.png", "step-0005.png", "step-05.png", "step-b.png", "step-a.png"):
        touch(samples / name)
    found = [sample_grid.name for sample_grid in Store(tmp_path).sample_grids("abc")]
    assert found == ["step-a.png", "step-b.png", "step-0005.png", "step-05.png", "step-5.png"]


def test_a_picture_is_the_runs_own_rather_than_the_archives(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.picture("abc", "filters.png") is None
    archived = touch(tmp_path / "sheets" / "abc" / "filters.png")
    assert store.picture("abc", "filters.png") == archived
    own = touch(tmp_path / "runs" / "abc" / "samples" / "filters.png")
    assert store.picture("abc", "filters.png") == own
    assert store.picture("abc", "interpolation.png") is None


@pytest.mark.parametrize(("status", "is_done"), [("completed", True), ("diverged", True), ("failed", False)])
def test_a_divergence_is_a_result_and_a_failure_is_not(tmp_path: Path, status: str, is_done: bool) -> None:
    store, config = Store(tmp_path), make_config()
    store.save_record(Record(run_id=config.run_id, status=status, config=config))  # type: ignore[arg-type]
    assert store.is_done(config.run_id) is is_done


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
    with pytest.raises(UserError, match=r"out='.*results': cannot be written to \(Permission denied\)"):
        Store(tmp_path / "results").check_writable()


def test_whether_a_folder_can_be_written_to_is_tried_where_it_is_or_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    original = tempfile.TemporaryFile

    def watch(*, dir: Path) -> object:  # noqa: A002 (the standard library's name)
        tried.append(dir)
        return original(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", watch)
    Store(tmp_path / "results" / "deep").check_writable()
    Store(Path("results/relative")).check_writable()  # the working folder is the test's
    (tmp_path / "there").mkdir()
    Store(tmp_path / "there").check_writable()
    assert tried == [tmp_path, tmp_path, tmp_path / "there"]
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_records_and_plans_are_sealed_and_legible(tmp_path: Path, tiny_grid: Path) -> None:
    store, config = Store(tmp_path), make_config()
    store.save_failure(config, "why")
    store.save_plan(plan(load_grid(tiny_grid), budget="smoke"))
    for path in (store.run_dir(config.run_id) / "record.json", tmp_path / "plans" / "tiny.json"):
        content = path.read_bytes()
        check_seal(content, is_due=True)
        assert content.count(b"\n") > 10
        path.write_bytes(content + b" ")  # which only the seal can tell
    with pytest.raises(UserError, match=r"record\.json: cannot be read .*checksum"):
        store.load_record(config.run_id)
    with pytest.raises(UserError, match=r"tiny\.json: cannot be read .*checksum"):
        store.load_plan("tiny")


def test_a_plan_that_calls_its_variants_cells_is_read(tmp_path: Path, tiny_grid: Path) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    earlier = planned.model_dump(mode="json")
    earlier["cells"] = earlier.pop("variants")
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "tiny.json").write_text(json.dumps(earlier), "utf-8")
    assert Store(tmp_path).load_plan("tiny") == planned


def test_records_and_plans_of_before_there_were_seals_are_read(tmp_path: Path, tiny_grid: Path) -> None:
    store, config, planned = Store(tmp_path), make_config(), plan(load_grid(tiny_grid), budget="smoke")
    record = Record(run_id=config.run_id, status="completed", message="ß", config=config)
    for path, content in (
        (store.run_dir(config.run_id) / "record.json", record.model_dump_json()),
        (tmp_path / "plans" / "tiny.json", planned.model_dump_json()),
    ):
        write_atomically(path, content)
    assert store.load_record(config.run_id) == record
    assert store.load_plan("tiny") == planned


def archive(store: Store, record: Record, run_id: str) -> Path:
    path = store.archived_record(run_id)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(record.model_dump_json().encode("utf-8"), mtime=0))
    return path


def test_an_archived_record_is_read_where_the_run_has_no_folder(tmp_path: Path) -> None:
    store, config = Store(tmp_path), make_config()
    archive(store, Record(run_id=config.run_id, status="completed", message="archived", config=config), config.run_id)
    found = store.load_record(config.run_id)
    assert found is not None
    assert found.message == "archived"
    store.save_failure(config, "own")
    found = store.load_record(config.run_id)
    assert found is not None
    assert found.message == "own"


def test_an_archived_record_that_is_not_one_is_named_with_what_to_delete(tmp_path: Path) -> None:
    store, mine, other = Store(tmp_path), make_config(seed=0), make_config(seed=1)
    path = archive(store, Record(run_id=mine.run_id, status="completed", config=mine), other.run_id)
    with pytest.raises(UserError, match=rf"{other.run_id}\.json\.gz: .* run {mine.run_id}; delete it to run it again$"):
        store.load_record(other.run_id)
    whole = path.read_bytes()
    for broken in (whole[:-9], whole[:20] + bytes(8) + whole[28:], b"{", b""):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=rf"{other.run_id}\.json\.gz: .*; delete it to run it again"):
            store.load_record(other.run_id)


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b"[]", b"1", b'{"run_id": 1}'])
def test_whatever_is_no_record_is_named_with_what_to_delete(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs" / "abc" / "record.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"abc/record\.json.*; delete its folder to run it again$"):
        Store(tmp_path).load_record("abc")


def test_a_folder_in_the_place_of_a_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs" / "abc" / "record.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"abc/record\.json: cannot be read"):
        Store(tmp_path).load_record("abc")


@pytest.mark.parametrize("which", ["run_id", "config"])
def test_a_record_whose_name_and_configuration_disagree_is_refused(tmp_path: Path, which: str) -> None:
    store, mine, other = Store(tmp_path), make_config(seed=0), make_config(seed=1)
    record = Record(run_id=mine.run_id, status="completed", config=mine)
    wrong = {"run_id": other.run_id} if which == "run_id" else {"config": other}
    archive(store, record.model_copy(update=wrong), mine.run_id)
    with pytest.raises(UserError, match="its configuration is that of run"):
        store.load_record(mine.run_id)


def test_a_records_stamp_changes_with_its_file(tmp_path: Path) -> None:
    store, config = Store(tmp_path), make_config()
    assert record_stamp(store, config.run_id) is None
    archived = archive(store, Record(run_id=config.run_id, status="completed", config=config), config.run_id)
    os.utime(archived, ns=(5, 123_456_789))
    assert record_stamp(store, config.run_id) == (123_456_789, len(archived.read_bytes()))
    store.save_failure(config, "why")
    own = store.run_dir(config.run_id) / "record.json"
    os.utime(own, ns=(5, 987_654_321))
    assert record_stamp(store, config.run_id) == (987_654_321, len(own.read_bytes()))


def test_numbers_of_seeds_add_up_for_the_same_variants(tmp_path: Path, tiny_grid: Path) -> None:
    store, few, many = Store(tmp_path), *(plan(load_grid(tiny_grid), budget="smoke", seeds=num) for num in (12, 3))
    until_settled = few.model_copy(update={"until_settled": True})
    others = few.model_copy(update={"variants": few.variants[:1]})
    assert store.known_seeds(few) == set()
    store.note_seeds(few)
    store.note_seeds(many)
    store.note_seeds(others)
    assert store.known_seeds(few) == store.known_seeds(many) == {3, 12}
    assert store.known_seeds(others) == {12}
    store.note_seeds(until_settled)
    store.adopt_seeds(few, {5, 12})
    assert store.known_seeds(few) == {UNTIL_SETTLED, 3, 5, 12}
    contents = sorted(path.read_text("utf-8") for path in (tmp_path / "plans" / "seeds").glob("*.json"))
    assert contents == ["[0, 3, 5, 12]\n", "[12]\n"]
    assert store.list_plans() == []  # they are no plans


def test_numbers_of_seeds_of_earlier_versions_are_found(tmp_path: Path, tiny_grid: Path) -> None:
    """In a file that is called by twelve digits of the SHA-256 of the first seed's runs."""
    planned = plan(load_grid(tiny_grid), budget="smoke")
    first, second = (variant.run_id(0) for variant in planned.variants)
    name = hashlib.sha256(f"{first} {second}".encode("ascii")).hexdigest()[:12]
    write_atomically(tmp_path / "plans" / "seeds" / f"{name}.json", "[2, 30]\n")
    assert Store(tmp_path).known_seeds(planned) == {2, 30}


def test_numbers_of_seeds_that_are_known_are_not_written_again(tmp_path: Path, tiny_grid: Path) -> None:
    store, planned = Store(tmp_path), plan(load_grid(tiny_grid), budget="smoke")
    store.adopt_seeds(planned, {2, 4})
    (file,) = (tmp_path / "plans" / "seeds").iterdir()
    os.utime(file, ns=(5, 5))
    for known in ({2}, {4, 2}, set[int]()):
        store.adopt_seeds(planned, known)
    assert file.stat().st_mtime_ns == 5
    store.adopt_seeds(planned, {2, 6})
    assert store.known_seeds(planned) == {2, 4, 6}


@pytest.mark.parametrize("content", [b"[1", b"7", b"[[1]]", b"\xff"])
def test_numbers_of_seeds_that_cannot_be_read_are_named(tmp_path: Path, tiny_grid: Path, content: bytes) -> None:
    store, planned = Store(tmp_path), plan(load_grid(tiny_grid), budget="smoke")
    store.note_seeds(planned)
    (file,) = (tmp_path / "plans" / "seeds").iterdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{file.name}: cannot be read .*; delete it"):
        store.known_seeds(planned)


def test_a_plan_that_cannot_be_written_names_the_folder(
    tmp_path: Path, tiny_grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"out='.*results': cannot be written to \(No space left on device\)"):
        Store(tmp_path / "results").save_plan(plan(load_grid(tiny_grid), budget="smoke"))


def test_the_records_of_a_plan_are_those_of_its_runs_that_are_over(tmp_path: Path, tiny_grid: Path) -> None:
    store, planned = Store(tmp_path), plan(load_grid(tiny_grid), budget="smoke")
    save_runs(store, planned, lambda _, seed: 10.0 + seed)
    (store.run_dir(planned.variants[1].run_id(0)) / "record.json").unlink()
    found = [(levels, label, record.config.seed) for levels, label, record in store.records(planned)]
    off, on = planned.variants
    assert found == [(off.levels, off.label, 0), (off.levels, off.label, 1), (on.levels, on.label, 1)]


def test_plans_are_listed_by_name(tmp_path: Path, tiny_grid: Path) -> None:
    store, planned = Store(tmp_path / "results"), plan(load_grid(tiny_grid), budget="smoke")
    assert store.list_plans() == []
    assert store.find_plan("tiny") is None
    for name in ("tiny", "b", "a"):
        store.save_plan(planned.model_copy(update={"grid": planned.grid.model_copy(update={"name": name})}))
    touch(tmp_path / "results" / "plans" / "notes.txt")
    assert store.list_plans() == ["a", "b", "tiny"]
    assert store.find_plan("tiny") == store.load_plan("tiny") == planned


def test_a_folder_without_plans_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no grid tiny; nothing was run into this folder yet"):
        Store(tmp_path).load_plan("tiny")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("", "utf-8")
    with pytest.raises(UserError, match=r"out='.*results': not a folder"):
        Store(tmp_path / "results").list_plans()


@pytest.mark.parametrize("content", ["{", "[]", '{"old": 1}'])
def test_a_broken_plan_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "mine.json").write_text(content, "utf-8")
    with pytest.raises(UserError, match=r"plans/mine\.json.*; delete it and run the grid again$"):
        Store(tmp_path).load_plan("mine")


def test_a_record_in_another_runs_folder_is_refused(tmp_path: Path) -> None:
    store, mine, other = Store(tmp_path), make_config(seed=0), make_config(seed=1)
    store.save_record(Record(run_id=mine.run_id, status="completed", config=mine))
    (store.run_dir(other.run_id)).mkdir()
    (store.run_dir(other.run_id) / "record.json").write_bytes((store.run_dir(mine.run_id) / "record.json").read_bytes())
    with pytest.raises(UserError, match=f"its configuration is that of run {mine.run_id}"):
        store.load_record(other.run_id)


def test_a_record_under_an_earlier_name_is_shown_and_never_taken_for_the_run(tmp_path: Path) -> None:
    planned = plan(load_grid("dropout"), seeds=2, budget="smoke")
    config = next(variant for variant in planned.variants if variant.label == "dropout channels-25").with_seed(0)
    (earlier,) = config.known_run_ids - {config.run_id}
    store = Store(tmp_path)
    store.save_record(Record(run_id=earlier, status="failed", message="of an earlier version", config=config))
    store.save_plan(planned)
    assert store.find_record(config) == store.load_record(earlier)
    assert [record.run_id for _, _, record in store.records(planned, with_earlier=True)] == [earlier]
    assert list(store.records(planned)) == []
    assert not store.is_done(config.run_id)
    assert load_results(tmp_path, "dropout")["run_id"].tolist() == [earlier]
    store.save_record(Record(run_id=config.run_id, status="failed", message="of this one", config=config))
    assert [record.run_id for _, _, record in store.records(planned, with_earlier=True)] == [config.run_id]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    planned = plan(load_grid("beta1"), seeds=2)
    save_runs(Store(tmp_path), planned, lambda variant, _: None if variant.label.endswith("0.9") else 20.0)
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
    assert found[run_ids[0]] == RunSummary("completed", 20.0)
    read_nothing(monkeypatch)
    assert summarise_runs(store, run_ids) == found


def test_a_record_that_has_changed_is_read_again(store: Store) -> None:
    planned = store.load_plan("beta1")
    run_ids = list(planned.run_ids)
    summarise_runs(store, run_ids)
    store.save_record(make_record(planned.baseline, 0, None, step_ms=7.0))
    (store.run_dir(run_ids[1]) / "record.json").unlink()
    found = summarise_runs(store, run_ids)
    assert found[run_ids[0]] == RunSummary("diverged", 7.0)
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
    load = store_module._read_index

    def count(path: Path) -> dict[str, list[object]]:
        reads.append(path)
        return load(path)

    monkeypatch.setattr(store_module, "_read_index", count)
    seconds = estimate_seconds([planned, planned], store)
    assert len(reads) == 1
    assert set(seconds) == set(planned.run_ids)
