from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from gan_ablate.design.cost import Speed, step_key
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.execution import schedule as calibration
from gan_ablate.execution.schedule import calibrate, estimate_seconds
from gan_ablate.execution.store import Store
from tests.configs import make_config
from tests.synthetic import save_runs


class Pool:
    """Runs in this process what would be sent to workers, and counts it."""

    timed: list[str] = []

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, _: object) -> Pool:
        return self

    def result(self) -> float:
        return 0.1

    def map(self, _: object, configs: list[Any]) -> list[float | None]:
        self.timed.extend(config.run_id for config in configs)
        return [100.0 + config.batch_size for config in configs]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> type[Pool]:
    monkeypatch.setattr(calibration, "ProcessPoolExecutor", Pool)
    Pool.timed = []
    return Pool


@pytest.fixture
def planned(tiny_grid: Path) -> Plan:
    return plan(load_grid(str(tiny_grid)), budget="smoke")


def test_real_steps_of_every_variant_are_timed(planned: Plan, tmp_path: Path) -> None:
    speed = calibrate([planned], Store(tmp_path), 2, "cpu")
    assert speed is not None
    assert {step_key(variant.trained) for variant in planned.variants} == set(speed.step_ms)
    # Nothing that this small takes as long as one of the default model's steps, or no time at all.
    assert all(0.1 < ms < 1_000 for ms in speed.step_ms.values())
    assert 0 < speed.classifier_ms < 100
    assert 0 < speed.start_sec < 300


def test_what_was_timed_is_kept(planned: Plan, tmp_path: Path, pool: type[Pool]) -> None:
    first = calibrate([planned], Store(tmp_path), 2, "cpu")
    assert len(pool.timed) == 2
    assert calibrate([planned], Store(tmp_path), 2, "cpu") == first
    assert len(pool.timed) == 2
    wider = plan(load_grid("batch_size"), budget="smoke")
    speed = calibrate([wider], Store(tmp_path), 2, "cpu")
    assert speed is not None
    assert first is not None
    assert {**first.step_ms, **speed.step_ms} == speed.step_ms
    assert len(pool.timed) == 2 + 4


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"machine": 1}', "machine", "negative", "old", "jobs"])
def test_what_does_not_hold_is_measured_anew(damage: str, planned: Plan, tmp_path: Path, pool: type[Pool]) -> None:
    calibrate([planned], Store(tmp_path), 2, "cpu")
    file = tmp_path / "cache" / "speed.json"
    data = json.loads(file.read_text("utf-8"))
    if damage == "machine":
        data["machine"][0] = "another"
        file.write_text(json.dumps(data), "utf-8")
    elif damage == "negative":
        data["step_ms"] = dict.fromkeys(data["step_ms"], -1)
        file.write_text(json.dumps(data), "utf-8")
    elif damage == "old":
        os.utime(file, (time.time() - 2 * 24 * 3600,) * 2)
    elif damage != "jobs":
        file.write_text(damage, "utf-8")
    speed = calibrate([planned], Store(tmp_path), 3 if damage == "jobs" else 2, "cpu")
    assert len(pool.timed) == 4
    assert speed is not None
    assert min(speed.step_ms.values()) > 0


def test_only_what_is_missing_is_timed(planned: Plan, tmp_path: Path, pool: type[Pool]) -> None:
    store = Store(tmp_path)
    save_runs(store, planned, lambda *_: 1.0)
    assert calibrate([planned], store, 2, "cpu") == Speed()
    assert pool.timed == []


def test_of_many_variants_some_are_timed_and_the_rest_follow_from_their_arithmetic(
    planned: Plan, tmp_path: Path, pool: type[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MAX_TIMED_VARIANTS", 1)
    speed = calibrate([planned], Store(tmp_path), 2, "cpu")
    assert speed is not None
    assert len(speed.step_ms) == 1
    assert all(seconds > 0 for seconds in estimate_seconds([planned], Store(tmp_path), speed).values())


def test_workers_that_die_leave_the_time_unknown(
    planned: Plan, tmp_path: Path, pool: type[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(pool, "map", die)
    assert calibrate([planned], Store(tmp_path), 2, "cpu") is None
    assert not (tmp_path / "cache").exists()


def test_a_step_that_fails_leaves_its_variant_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr("gan_ablate.training.loop.choose_step", refuse)
    assert calibration._time_step(make_config("mlp")) is None


@pytest.mark.parametrize("changes", [{}, {"conditional": True, "num_classes": 10}])
def test_a_step_takes_time(changes: dict[str, object]) -> None:
    ms = calibration._time_step(make_config("mlp", batch_size=4, **changes))
    assert ms is not None
    assert ms > 0


def test_a_gpu_is_not_guessed_at(planned: Plan, tmp_path: Path, pool: type[Pool]) -> None:
    assert calibrate([planned], Store(tmp_path), 1, "cuda") is None
    assert pool.timed == []


def test_ctrl_c_ends_the_pool_and_no_other_child_of_the_caller(
    planned: Plan, tmp_path: Path, pool: type[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait() -> Any:
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        process.start()
        return process

    ours, theirs = wait(), wait()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "_processes", {ours.pid: ours}, raising=False)
    monkeypatch.setattr(pool, "map", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            calibrate([planned], Store(tmp_path), 2, "cpu")
        ours.join(10)
        theirs.join(0.2)
        assert (ours.exitcode, theirs.exitcode) == (-signal.SIGKILL, None)
    finally:
        for process in (ours, theirs):
            process.kill()
            process.join()


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_step_without_memory_leaves_its_variant_out(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise failure

    monkeypatch.setattr("gan_ablate.training.loop.choose_step", refuse)
    assert calibration._time_step(make_config("mlp")) is None
