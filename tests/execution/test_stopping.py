"""The command line under signals, and beside another one on the same folder: as a user or a scheduler treats it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gan_ablate.execution.store import Store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

GRID = """
base = "mlp"
[factors.smoothing]
baseline = "off"
levels.off = {}
levels.on = { loss.real_label = 0.9 }
[budget.smoke]
steps = STEPS
seeds = 2
num_samples = 1280
[set]
scoring.curve_samples = 1280
scoring.curve_points = 2
"""


def start(folder: Path, steps: int, *options: str) -> subprocess.Popen[str]:
    (folder / "grid.toml").write_text(GRID.replace("STEPS", str(steps)))
    command = [sys.executable, "-m", "gan_ablate", "run", "--grid", "grid.toml", "--budget", "smoke", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=environment,
    )  # fmt: skip


def wait_for_training(folder: Path) -> None:
    """Wait until two runs have said how far they are."""
    deadline = time.monotonic() + 120
    while sum("it/s" in log.read_text() for log in folder.glob("results/runs/*/log.txt")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_children(pid: int) -> bool:
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                return True
    return False


def assert_nobody_is_left(process: subprocess.Popen[str]) -> None:
    """The command had a session of its own: its helper processes end with it, or right after it."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a child outlives its parent")


def test_one_signal_stops_at_checkpoints_and_the_same_command_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path, 100_000, "--jobs", "2")
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
    again = start(tmp_path, 100_000, "--jobs", "2")
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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes as Linux shows them")
def test_a_signal_before_anything_trains_is_as_quiet(tmp_path: Path) -> None:
    """While helper processes import, and the machine is timed; a terminal's signal reaches them all."""
    process = start(tmp_path, 100_000, "--jobs", "2")
    deadline = time.monotonic() + 60
    while not has_children(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    sent_at = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert out.splitlines()[-1] == "Stopped. The same command goes on where it was."
    assert time.monotonic() - sent_at < 8
    assert_nobody_is_left(process)


def test_two_commands_share_the_work_and_train_nothing_twice(tmp_path: Path) -> None:
    both = [start(tmp_path, 60, "--jobs", "1") for _ in range(2)]
    outs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    store = Store(tmp_path / "results")
    planned = store.load_plan("grid")
    assert len(list(store.records(planned))) == 4
    logs = [(store.run_dir(config.run_id) / "log.txt").read_text() for _, config in planned.runs]
    assert [log.count("on cpu: 60 steps") for log in logs] == [1, 1, 1, 1]
    assert [log.count(" completed\n") for log in logs] == [1, 1, 1, 1]
    for out, err in outs:
        assert out.count("[4/4]") == 1
        assert err == ""
