"""What answers in a second imports nothing slow, seen in real commands; which module may import which is linted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.features import warm
from tests.quick_worker import QUICK_START

QUICK: list[list[str]] = [["--help"], ["list"], ["plan", "--grid", "essentials"], ["status"]]
"""One after the other in one process, to which each adds what it imports."""


@pytest.mark.slow
def test_quick_commands_import_nothing_slow() -> None:
    slow = {"torch", "pandas", "scipy", "matplotlib"}
    for command, loaded in zip(QUICK, modules_loaded_by(*QUICK), strict=True):
        assert not slow & loaded, command


@pytest.mark.slow
def test_the_report_imports_no_torch(tmp_path: Path) -> None:
    (loaded,) = modules_loaded_by(["report", "--out", str(tmp_path)])
    assert "torch" not in loaded


@pytest.mark.slow
def test_process_that_waits_for_workers_imports_no_torch(tiny_grid: Path) -> None:
    warm(Path("out"))
    script = (
        f"{QUICK_START}from gan_ablate import load_grid, plan, run_grid\n"
        f"run_grid(plan(load_grid({str(tiny_grid)!r}), budget='smoke', seeds=1), 'out')\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
    assert done.stderr == ""  # also of the process that workers are forked from, which ends last


@pytest.mark.slow
def test_a_worker_trains_and_scores_with_what_its_server_imported(tiny_grid: Path) -> None:
    warm(Path("out"))
    script = f"""
import gc, sys
import gan_ablate.execution.executors.preload
from gan_ablate import load_grid, plan
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.executors import worker
from gan_ablate.scoring import metrics

metrics.KID_SUBSETS = 2
context = RunContext(out="out", data_dir="data")
run = plan(load_grid({str(tiny_grid)!r}), budget="smoke", seeds=1).variants[0].with_seed(0)
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
before = set(sys.modules)
_, record = worker.compute(run, context, lambda *_: None)
print(record.status, *(name for name in sys.modules if name not in before))
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    collector, (status, *late) = (line.split() for line in output.splitlines())
    assert collector == ["True", "True"]
    assert status == "completed"
    # All else would be imported by every worker for itself; Pillow loads its formats with the first picture.
    assert {name.partition(".")[0] for name in late} <= {"PIL", "encodings", "gan_ablate", "importlib", "numpy"}


def modules_loaded_by(*commands: list[str]) -> list[set[str]]:
    """The modules that are loaded behind each of some commands."""
    script = (
        f"{QUICK_START}from gan_ablate.cli.app import app\nfor command in {commands!r}:\n"
        "    try:\n        app(command)\n    except BaseException:\n        pass\n"
        "    print('\\nLOADED ' + ' '.join(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return [set(line.split()[1:]) for line in output.splitlines() if line.startswith("LOADED ")]
