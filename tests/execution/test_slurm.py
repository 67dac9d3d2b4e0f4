"""submitit's own local executor in the ordinary tests, where it is installed; a real Slurm in ``nox -s slurm``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gan_ablate.errors import UserError
from gan_ablate.execution.context import Progress, RunContext, RunObserver
from gan_ablate.execution.store import Store
from tests.configs import make_config
from tests.execution.observers import Killer, Recorder
from tests.execution.untimed import compute_alone, untimed_by_id

submitit = pytest.importorskip("submitit", reason="needs the extra: pip install gan-ablate[slurm]")

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HAS_SLURM = (
    shutil.which("sinfo") is not None and subprocess.run(["sinfo"], check=False, capture_output=True).returncode == 0
)


@pytest.fixture(autouse=True)
def quick_kid() -> None:
    """Compute KID over all subsets: a job's process does."""


def test_jobs_leave_the_records_of_local_runs(tmp_path: Path) -> None:
    from gan_ablate.execution.executors.slurm import PROGRESS_FILE, run_slurm

    configs = [make_config("mlp", seed=seed, steps=200) for seed in range(3)]
    observer = Recorder()
    context = RunContext(out=str(tmp_path / "jobs"), data_dir="d")
    records = list(run_slurm(configs, context, 2, observer, cluster="local"))
    assert untimed_by_id(records) == compute_alone(configs, tmp_path / "local")
    assert sorted(event for event in observer.events if "finished" in event) == [f"finished {n}" for n in range(3)]
    assert min(observer.steps, default=1) > 0
    assert list((tmp_path / "jobs" / "slurm").rglob("*.out"))
    assert not list((tmp_path / "jobs").rglob(PROGRESS_FILE))


def test_a_job_that_is_killed_is_tried_once_more(tmp_path: Path) -> None:
    from gan_ablate.execution.executors.slurm import run_slurm

    def kill_job(progress: Progress) -> bool:
        if progress.step <= 50:
            return False
        found = subprocess.run(["pgrep", "-f", f"submitit.*{tmp_path}"], check=False, capture_output=True, text=True)
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        return True

    observer = Killer(kill_job)
    context = RunContext(out=str(tmp_path / "jobs"), data_dir="d", checkpoint_sec=0.1)
    (record,) = run_slurm([make_config("mlp", steps=2_000)], context, None, observer, cluster="local")
    assert record.status == "completed"
    assert len(observer.notes) == 1
    assert "ended without a result" in observer.notes[0]
    assert "goes on from step" in (Store(tmp_path / "jobs").run_dir(record.run_id) / "log.txt").read_text()


def test_a_setting_that_is_none_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_ablate.execution.executors.slurm import run_slurm

    context = RunContext(out=str(tmp_path / "out"), data_dir="d")
    with pytest.raises(UserError, match=r"slurm: .*prtition"):
        run_slurm([make_config()], context, None, RunObserver(), settings={"prtition": "x"}, cluster="local")


def test_without_slurm_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_ablate.execution.executors.slurm import run_slurm

    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="executor='slurm': no sbatch on this machine"):
        run_slurm([make_config()], RunContext(out=str(tmp_path / "out"), data_dir="d"), None, RunObserver())
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not HAS_SLURM, reason="no Slurm runs here; nox -s slurm sets one up")
def test_a_real_slurm_computes_an_array_and_requeues_what_it_preempts(tmp_path: Path) -> None:
    from gan_ablate.execution.executors.slurm import run_slurm

    def preempt(progress: Progress) -> bool:
        if progress.step <= 100:
            return False
        jobs = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], check=True, capture_output=True, text=True)
        subprocess.run(["scontrol", "requeue", jobs.stdout.split()[0]], check=True)
        return True

    configs: list[Any] = [make_config("mlp", seed=seed, steps=1_000) for seed in range(3)]
    observer = Killer(preempt)
    context = RunContext(out=str(tmp_path / "jobs"), data_dir="d", checkpoint_sec=0.2)
    records = list(run_slurm(configs, context, None, observer, settings={"time": "10"}))
    assert [record.status for record in records] == ["completed"] * 3
    assert untimed_by_id(records) == compute_alone(configs, tmp_path / "local")
    logs = [(Store(tmp_path / "jobs").run_dir(config.run_id) / "log.txt").read_text() for config in configs]
    assert sum("goes on from step" in log for log in logs) == 1
