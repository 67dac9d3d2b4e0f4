from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import command
from gan_ablate.errors import UserError

MODULES = (
    "assets", "calibration", "callouts", "certainty", "chaos", "extractors", "gpu", "levels", "printed", "simulations",
    "speed", "startup",
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_every_program_lists_its_options(module: str) -> None:
    app = command.build_app(importlib.import_module(f"bench.{module}").main)
    shown = CliRunner().invoke(app, ["--help"], env={"NO_COLOR": "1"})
    assert shown.exit_code == 0
    assert "Usage:" in shown.stdout


@pytest.mark.slow
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.speed", "--subject", "mpl", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: --subject mpl: no such subject; did you mean mlp? valid: mlp, ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_program_itself_is_not_hidden() -> None:
    def broken() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        command.build_app(broken)([])


def test_a_user_error_ends_the_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise UserError("--out: valid: a folder")

    monkeypatch.setattr("sys.argv", ["refuse"])
    with pytest.raises(SystemExit) as ended:
        command.run(refuse)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --out: valid: a folder\n"
