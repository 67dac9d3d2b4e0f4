"""GPUs of a machine, without any: which names are chosen, and what stand-in workers are given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gan_ablate.errors import UserError
from gan_ablate.execution.context import Compute, RunContext
from gan_ablate.execution.executors import local
from gan_ablate.execution.executors.gpus import MAX_LOST, VISIBLE, Assignment, choose_gpus, list_visible
from gan_ablate.execution.executors.local import resolve_jobs, run_local
from gan_ablate.execution.store import Store
from tests.configs import make_config
from tests.execution.observers import Recorder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from gan_ablate.design.external import AnyConfig


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0,1,2", ["0", "1", "2"]),
        ("2, 0", ["2", "0"]),
        ("GPU-8932f937,MIG-GPU-b2/5/0", ["GPU-8932f937", "MIG-GPU-b2/5/0"]),
        ("1,-1,0", ["1"]),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_visible_gpus_are_those_that_cuda_shows(
    monkeypatch: pytest.MonkeyPatch, listed: str, expected: list[str]
) -> None:
    monkeypatch.setenv(VISIBLE, listed)
    assert list_visible() == expected


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", []), ("cuda", ["7", "3", "5"]), ("cuda:1", ["3"]), ("cuda:2,cuda:0", ["5", "7"])],
)
def test_devices_choose_among_visible_gpus(monkeypatch: pytest.MonkeyPatch, device: str, expected: list[str]) -> None:
    monkeypatch.setenv(VISIBLE, "7,3,5")
    assert choose_gpus(device) == expected
    if device != "cpu":
        assert resolve_jobs(None, device) == len(expected)
    assert Compute(device=device).device == device


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "7,3")
    with pytest.raises(UserError, match="device='cuda:0,cuda:4': this machine shows 2; valid: cuda:0, cuda:1"):
        choose_gpus("cuda:0,cuda:4")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda:0,cuda:0", "a GPU is named twice; valid: each once"),
        ("cuda,cuda:1", "not supported; valid: cpu, cuda, cuda:0, cuda:0,cuda:2"),
        ("cpu,cuda:1", "not supported"),
    ],
)
def test_lists_of_devices_that_make_no_sense_are_refused(device: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Compute(device=device)


def test_a_cluster_takes_one_device() -> None:
    with pytest.raises(UserError, match="not supported"):
        Compute(device="cuda:0,cuda:1", executor="ray")


def test_workers_take_turns_and_lost_runs_change_places() -> None:
    gpus, run, other = Assignment(["a", "b"]), make_config(seed=0), make_config(seed=1)
    served = {"a", "b"}
    assert [gpus.of_worker(number) for number in range(5)] == ["a", "b", "a", "b", "a"]
    gpus.lost("a", run)
    assert [gpus.accepts(gpu, run, served) for gpu in ("a", "b")] == [False, True]
    assert gpus.accepts("a", other, served)
    assert gpus.accepts("a", run, {"a"})  # no other one is left
    assert Assignment([]).of_worker(3) is None


def test_a_gpu_that_loses_several_runs_in_a_row_is_given_up_unless_all_do() -> None:
    gpus, served = Assignment(["a", "b"]), {"a", "b"}
    gpus.lost("a", make_config(seed=0))
    gpus.finished("a")
    for seed in range(MAX_LOST):
        assert not gpus.is_given_up("a", served)
        gpus.lost("a", make_config(seed=seed))
    assert gpus.is_given_up("a", served)
    assert not gpus.is_given_up("a", {"a"})
    for seed in range(MAX_LOST):
        gpus.lost("b", make_config(seed=seed))
    assert not gpus.is_given_up("a", served)


def serve(pipe: Connection, context: RunContext, core: int | None, gpu: str | None = None) -> None:
    """Stand in for a worker: note the GPU of each run. On ``lost`` it ends at once, on ``full`` it has no memory."""
    assert core is None
    store = Store(Path(context.out))
    while True:
        try:
            task, config = pipe.recv()
        except (EOFError, OSError):
            return
        if task == "check":
            pipe.send(("checked", None))
            continue
        with (Path(context.out) / "given.txt").open("a") as given:
            given.write(f"{config.seed} {gpu}\n")
        pipe.send(("started", config))
        if gpu == "lost":
            os._exit(1)
        message = "out of memory (stand-in)" if gpu == "full" else "computed by the stand-in"
        pipe.send(("record", store.save_failure(config, message)))


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["lost", "full"])
def test_four_runs_on_two_gpus_of_which_one_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    """Its run is tried again on the other GPU, and no run is lost."""
    monkeypatch.setenv(VISIBLE, f"good,{bad}")
    monkeypatch.setattr(local, "serve", serve)
    context = RunContext(data_dir="data", out=str(tmp_path), device="cuda")
    configs: list[AnyConfig] = [make_config("mlp", seed=seed) for seed in range(4)]
    recorder: Any = Recorder()
    records = list(run_local(configs, context, resolve_jobs(None, "cuda"), recorder))
    assert sorted(record.config.seed for record in records) == [0, 1, 2, 3]
    assert {record.message for record in records} == {"computed by the stand-in"}
    given = [tuple(line.split()) for line in (tmp_path / "given.txt").read_text().splitlines()]
    lost = [seed for seed, gpu in given if gpu == bad]
    assert 1 <= len(lost) <= MAX_LOST
    assert {seed for seed, gpu in given if gpu == "good"} == {"0", "1", "2", "3"}
    assert len(given) == 4 + len(lost)
