"""A run that was stopped, however that happened, ends as if it never had been."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gan_ablate.design.config import RunConfig
from gan_ablate.execution import checkpoint as checkpoint_module
from gan_ablate.execution.checkpoint import RunStoppedError
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.executors.worker import prepare, start_process
from gan_ablate.execution.recorder import TrainingObserver
from gan_ablate.execution.records import Record
from gan_ablate.execution.run import execute
from gan_ablate.execution.store import Store
from gan_ablate.scoring import metrics
from gan_ablate.training.loop import TrainingState
from tests.configs import make_config
from tests.execution.untimed import untimed
from tests.features import warm
from tests.quick_worker import KID_SUBSETS

NUM_KILLS = int(os.environ.get("GAN_ABLATE_KILLS", "5"))


SCORING = {"features": "digits", "num_samples": 1_280, "curve_samples": 1_280, "curve_points": 3}
SMALL: dict[str, Any] = {
    "generator": {"kind": "dcgan", "base_channels": 4},
    "discriminator": {"kind": "dcgan", "base_channels": 4, "dropout": 0.3},
    "batch_size": 16,
    "steps": 30,
    "scoring": SCORING,
}


UNSCORED: dict[str, Any] = {**SMALL, "scoring": {**SCORING, "features": "none"}}
"""For tests that look at no score: scoring takes longer than the steps."""


def make_context(out: Path, **changes: Any) -> RunContext:
    return RunContext(out=str(warm(out)), data_dir="data", checkpoint_sec=0, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Store]:
    """The record of a ``SMALL`` run that nothing has stopped, and its store, to look at."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "KID_SUBSETS", KID_SUBSETS)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache-home"))
        record = execute(make_config(**SMALL), make_context(folder), lambda _: None)
    return record, Store(folder)


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    stop_midway(make_config(**UNSCORED), RunContext(out=str(folder), data_dir="data", checkpoint_sec=0))
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Store:
    """A results folder with the checkpoint of an ``UNSCORED`` run, to spoil."""
    return Store(shutil.copytree(stopped_once, tmp_path / "stopped"))


