from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_ablate.analysis.results import GridResults
from gan_ablate.atomic_io import lease, read_sealed
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.checkpoint import RunStoppedError
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.forecast import missing_runs
from gan_ablate.execution.maintenance import archive, find_waste, remove, verify
from gan_ablate.execution.recorder import draw_samples
from gan_ablate.execution.run import execute
from gan_ablate.execution.store import Store
from gan_ablate.reporting.report import write_report
from gan_ablate.scoring import metrics
from gan_ablate.training.data import keep_decoded
from tests.configs import make_config
from tests.synthetic import save_runs


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with everything that has a checksum: a run of no grid, a grid's runs, a cache, a checkpoint."""
    context = RunContext(out=str(tmp_path_factory.mktemp("upkeep")), data_dir="data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "KID_SUBSETS", 2)
        execute(make_config(), context, lambda _: None)
    stopping = context.model_copy(update={"checkpoint_sec": 0})
    with pytest.raises(RunStoppedError):
        execute(make_config(seed=1, steps=20), stopping, lambda _: None, lambda: True)
    store = Store(Path(context.out))
    save_runs(store, plan(load_grid("beta1"), seeds=1), lambda *_: 20.0)
    keep_decoded(store.cache_dir, "images", {"images": torch.zeros((2, 1, 4, 4), dtype=torch.uint8)})
    return store.root


@pytest.fixture
def finished(made_once: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(made_once, tmp_path / "results"))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_whole_folder_is_whole(finished: Store) -> None:
    verification = verify(finished)
    assert verification.problems == ()
    assert verification.num_checked == 1 + 4 + 1 + 1 + 1 + 1  # plan, records, checkpoint, features, floor, images


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("plans/beta1.json", "delete it and run the grid again"),
        ("runs/*/record.json", "delete its folder to run it again"),
        ("runs/*/generator.safetensors", "delete the run's folder to run it again"),
        ("checkpoints/*/*.checkpoint", "its run will begin anew"),
        ("cache/*.safetensors", "it will be made anew"),
        ("cache/*.scores", "it will be made anew"),
        ("cache/images/*/images.npy", "it will be made anew"),
    ],
)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.999])
def test_one_flipped_bit_is_found_wherever_it_is(finished: Store, pattern: str, words: str, place: float) -> None:
    path = min(finished.root.glob(pattern))
    flip(path, int(place * len(path.read_bytes())))
    (problem,) = verify(finished).problems
    assert str(path if "images" not in pattern else path.parent) in problem
    assert words in problem


def test_a_changed_digit_of_a_score_is_found(finished: Store) -> None:
    path = finished.run_dir(make_config().run_id) / "record.json"
    text = path.read_text()
    place = text.index('"fid": ') + 8
    path.write_text(text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :])
    with pytest.raises(UserError, match=r"it does not match its checksum\); delete its folder"):
        finished.load_record(make_config().run_id)


def test_a_record_of_an_older_version_is_read(finished: Store) -> None:
    """Those had no checksum."""
    path = finished.run_dir(make_config().run_id) / "record.json"
    record = finished.load_record(make_config().run_id)
    path.write_text("{" + path.read_text().partition("\n")[2])
    assert finished.load_record(make_config().run_id) == record


def test_weights_that_were_changed_draw_nothing(finished: Store, tmp_path: Path) -> None:
    run_id = make_config().run_id
    flip(finished.run_dir(run_id) / "generator.safetensors", -1)
    with pytest.raises(UserError, match=r"generator\.safetensors: cannot be read \(it does not match") as refused:
        draw_samples(finished, run_id, 4, 0, tmp_path / "x.png")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "x.png").exists()


