"""What answers in a second imports nothing slow, seen in real commands; which module may import which is linted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.features import warm
from tests.quick_worker import QUICK_START


@pytest.mark.slow
@pytest.mark.parametrize("command", [["--help"], ["list"], ["plan", "--grid", "essentials"], ["status"]])
def test_quick_commands_import_nothing_slow(command: list[str]) -> None:
    slow = {"torch", "pandas", "scipy", "matplotlib"}
    loaded = modules_loaded_by(command)
    assert not slow & loaded


@pytest.mark.slow
def test_the_report_imports_no_torch(tmp_path: Path) -> None:
    assert "torch" not in modules_loaded_by(["report", "--out", str(tmp_path)])


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


def modules_loaded_by(command: list[str]) -> set[str]:
    script = (
        "import sys\nfrom gan_ablate.cli.app import app\n"
        f"try:\n    app({command!r})\nexcept BaseException:\n    pass\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split())
