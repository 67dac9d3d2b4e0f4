from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest

from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.design.user_code import UserCode
from gan_ablate.errors import UserError
from gan_ablate.execution.context import RunContext, RunObserver
from gan_ablate.execution.executors import local, worker
from gan_ablate.execution.executors.local import _cores_of_workers, measure_steps, resolve_jobs, run_local
from gan_ablate.execution.executors.worker import start_process
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from tests.configs import make_config
from tests.execution.observers import Killer, Recorder, signal_worker_of
from tests.execution.untimed import untimed_by_id
from tests.features import warm


@pytest.mark.slow
def test_runs_have_the_same_bits_alone_and_beside_others(tmp_path: Path) -> None:
    configs = [make_config("mlp", seed=seed) for seed in range(3)]
    alone, beside = (
        list(run_local(order, RunContext(out=str(warm(tmp_path / f"{jobs}")), data_dir="d"), jobs, RunObserver()))
        for jobs, order in ((1, configs), (2, configs[::-1]))
    )
    assert [record.status for record in alone + beside] == ["completed"] * 6
    assert untimed_by_id(alone) == untimed_by_id(beside)


@pytest.mark.slow
def test_one_worker_serves_runs_in_the_order_given(context: RunContext) -> None:
    recorder = Recorder()
    list(run_local([make_config("mlp", seed=seed) for seed in (2, 0)], context, 1, recorder))
    assert recorder.events == ["started 2", "finished 2", "started 0", "finished 0"]


@pytest.mark.slow
def test_a_run_whose_worker_dies_is_tried_once_more(context: RunContext) -> None:
    configs = [make_config("mlp", seed=0, steps=150, batch_size=8), make_config("mlp", seed=1)]
    killer = Killer(signal_worker_of(configs[0]))
    records = {r.config.seed: r for r in run_local(configs, context, 1, killer)}
    assert [records[seed].status for seed in (0, 1)] == ["completed", "completed"]
    assert killer.notes == ["0: the worker process died (signal SIGKILL; out of memory?); it is tried once more"]
    assert killer.events == ["started 0", "started 0", "finished 0", "started 1", "finished 1"]


@pytest.mark.slow
def test_a_run_whose_worker_dies_twice_costs_itself_only(context: RunContext) -> None:
    configs = [make_config("mlp", seed=0, steps=100_000), make_config("mlp", seed=1)]
    records = {r.config.seed: r for r in run_local(configs, context, 1, Killer(signal_worker_of(configs[0]), 2))}
    assert records[0].status == "failed"
    assert "SIGKILL" in records[0].message
    assert records[1].status == "completed"
    assert not Store(Path(context.out)).is_done(configs[0].run_id)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_worker_that_another_process_stops_costs_nothing(context: RunContext) -> None:
    """It leaves a checkpoint; its end is no crash, however often."""
    configs = [make_config("mlp", seed=0, steps=600, batch_size=8), make_config("mlp", seed=1)]
    stopper = Killer(signal_worker_of(configs[0], signal.SIGTERM), 2)
    records = {r.config.seed: r for r in run_local(configs, context, 1, stopper)}
    assert [records[seed].status for seed in (0, 1)] == ["completed", "completed"]
    assert (stopper.left, stopper.notes) == (0, [])
    log = (Store(Path(context.out)).run_dir(configs[0].run_id) / "log.txt").read_text()
    assert log.count("goes on from step") == 2


@pytest.mark.slow
def test_missing_data_stops_everything_before_it_starts(context: RunContext) -> None:
    config = make_config(dataset="folder:gone@0", scoring={"features": "none"})
    with pytest.raises(UserError, match="folder:gone@0"):
        run_local([config], context, 2, RunObserver())
    assert not (Path(context.out) / "runs").exists()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_leaving_early_takes_the_workers_along(context: RunContext) -> None:
    configs = [make_config("mlp", seed=seed, steps=10 if seed == 0 else 100_000) for seed in range(3)]
    records = run_local(configs, context, 2, RunObserver())
    next(iter(records))
    records.close()
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no process")
def test_runs_that_fill_the_machine_have_a_core_each(context: RunContext) -> None:
    cores = sorted(os.sched_getaffinity(0))
    assert _cores_of_workers(context, len(cores)) == cores
    assert _cores_of_workers(context, len(cores) + 1) == [None] * (len(cores) + 1)
    assert _cores_of_workers(context.model_copy(update={"device": "cuda"}), len(cores)) == [None] * len(cores)