def test_weights_of_another_network_draw_nothing(finished: Store, tmp_path: Path) -> None:
    """A record without their checksum, as older versions wrote it, and a file that fits another network."""
    record = finished.load_record(make_config().run_id)
    assert record is not None
    finished.save_record(
        record.model_copy(
            update={
                "weights_sha256": {},
                "config": make_config(latent_dim=7),
                "run_id": make_config(latent_dim=7).run_id,
            }
        )
    )
    other = finished.run_dir(make_config(latent_dim=7).run_id)
    (other / "generator.safetensors").write_bytes(
        (finished.run_dir(record.run_id) / "generator.safetensors").read_bytes()
    )
    with pytest.raises(UserError, match="cannot be read") as refused:
        draw_samples(finished, other.name, 4, 0, tmp_path / "x.png")
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    for look in (verify, lambda store: find_waste(store, with_runs=False)):
        with pytest.raises(UserError, match="gone: no such folder"):
            look(Store(tmp_path / "gone"))


def names(store: Store, **options: Any) -> dict[str, str]:
    found = find_waste(store, **options)
    return {str(waste.path.relative_to(store.root)): waste.reason for waste in found}


def test_only_what_nothing_refers_to_is_waste(finished: Store) -> None:
    single, stopped = make_config(), make_config(seed=1, steps=20)
    checkpoint = finished.checkpoint_path(stopped).relative_to(finished.root)
    old, new = finished.root / ".report.md.abcdefgh", finished.root / ".report.md.ijklmnop"
    for path in (old, new):
        path.write_text("half")
    hours_ago = time.time() - 7_200
    os.utime(old, (hours_ago, hours_ago))
    of_writes = {old.name: "left behind by a write that did not end"}
    assert names(finished) == of_writes
    for path in (finished.root / ".env.template", finished.root / ".json.original"):  # files of the user
        path.write_text("mine")
        os.utime(path, (hours_ago, hours_ago))
    expected = {
        f"runs/{single.run_id}": "a finished run of no grid",
        f"runs/{stopped.run_id}": "an unfinished run of no grid",
        str(checkpoint): "a checkpoint of a run of no grid",
        **of_writes,
    }
    assert names(finished, with_runs=True) == expected
    found = find_waste(finished, with_runs=True)
    with lease(finished.lease_path(stopped.run_id)):  # a command works on it
        assert not any(remove(finished, waste) for waste in found if waste.run_id == stopped.run_id)
        assert names(finished, with_runs=True).keys() == expected.keys() - {f"runs/{stopped.run_id}", str(checkpoint)}
    assert finished.checkpoint_path(stopped).exists()
    for waste in find_waste(finished, with_runs=True):
        assert waste.num_bytes > 0
        assert remove(finished, waste)
    assert names(finished, with_runs=True) == {}
    assert new.exists()
    assert not (finished.root / "checkpoints" / checkpoint.parts[1]).exists()
    assert verify(finished).problems == ()


def test_what_was_kept_on_purpose_goes_only_on_purpose(finished: Store) -> None:
    single = make_config()
    finished.checkpoint_path(single).parent.mkdir(parents=True, exist_ok=True)
    finished.checkpoint_path(single).write_bytes(b"x")
    kept = str(finished.checkpoint_path(single).relative_to(finished.root))
    assert kept not in names(finished, with_runs=True)
    assert names(finished, with_checkpoints=True) == {kept: "a checkpoint of a finished run"}


def test_missing_weights_are_found(finished: Store) -> None:
    (finished.run_dir(make_config().run_id) / "generator.safetensors").unlink()
    (problem,) = verify(finished).problems
    assert "generator.safetensors: it is missing; delete the run's folder" in problem


def test_an_index_that_was_changed_is_found(finished: Store) -> None:
    (finished.cache_dir / "index.json").write_text('{"layout": 1, "runs": 5}')
    (problem,) = verify(finished).problems
    assert "index.json: it has no checksum; it will be made anew" in problem


def test_runs_of_a_grid_and_their_checkpoints_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    planned = plan(load_grid("beta1"), seeds=2)
    save_runs(store, planned, lambda *_: 20.0)
    _, config = next(iter(planned.runs))
    (store.run_dir(config.run_id) / "record.json").unlink()
    store.checkpoint_path(config).parent.mkdir(parents=True)
    store.checkpoint_path(config).write_bytes(b"x")
    assert names(store, with_runs=True) == {}


def test_a_file_that_is_no_cached_one_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"short")
    with pytest.raises(ValueError, match="checksum"):
        read_sealed(tmp_path / "x")


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
