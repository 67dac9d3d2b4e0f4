from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_ablate.atomic_io import lease
from gan_ablate.design.external import ExternalConfig
from gan_ablate.errors import UserError
from gan_ablate.execution.context import RunContext, RunObserver
from gan_ablate.execution.executors import ASK_AGAIN_SEC, RunQueue
from gan_ablate.execution.executors.worker import check, compute, measure, measure_extractor
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from tests.configs import make_config


def test_inception_is_timed_without_its_weights(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in that takes 5 ms an image."""
    monkeypatch.setattr(
        "gan_ablate.scoring.extractors.build_untrained_inception",
        lambda _: lambda images: time.sleep(0.005 * len(images)),
    )
    counts = {"num_samples": 5_000, "curve_samples": 5_000}
    found = measure_extractor(make_config("mlp", scoring={"features": "inception", **counts}), context)
    assert found == pytest.approx(5, rel=0.5)


def ignore(_: str, __: object) -> None:
    pass


def test_a_run_that_another_command_has_is_left_to_it(context: RunContext) -> None:
    config, said = make_config(), list[str]()
    with lease(Store(Path(context.out)).lease_path(config.run_id)) as is_ours:
        assert is_ours
        assert compute(config, context, lambda kind, _: said.append(kind)) == ("busy", config)
    assert said == []


def test_a_run_that_another_command_has_done_is_taken_as_it_is(context: RunContext) -> None:
    config, said = make_config(), list[str]()
    known = Record(run_id=config.run_id, status="completed", config=config)
    Store(Path(context.out)).save_record(known)
    assert compute(config, context, lambda kind, _: said.append(kind)) == ("record", known)
    assert said == []


@pytest.mark.slow
def test_a_run_that_failed_is_tried_again(context: RunContext) -> None:
    config = make_config()
    Store(Path(context.out)).save_record(Record(run_id=config.run_id, status="failed", config=config))
    kind, record = compute(config, context, ignore)
    assert kind == "record"
    assert isinstance(record, Record)
    assert record.status == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["record.json", "step-000003.png"])
def test_a_full_disk_is_no_fault_of_the_run(context: RunContext, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """It would fail all others too; no record says that this one failed, and the next command goes on."""
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if target.name == place:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    kind, refused = compute(make_config(), context, ignore)
    assert kind == "refused"
    assert str(refused) == f"out={context.out!r}: No space left on device; the same command goes on"
    assert Store(Path(context.out)).load_record(make_config().run_id) is None
    assert not [path for path in Path(context.out).rglob(".*") if path.name != ".lease"]
    monkeypatch.undo()
    kind, _ = compute(make_config(), context, ignore)
    assert kind == "record"


def test_what_the_disk_refuses_stops_everything(tmp_path: Path) -> None:
    queue = RunQueue([], None, Store(tmp_path), RunObserver())
    with pytest.raises(UserError, match="No space"):
        list(queue.take_in("refused", UserError("No space"), make_config()))


def test_a_run_without_memory_is_tried_once_more_and_then_failed(tmp_path: Path) -> None:
    config = make_config()
    queue = RunQueue([], None, Store(tmp_path), RunObserver())
    failed = Record(run_id=config.run_id, status="failed", message="out of memory (too large)", config=config)
    assert list(queue.take_in("record", failed, config)) == []
    assert queue.next() == config
    assert list(queue.take_in("record", failed, config)) == [failed]
    assert not queue.has_work(is_idle=True)


def test_a_run_that_failed_otherwise_is_the_last_word(tmp_path: Path) -> None:
    config = make_config()
    queue = RunQueue([], None, Store(tmp_path), RunObserver())
    failed = Record(run_id=config.run_id, status="failed", message="ValueError: no", config=config)
    assert list(queue.take_in("record", failed, config)) == [failed]
    assert not queue.has_work(is_idle=True)


def test_a_run_whose_process_is_lost_twice_is_recorded_as_failed(tmp_path: Path) -> None:
    config = make_config()
    queue = RunQueue([], None, Store(tmp_path), RunObserver())
    assert list(queue.give_up(config, "gone")) == []
    assert queue.next() == config
    (record,) = queue.give_up(config, "gone again")
    assert (record.status, record.message) == ("failed", "gone again")
    assert Store(tmp_path).load_record(config.run_id) == record


def test_a_run_of_another_command_comes_back_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    first, second = make_config(), make_config(seed=1)
    queue = RunQueue([first, second], None, Store(tmp_path), RunObserver())
    assert queue.next() == first
    assert list(queue.take_in("busy", first, first)) == []
    assert queue.next() == second
    assert queue.next() is None
    assert queue.has_work(is_idle=True)
    now[0] = ASK_AGAIN_SEC
    assert queue.next() == first
    assert not queue.has_work(is_idle=True)


def test_more_is_asked_for_only_where_all_have_ended(tmp_path: Path) -> None:
    waves = [[make_config(seed=1)], []]
    queue = RunQueue([make_config()], lambda: waves.pop(0), Store(tmp_path), RunObserver())
    assert queue.has_work(is_idle=True)
    assert queue.next() == make_config()
    assert queue.has_work(is_idle=False)  # more may come
    assert len(waves) == 2
    assert queue.has_work(is_idle=True)
    assert queue.next() == make_config(seed=1)
    assert not queue.has_work(is_idle=True)
    assert waves == []


def fail_to_allocate_on_a_cpu(*_: object) -> None:
    torch.empty(10**15)


def fail_to_allocate_an_array(*_: object) -> None:
    np.empty(10**15)


def fail_to_allocate_on_a_gpu(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee documentation")


def fail_to_fork(*_: object) -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (fail_to_allocate_on_a_cpu, "can't allocate memory: you tried to allocate 4000000000000000 bytes"),
        (fail_to_allocate_an_array, "Unable to allocate 7.11 PiB"),
        (fail_to_allocate_on_a_gpu, "(CUDA out of memory. Tried to allocate 20.00 MiB.)"),
        (fail_to_fork, "Cannot allocate memory"),
    ],
)
def test_want_of_memory_is_said_alike_wherever_it_is_wanted(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, fail: Callable[..., None], reason: str
) -> None:
    monkeypatch.setattr("gan_ablate.execution.run.train", fail)
    kind, record = compute(make_config(), context, ignore)
    assert kind == "record"
    assert isinstance(record, Record)
    assert record.status == "failed"
    assert record.message.startswith("out of memory (")
    assert reason in record.message
    assert record.message.endswith("; valid: fewer --jobs, or a smaller run")
    assert "\n" not in record.message
    queue = RunQueue([], None, Store(Path(context.out)), RunObserver())
    assert list(queue.take_in(kind, record, record.config)) == []
    assert queue.next() == record.config


@pytest.mark.parametrize("changes", [{}, {"conditional": True, "num_classes": 10}])
def test_a_step_and_an_image_take_time(context: RunContext, changes: dict[str, object]) -> None:
    times = measure(make_config("mlp", batch_size=4, **changes), context)
    assert times is not None
    assert min(times) > 0


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_step_without_memory_has_no_time(
    context: RunContext, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise failure

    monkeypatch.setattr("gan_ablate.training.loop.choose_step", refuse)
    assert measure(make_config("mlp"), context) is None


def test_data_that_do_not_fit_into_memory_are_named(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan_ablate.execution.environment.find_dataset", fail_to_allocate_an_array)
    problem = check(make_config(), context)
    assert isinstance(problem, UserError)
    assert str(problem).startswith("dataset='mnist-10k': out of memory (Unable to allocate 7.11 PiB")


def make_script_run(seed: int, grid: str = "mine") -> ExternalConfig:
    scoring = {"features": "none", "num_samples": 2}
    content = {"command": ["x"], "samples": "x.npy", "code": f"{grid}@0", "seed": seed, "scoring": scoring}
    return ExternalConfig.model_validate(content)


def end(queue: RunQueue, run: ExternalConfig, message: str = "") -> list[Record]:
    status = "failed" if message else "completed"
    return list(queue.take_in("record", Record(run_id=run.run_id, status=status, message=message, config=run), run))  # type: ignore[arg-type]


def test_the_first_run_of_each_script_is_computed_alone(tmp_path: Path) -> None:
    first, second, third = (make_script_run(seed) for seed in range(3))
    other, trained = make_script_run(0, "other"), make_config()
    queue = RunQueue([first, second, third, other, trained], None, Store(tmp_path), RunObserver())
    assert [queue.next() for _ in range(4)] == [first, other, trained, None]
    assert queue.has_work(is_idle=False)
    assert len(end(queue, first)) == 1
    assert [queue.next() for _ in range(3)] == [second, third, None]


@pytest.mark.parametrize(
    "message",
    [
        "the program ended with exit code 2: train.py: error: unrecognized arguments: --bn on",
        "the program ended with exit code 1: ModuleNotFoundError: No module named 'wandb'",
        "the program ended, and left no x.npy in work/ (external.samples); it left no file there; valid: its files",
    ],
)
def test_a_fault_that_all_runs_of_a_script_share_ends_the_grid_after_the_first(tmp_path: Path, message: str) -> None:
    first, second = make_script_run(0), make_script_run(1)
    queue = RunQueue([first, second], None, Store(tmp_path), RunObserver())
    assert queue.next() == first
    with pytest.raises(UserError) as stopped:
        end(queue, first, message)
    assert str(stopped.value) == (
        "mine: the first run failed, and the others would fail alike, so they were not started: "
        f"{message}; in {tmp_path / 'runs' / first.run_id}"
    )


def test_another_fault_of_the_first_run_is_its_own(tmp_path: Path) -> None:
    first, second = make_script_run(0), make_script_run(1)
    queue = RunQueue([first, second], None, Store(tmp_path), RunObserver())
    assert queue.next() == first
    assert len(end(queue, first, "the program ended with exit code 1: ValueError: lr")) == 1
    assert queue.next() == second
    assert len(end(queue, second, "ModuleNotFoundError: No module named 'x'")) == 1  # it is not the first


def test_a_first_run_that_is_lost_is_tried_again_and_then_the_others(tmp_path: Path) -> None:
    first, second = make_script_run(0), make_script_run(1)
    queue = RunQueue([first, second], None, Store(tmp_path), RunObserver())
    assert queue.next() == first
    assert list(queue.give_up(first, "gone")) == []
    assert [queue.next(), queue.next()] == [first, None]
    assert len(list(queue.give_up(first, "gone"))) == 1
    assert queue.next() == second


def test_while_another_command_computes_the_first_run_the_others_start(tmp_path: Path) -> None:
    first, second = make_script_run(0), make_script_run(1)
    queue = RunQueue([first, second], None, Store(tmp_path), RunObserver())
    assert queue.next() == first
    assert list(queue.take_in("busy", first, first)) == []
    assert queue.next() == second


def test_a_first_run_that_did_not_start_is_no_trial(tmp_path: Path) -> None:
    first, second = make_script_run(0), make_script_run(1)
    queue = RunQueue([first, second], None, Store(tmp_path), RunObserver())
    assert queue.next() == first
    queue.put_back(first)
    assert [queue.next(), queue.next()] == [second, None]
