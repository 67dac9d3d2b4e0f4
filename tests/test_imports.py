"""What answers in a second imports nothing slow, seen in real commands; which module may import which is linted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
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


SLOW_IN_A_WORKER = {"torchvision", "torchmetrics", "scipy", "pandas", "matplotlib", "sklearn"}


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
print(*sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    collector, (status, *late), loaded = (line.split() for line in output.splitlines())
    assert collector == ["True", "True"]
    assert status == "completed"
    assert not SLOW_IN_A_WORKER & set(loaded)
    # All else would be imported by every worker for itself; Pillow loads its formats with the first picture.
    assert {name.partition(".")[0] for name in late} <= {"PIL", "encodings", "gan_ablate", "importlib", "numpy"}


@pytest.mark.slow
def test_scoring_a_set_imports_no_compiler_and_no_figures(tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 256, (1_280, 28, 28), np.uint8))
    loaded = modules_loaded_by(["score", str(tmp_path / "noise.npy"), "--to", str(tmp_path / "scores.csv")])
    assert (tmp_path / "scores.csv").exists()
    assert not (SLOW_IN_A_WORKER - {"pandas"} | {"torch._dynamo", "sympy"}) & loaded


def modules_loaded_by(*commands: list[str]) -> list[set[str]]:
    """The modules that are loaded behind each of some commands."""
    script = (
        f"import sys\nfrom gan_ablate.cli.app import app\nfor command in {commands!r}:\n"
        "    try:\n        app(command)\n    except BaseException:\n        pass\n"
        "    print('\\nLOADED ' + ' '.join(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return [set(line.split()[1:]) for line in output.splitlines() if line.startswith("LOADED ")]