def stop_at(*steps: int) -> Callable[[], bool]:
    """Ask to stop after the n-th of a process's steps."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) // 2 in steps  # once before a checkpoint is written, once after


def execute_in_pieces(config: RunConfig, context: RunContext, num_steps: int) -> Record:
    for _ in range(config.steps):
        try:
            return execute(config, context, lambda _: None, stop_at(num_steps))
        except RunStoppedError:
            continue
    raise AssertionError("never done")


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [7])
def test_a_run_in_pieces_leaves_the_record_of_one_in_one_go(tmp_path: Path, num_steps: int) -> None:
    config = make_config(**SMALL, ema_decay=0.9)
    whole = execute(config, make_context(tmp_path / "whole"), lambda _: None)
    pieces = execute_in_pieces(config, make_context(tmp_path / "pieces"), num_steps)
    assert untimed(pieces) == untimed(whole)
    assert len(pieces.weights_sha256) == 2
    one, other = (Store(tmp_path / place).run_dir(config.run_id) for place in ("whole", "pieces"))
    for name in ("generator.safetensors", "generator-ema.safetensors", *(f"samples/step-{s:06d}.png" for s in (0, 30))):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert not (tmp_path / "pieces" / "checkpoints").exists() or not list((tmp_path / "pieces").rglob("*.checkpoint"))


@pytest.mark.slow
def test_oscillation_is_measured_over_the_last_half_and_survives_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan_ablate.design.run_fields.OSCILLATION_POINTS", 4)
    monkeypatch.setattr("gan_ablate.design.run_fields.MIN_OSCILLATION_GAP", 3)
    config = make_config(**SMALL)
    whole = execute(config, make_context(tmp_path / "whole"), lambda _: None)
    pieces = execute_in_pieces(config, make_context(tmp_path / "pieces"), 7)
    assert untimed(pieces) == untimed(whole)
    assert whole.scoring is not None
    assert whole.scoring.oscillation_steps == [15, 20, 25, 30]
    assert whole.scoring.oscillation_samples == 256
    assert len(set(whole.scoring.oscillation_fid)) == 4
    assert [path.name for path in Store(tmp_path / "whole").sample_grids(config.run_id)] == [
        "step-000000.png", "step-000010.png", "step-000020.png", "step-000030.png",
    ]  # fmt: skip


@pytest.mark.slow
def test_times_of_pieces_add_up(tmp_path: Path) -> None:
    config = make_config(**SMALL)
    record = execute_in_pieces(config, make_context(tmp_path), 10)
    assert record.throughput is not None
    assert record.throughput.num_timed_steps == 30 - 30 // 4
    assert record.scoring is not None
    assert record.scoring.curve_train_sec == sorted(record.scoring.curve_train_sec)
    assert record.total_sec > record.train_sec >= record.scoring.curve_train_sec[-1]


@pytest.mark.slow
def test_the_best_weights_survive_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fids = {10: 30.0, 20: 10.0, 30: 20.0}
    monkeypatch.setattr(TrainingObserver, "_fid", lambda observer, *_: fids[observer.last_step])
    config = make_config(**{**SMALL, "scoring": {**SCORING, "keep_best": True}})
    whole = execute(config, make_context(tmp_path / "whole"), lambda _: None)
    pieces = execute_in_pieces(config, make_context(tmp_path / "pieces"), 7)
    assert untimed(pieces) == untimed(whole)
    assert whole.scoring is not None
    assert whole.scoring.best_step == 20
    one, other = (Store(tmp_path / place).run_dir(config.run_id) for place in ("whole", "pieces"))
    name = "generator-best.safetensors"
    assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("lowest", "is_used"), [(20, True), (10, False)])
def test_more_steps_go_on_where_the_best_weights_are_those_of_a_point_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lowest: int, is_used: bool
) -> None:
    """A run of 60 steps has points at 20, 40 and 60: what a run of 30 kept at step 10 is no point of it."""
    monkeypatch.setattr(TrainingObserver, "_fid", lambda observer, *_: 10.0 + (observer.last_step != lowest))
    context = make_context(tmp_path, keep_checkpoints=True)
    scoring = {**SCORING, "keep_best": True}
    execute(make_config(**{**SMALL, "scoring": scoring}), context, lambda _: None)
    longer = make_config(**{**SMALL, "steps": 60, "scoring": scoring})
    record = execute(longer, context, lambda _: None)
    log = (Store(tmp_path).run_dir(longer.run_id) / "log.txt").read_text()
    assert ("goes on from step 30" in log) == is_used
    assert record.scoring is not None
    assert record.scoring.best_step == 20


def stop_midway(config: RunConfig, context: RunContext) -> Path:
    with pytest.raises(RunStoppedError):
        execute(config, context, lambda _: None, stop_at(12))
    (file,) = Path(context.out).rglob("*.checkpoint")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("place", [5_000])
def test_a_damaged_checkpoint_is_told_of_and_not_used(tmp_path: Path, whole: tuple[Record, Store], place: int) -> None:
    config, context = make_config(**SMALL), make_context(tmp_path / "out")
    file = stop_midway(config, context)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    record = execute(config, context, lambda _: None)
    assert untimed(record) == untimed(whole[0])
    log = (Store(tmp_path / "out").run_dir(config.run_id) / "log.txt").read_text()
    assert f"{file}: cannot be used (it does not match its checksum); begins anew" in log
    assert "goes on" not in log


@pytest.mark.slow
def test_a_checkpoint_whose_run_has_lost_its_sample_grids_is_not_used(stopped: Store) -> None:
    config, context = make_config(**UNSCORED), make_context(stopped.root)
    shutil.rmtree(stopped.run_dir(config.run_id))
    execute(config, context, lambda _: None)
    assert [path.name for path in stopped.sample_grids(config.run_id)] == [
        "step-000000.png", "step-000010.png", "step-000020.png", "step-000030.png",
    ]  # fmt: skip


def checkpoint_of(store: Store) -> Path:
    (file,) = store.root.rglob("*.checkpoint")
    return file


@pytest.mark.slow
def test_a_whole_checkpoint_is_used(stopped: Store) -> None:
    """What the tests below spoil would be used as it is."""
    config = make_config(**UNSCORED)
    assert execute(config, make_context(stopped.root), lambda _: None).status == "completed"
    assert "goes on from step" in (stopped.run_dir(config.run_id) / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"short", b"x" * 100])
def test_what_is_no_checkpoint_is_not_used(stopped: Store, content: bytes) -> None:
    config = make_config(**UNSCORED)
    checkpoint_of(stopped).write_bytes(content)
    assert execute(config, make_context(stopped.root), lambda _: None).status == "completed"


@pytest.mark.slow
def test_a_checkpoint_of_other_images_is_not_used(stopped: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(**UNSCORED)
    assert checkpoint_of(stopped).exists()
    monkeypatch.setattr("torch.__version__", "99.0")
    assert execute(config, make_context(stopped.root), lambda _: None).status == "completed"
    log = (stopped.run_dir(config.run_id) / "log.txt").read_text()
    assert "made with other torch; begins anew" in log


@pytest.mark.slow
def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_sealed", refuse)
    config = make_config(**UNSCORED)
    assert execute(config, make_context(tmp_path), lambda _: None).status == "completed"
    assert "no checkpoint could be written" in (Store(tmp_path).run_dir(config.run_id) / "log.txt").read_text()


def test_checkpoints_that_take_long_are_rarer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes two seconds is not made again before a hundred have gone by."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    curve: dict[str, list[float]] = {"curve_steps": [], "curve_train_sec": [], "curve_fid": []}
    observer = SimpleNamespace(**curve, oscillation_steps=[], oscillation_fid=[], curve_sec=0.0, best=None)
    config = make_config(steps=1_000)
    keeper: Any = checkpoint_module.RunCheckpoints(
        config, store=Store(tmp_path), observer=observer, origin={}, is_scored=True,  # type: ignore[arg-type]
        every_sec=60, keeps_last=False, should_stop=lambda: False, log=logging.getLogger("test"),
    )  # fmt: skip

    def write(*_: object) -> None:
        now[0] += 2

    monkeypatch.setattr(checkpoint_module, "write_sealed", write)
    due = []
    for second in range(60, 300):
        now[0] = max(now[0], second)
        if keeper.is_due(1):
            due.append(second)
            keeper.save(TrainingState(1, {}, [], [], 0))
    assert due == [60, 162, 264]


@pytest.mark.slow
@pytest.mark.parametrize(("shorter", "is_used"), [(10, True), (20, True), (15, False)])
def test_a_kept_checkpoint_leads_on_to_more_steps(
    tmp_path: Path, whole: tuple[Record, Store], shorter: int, is_used: bool
) -> None:
    """Where all that is measured on the way is the same: points of FID at 10, 20 and 30, or at 10 and 20."""
    points = {10: 1, 20: 2, 15: 1}[shorter]
    long = make_config(**SMALL)
    short = make_config(**{**SMALL, "steps": shorter, "scoring": {**SCORING, "curve_points": points}})
    context = make_context(tmp_path / "out", keep_checkpoints=True)
    execute(short, context, lambda _: None)
    file = Store(tmp_path / "out").checkpoint_path(short)
    assert file.exists()
    # The number of points names the run's place: here they are put where the longer run looks.
    target = Store(tmp_path / "out").checkpoint_path(long).with_name(file.name)
    target.parent.mkdir(exist_ok=True)
    file.rename(target)
    record = execute(long, context, lambda _: None)
    assert untimed(record) == untimed(whole[0])
    log = (Store(tmp_path / "out").run_dir(long.run_id) / "log.txt").read_text()
    assert (f"goes on from step {shorter}" in log) == is_used
    stores = (Store(tmp_path / "out"), whole[1])
    samples = [sorted(path.name for path in store.sample_grids(long.run_id)) for store in stores]
    assert samples[0] == samples[1]


@pytest.mark.slow
def test_a_schedule_over_all_steps_lets_no_shorter_run_lead_on(tmp_path: Path) -> None:
    _, log = execute_with_twice_the_steps(tmp_path, **{**UNSCORED, "lr_schedule": "linear"})
    assert "its learning rates depend on the number of steps: no shorter run leads here" in log


@pytest.mark.slow
def test_twice_the_steps_go_on_where_the_points_meet(tmp_path: Path) -> None:
    """As a user would: the same command with twice the steps, which takes FID at every second step of before."""
    record, log = execute_with_twice_the_steps(tmp_path)
    assert "goes on from step 30" in log
    assert record.scoring is not None
    assert record.scoring.curve_steps == [20, 40, 60]


def execute_with_twice_the_steps(folder: Path, **changes: Any) -> tuple[Record, str]:
    """A run of 30 steps, then one of 60 in the same results folder, which is as one that ran alone; and its log."""
    context = make_context(folder / "out", keep_checkpoints=True)
    execute(make_config(**{**SMALL, **changes}), context, lambda _: None)
    longer = make_config(**{**SMALL, **changes, "steps": 60})
    record = execute(longer, context, lambda _: None)
    assert untimed(record) == untimed(execute(longer, make_context(folder / "whole"), lambda _: None))
    return record, (Store(folder / "out").run_dir(longer.run_id) / "log.txt").read_text()


def run_in_process(config: RunConfig, context: RunContext) -> None:
    prepare(1, None)
    metrics.KID_SUBSETS = KID_SUBSETS
    execute(config, context, lambda _: None)


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_instant_loses_nothing(tmp_path: Path) -> None:
    """While it starts, trains, scores, or writes a checkpoint: after every step. 20 times in ``nox -s chaos``."""
    rng = random.Random(0)
    num_killed, seed = 0, 0
    while num_killed < NUM_KILLS:
        config = make_config(**SMALL, seed=seed)
        seed += 1
        records = []
        for place in ("killed", "whole"):
            store, context = Store(tmp_path / place), make_context(tmp_path / place)
            while store.load_record(config.run_id) is None:
                process = start_process(run_in_process, config, context)
                if place == "killed" and num_killed < NUM_KILLS:
                    time.sleep(rng.uniform(0.1, 1.5))
                    num_killed += process.is_alive()
                    process.kill()
                process.join()
            records.append(store.load_record(config.run_id))
        assert records[0] is not None
        assert records[1] is not None
        assert untimed(records[0]) == untimed(records[1])