def test_as_many_runs_as_cores_and_one_on_a_gpu() -> None:
    assert resolve_jobs(None, "cuda") == 1
    assert 1 <= resolve_jobs(None, "cpu") <= (os.cpu_count() or 1)
    assert resolve_jobs(7, "cuda") == 7


def test_scripts_run_one_at_a_time_where_they_would_find_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = 'command = ["train", "{x}", "{seed}"]\nsamples = "a.npy"'
    grid = tmp_path / "mine.toml"
    grid.write_text(f'[external]\n{command}\n[factors.x]\nbaseline = "a"\nlevels.a = {{}}\nlevels.b = {{}}', "utf-8")
    script, ours = plan(load_grid(grid), allow_code=True), plan(load_grid("beta1"))
    monkeypatch.setattr(local, "has_gpu", lambda: False)
    everywhere = resolve_jobs(None, "cpu")
    assert resolve_jobs(None, "cpu", [script]) == everywhere
    monkeypatch.setattr(local, "has_gpu", lambda: True)
    assert resolve_jobs(None, "cpu", [ours, script]) == 1
    assert resolve_jobs(None, "cpu", [ours]) == everywhere
    assert resolve_jobs(4, "cpu", [script]) == 4


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_is_none(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not local.has_gpu()


class _Stub:
    """Stands in for a worker's process and pipe."""

    def send(self, _: object) -> None:
        pass

    def kill(self) -> None:
        pass

    def join(self) -> None:
        pass


@pytest.mark.parametrize("first_wave", [1, 4])
def test_all_workers_stay_while_more_runs_may_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_wave: int
) -> None:
    """A grid that is settled seed by seed may go on with a single missing run; the next seed needs every worker."""
    busiest: list[int] = []

    def receive(worker: Any, workers: list[Any], *_: object) -> Iterator[Record]:
        if worker.run is not None:
            busiest[-1] = max(busiest[-1], sum(other.run is not None for other in workers))
            config, worker.run = worker.run, None
            yield Record(run_id=config.run_id, status="completed", config=config)

    def more() -> list[RunConfig]:
        busiest.append(0)
        return [make_config(seed=seed) for seed in range(4)] if len(busiest) < 3 else []

    stub: Any = _Stub()
    monkeypatch.setattr(local, "_start_worker", lambda _, core, __: local._Worker(stub, stub, core, None))
    monkeypatch.setattr(local, "_check_first", lambda *_: None)
    monkeypatch.setattr(local, "_receive", receive)
    monkeypatch.setattr(local, "_stop", lambda _: None)
    monkeypatch.setattr("gan_ablate.execution.executors.local.connection.wait", lambda *_: None)
    busiest.append(0)
    context = RunContext(out=str(tmp_path), data_dir="data")
    configs = [make_config(seed=seed) for seed in range(first_wave)]
    records = list(run_local(configs, context, 3, RunObserver(), more))
    assert len(records) == first_wave + 4
    assert busiest == [min(first_wave, 3), 3, 0]


@pytest.mark.slow
def test_a_worker_that_a_real_time_signal_ends_costs_its_run_only(context: RunContext) -> None:
    config = make_config("mlp", seed=0, steps=150, batch_size=8)
    signaller = Killer(signal_worker_of(config, signal.SIGRTMIN + 3))
    (record,) = run_local([config], context, 1, signaller)
    assert record.status == "completed"
    assert signaller.notes == ["0: the worker process died (signal SIGRTMIN+3); it is tried once more"]


