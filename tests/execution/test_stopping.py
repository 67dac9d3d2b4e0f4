"""The command line under signals, and beside another one on the same folder: as a user or a scheduler treats it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gan_ablate.execution.store import Store
from tests.execution.processes import list_processes, start_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")]
on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes as Linux shows them")


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tiny_grid: Path) -> Iterator[Start]:
    """Start a grid of so many steps, so many runs at once; end all that a test has started.

    The runs are not scored: that takes longer than all else.
    """
    text = tiny_grid.read_text("utf-8").replace('base = "mlp"', 'base = "mlp"\nset.scoring.features = "none"')
    tiny_grid.write_text(text, "utf-8")
    started: list[subprocess.Popen[str]] = []

    def start_grid(steps: int, jobs: int, *, is_timed: bool = False) -> subprocess.Popen[str]:
        options = ("--grid", tiny_grid.name, "--steps", str(steps), "--jobs", str(jobs))
        started.append(start_run(tiny_grid.parent, *options, is_timed=is_timed))
        return started[-1]

    yield start_grid
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_training(folder: Path) -> None:
    """Wait until two runs have said how far they are."""
    deadline = time.monotonic() + 120
    while sum("it/s" in log.read_text() for log in folder.glob("results/runs/*/log.txt")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_children(process: subprocess.Popen[str]) -> None:
    """Wait until the command has started helper processes, and give them time to import something."""
    deadline = time.monotonic() + 60
    while not any(one.parent == process.pid for one in list_processes()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)


def assert_nobody_is_left(process: subprocess.Popen[str], within_sec: float = 3) -> None:
    """The command had a session of its own: its helper processes end with it, or right after it."""
    deadline = time.monotonic() + within_sec
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a child outlives its parent")


def test_one_signal_stops_at_checkpoints_and_the_same_command_goes_on(tmp_path: Path, start: Start) -> None:
    process = start(100_000, 2)
    wait_for_training(tmp_path)
    process.send_signal(signal.SIGTERM)
    sent_at = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent_at < 8
    assert (process.returncode, err) == (143, "")
    assert out.splitlines()[-1] == "Stopped. The same command goes on where it was."
    assert_nobody_is_left(process)
    assert len(list((tmp_path / "results").rglob("*.checkpoint"))) == 2
    assert not list((tmp_path / "results").rglob("record.json"))
    again = start(100_000, 2)
    deadline = time.monotonic() + 60
    while not all("goes on from step" in log.read_text() for log in tmp_path.glob("results/runs/*/log.txt")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(again.pid, signal.SIGINT)  # as a terminal does it: to all processes
    time.sleep(0.1)
    os.killpg(again.pid, signal.SIGINT)
    out, err = again.communicate(timeout=60)
    assert (again.returncode, err) == (130, "")
    assert_nobody_is_left(again)


@on_linux
def test_a_signal_before_anything_trains_is_as_quiet(start: Start) -> None:
    """While helper processes import, and the machine is timed; a terminal's signal reaches them all."""
    process = start(100_000, 2, is_timed=True)
    wait_for_children(process)
    os.killpg(process.pid, signal.SIGINT)
    sent_at = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert out.splitlines()[-1] == "Stopped. The same command goes on where it was."
    assert time.monotonic() - sent_at < 8
    assert_nobody_is_left(process)


@on_linux
def test_helpers_end_with_a_command_that_is_killed(start: Start) -> None:
    """While the machine is timed: a pool's processes would wait for ever for what is to be timed next."""
    process = start(100_000, 2, is_timed=True)
    wait_for_children(process)
    process.kill()
    process.communicate(timeout=60)
    assert_nobody_is_left(process, within_sec=60)  # some are still importing


def test_two_commands_share_the_work_and_train_nothing_twice(tmp_path: Path, start: Start) -> None:
    both = [start(60, 1, is_timed=is_timed) for is_timed in (False, True)]
    outs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    store = Store(tmp_path / "results")
    planned = store.load_plan("tiny")
    assert len(list(store.records(planned))) == 4
    logs = [(store.run_dir(config.run_id) / "log.txt").read_text() for _, config in planned.runs]
    assert [log.count("on cpu: 60 steps") for log in logs] == [1, 1, 1, 1]
    assert [log.count(" completed\n") for log in logs] == [1, 1, 1, 1]
    for out, err in outs:
        assert out.count("[4/4]") == 1
        assert err == ""
