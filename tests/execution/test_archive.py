from pathlib import Path

import pytest

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.maintenance import archive
from gan_ablate.execution.schedule import missing_runs
from gan_ablate.execution.store import Store
from gan_ablate.reporting.report import write_report
from tests.synthetic import save_runs


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Store, Store]:
    store = Store(tmp_path / "results")
    save_runs(store, plan(load_grid("beta1"), seeds=3), lambda variant, seed: 20.0 + seed + len(variant.label))
    store.note_seeds(plan(load_grid("beta1"), seeds=3))
    for folder in (store.root / "runs").iterdir():
        (folder / "generator.safetensors").write_bytes(bytes(1_000))
    return store, Store(tmp_path / "study")


def test_an_archive_restores_the_pages_byte_for_byte_without_the_runs_folders(stores: tuple[Store, Store]) -> None:
    store, study = stores
    assert archive(store, study) == 9
    write_report(study.root)
    made = {path: path.read_bytes() for path in study.root.rglob("*") if path.suffix in (".md", ".csv", ".tex", ".png")}
    kept = {path.relative_to(study.root).parts[0] for path in study.root.rglob("*")}
    assert "runs" not in kept
    for path in made:
        if path.parts[-3] != "sheets":
            path.unlink()
    write_report(study.root)
    assert {path: path.read_bytes() for path in made} == made
    write_report(store.root)
    for name in ("runs.csv", "effects.csv", "summary.csv", "effects.png", "samples.png"):
        assert (store.root / "beta1" / name).read_bytes() == (study.root / "beta1" / name).read_bytes(), name


def test_seeds_are_added_to_an_archive_and_only_what_is_missing_is_to_be_run(stores: tuple[Store, Store]) -> None:
    store, study = stores
    archive(store, study)
    more = plan(load_grid("beta1"), seeds=4)
    assert [config.seed for config in missing_runs([more], study)] == [3, 3, 3]
    assert study.known_seeds(more) == {3}


def test_archived_twice_it_holds_both_and_the_same_files(stores: tuple[Store, Store]) -> None:
    store, study = stores
    archive(store, study)
    before = {path: path.read_bytes() for path in (study.root / "records").iterdir()}
    assert archive(store, study) == 0
    save_runs(store, plan(load_grid("dropout"), seeds=2), lambda *_: 20.0)
    assert archive(store, study) == 6  # the baseline's two are there
    assert {path: path.read_bytes() for path in before} == before
    assert study.list_plans() == ["beta1", "dropout"]
    assert len(GridResults.load(study, "dropout").records) == 8


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b\x08\x00"])
def test_a_broken_record_is_named(stores: tuple[Store, Store], content: bytes) -> None:
    store, study = stores
    archive(store, study)
    path = next((study.root / "records").iterdir())
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"records/.*json\.gz: cannot be read .*; delete it to run it again"):
        GridResults.load(study, "beta1")


def test_nothing_to_archive_and_nowhere_to_are_refused(tmp_path: Path, stores: tuple[Store, Store]) -> None:
    with pytest.raises(UserError, match="nothing to archive"):
        archive(Store(tmp_path / "empty"), stores[1])
    with pytest.raises(UserError, match="another folder"):
        archive(stores[0], stores[0])


def test_a_run_that_failed_is_archived_once_it_has_not(stores: tuple[Store, Store]) -> None:
    store, study = stores
    planned = store.load_plan("beta1")
    config = planned.baseline.with_seed(2)
    good = store.load_record(config.run_id)
    assert good is not None
    store.save_record(good.model_copy(update={"status": "failed", "scoring": None}))
    assert archive(store, study) == 8
    store.save_record(good)
    assert archive(store, study) == 1
    assert study.is_done(config.run_id)


def test_fewer_seeds_take_none_away_and_make_no_fixed_number_of_more(stores: tuple[Store, Store]) -> None:
    store, study = stores
    more = Store(store.root.parent / "more")
    save_runs(more, plan(load_grid("beta1"), seeds=5), lambda variant, seed: 20.0 + seed + len(variant.label))
    archive(more, study)
    archive(store, study)
    kept = study.load_plan("beta1")
    assert len(kept.seeds) == 5
    assert study.known_seeds(kept) == {3, 5}
    archive(more, study)
    assert study.load_plan("beta1").intervals == "sequential"


def test_answers_that_were_settled_early_make_a_plan_no_smaller(stores: tuple[Store, Store]) -> None:
    store, study = stores
    archive(store, study)
    longer = plan(load_grid("beta1"), seeds=5)
    settled = longer.model_copy(update={"stopped": {longer.variants[1].label: 2}})
    assert settled.num_runs == 12
    save_runs(store, settled, lambda variant, seed: 20.0 + seed + len(variant.label))
    archive(store, study)
    kept = study.load_plan("beta1")
    assert len(kept.seeds) == 5
    assert kept.stopped == settled.stopped


def test_other_runs_under_a_name_that_is_taken_are_refused(stores: tuple[Store, Store]) -> None:
    store, study = stores
    archive(store, study)
    other = Store(store.root.parent / "other")
    save_runs(other, plan(load_grid("beta1"), seeds=3, steps=99), lambda *_: 20.0)
    with pytest.raises(UserError, match="beta1 was archived there with other runs"):
        archive(other, study)