@pytest.mark.slow
def test_an_interrupt_while_steps_are_timed_ends_the_workers_only(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
    other.start()
    monkeypatch.setattr(local, "_measure_on", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            measure_steps({"a": make_config("mlp"), "b": make_config("mlp")}, {}, context, 2, 60.0, RunObserver())
        assert multiprocessing.active_children() == [other]
    finally:
        other.kill()
        other.join()


def test_a_step_that_fails_has_no_time_and_the_others_have(context: RunContext) -> None:
    broken = make_config("mlp").model_copy(update={"batch_size": 10**9})  # no machine has the memory
    measured = measure_steps(
        {"broken": broken, "sound": make_config("mlp", batch_size=4)}, {}, context, 1, 60.0, Recorder()
    )
    assert list(measured.steps) == ["broken", "sound"]
    assert measured.steps["broken"] is None
    assert measured.steps["sound"] is not None


EYES = """
import time
from torch.nn import functional

def embed(images, sec):
    time.sleep(sec * len(images))
    return functional.adaptive_avg_pool2d(images, 2).flatten(1)
"""


@pytest.mark.slow
def test_extractors_are_timed_by_the_image_and_one_that_takes_too_long_is_left_out(
    context: RunContext, tmp_path: Path
) -> None:
    (tmp_path / "timed_eyes.py").write_text(EYES)
    code = UserCode(tmp_path, is_allowed=True)

    def scored_by(sec: float) -> RunConfig:
        part = {"kind": "module", "path": "timed_eyes:embed", "sec": sec}
        features = code.complete_extractor(part, "test")
        return make_config("mlp", scoring={"features": features, "num_samples": 100, "curve_samples": 100})

    configs = {"fast": scored_by(0.01), "slow": scored_by(9.0)}
    allowed = context.model_copy(update={"folders": code.paths})
    start_process(int).join()  # what a worker imports takes no part of the time below
    measured = measure_steps({"a": make_config("mlp", batch_size=4)}, configs, allowed, 2, 8.0, Recorder())
    assert list(measured.extractor_ms) == ["fast"]
    assert measured.extractor_ms["fast"] == pytest.approx(10, rel=0.5)
    assert list(measured.steps) == ["a"]  # by the worker in the slow one's place
    assert multiprocessing.active_children() == []


def test_measuring_ends_in_time_whatever_a_step_takes(context: RunContext) -> None:
    ours, theirs = multiprocessing.Pipe()  # nobody answers
    worker = local._Worker(multiprocessing.Process(), ours, None, None)
    recorder, started_at = Recorder(), time.perf_counter()
    assert local._measure_on([worker], {"a": make_config("mlp")}, started_at + 0.2, recorder) == {}
    assert 0.1 < time.perf_counter() - started_at < 5
    assert theirs.recv()[0] == "measure"


@pytest.mark.slow
def test_measuring_and_loading_say_how_far_they_are(context: RunContext) -> None:
    recorder = Recorder()
    measure_steps({"a": make_config("mlp"), "b": make_config("mlp")}, {}, context, 2, 60.0, recorder)
    local.check_local([make_config("mlp")], context, recorder)
    timing = "Timing some steps of every variant on this machine"
    assert recorder.prepared == [
        *((timing, done, 2) for done in range(3)),
        ("Starting a worker process", 0, 1),
        ("Loading mnist-10k", 0, 1),
    ]
    assert multiprocessing.active_children() == []


def test_the_caller_stays_as_it_was_and_its_script_runs_once(tmp_path: Path) -> None:
    """In a process of its own: what its fork server preloads, and whether it runs, before and after a worker starts."""
    (tmp_path / "script.py").write_text("""
import multiprocessing
from multiprocessing import forkserver, spawn

print("the script runs", flush=True)
multiprocessing.set_forkserver_preload(["json"])
from gan_ablate.execution.executors import worker

before = spawn.get_preparation_data
process = worker.start_process(print, "from a worker")
process.join()
theirs = forkserver._forkserver
print(process.exitcode, theirs._preload_modules, theirs._forkserver_pid, multiprocessing.get_start_method(True))
print(forkserver.connect_to_new_process == theirs.connect_to_new_process, spawn.get_preparation_data == before)
worker.kill_server()
""")
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["the script runs", "from a worker", "0 ['json'] None None", "True True"]


def test_processes_of_other_threads_still_get_the_callers_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that start while ours do, which takes seconds the first time."""
    told: dict[str, dict[str, Any]] = {}

    class Started:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            prepare = spawn.get_preparation_data
            told["ours"] = prepare("ours")
            other = threading.Thread(target=lambda: told.update(theirs=prepare("theirs")))
            other.start()
            other.join()

    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("script", None))
    monkeypatch.setattr(worker._CONTEXT, "Process", Started)
    monkeypatch.setattr(worker, "_start_server", lambda: None)
    start_process(int)
    assert "init_main_from_name" not in told["ours"]
    assert told["theirs"]["init_main_from_name"] == "script"


def test_a_grid_whose_module_starts_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    with pytest.raises(UserError, match=r'names this file as its module, put .* behind if __name__ == "__main__":'):
        start_process(int)
