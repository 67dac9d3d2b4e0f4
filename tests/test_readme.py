"""What the README shows must be true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gan_ablate.design.grid import load_grid
from gan_ablate.design.planning import plan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(found)


def test_the_python_example_runs(tmp_path: Path) -> None:
    code = block("python").replace('budget="smoke"', 'budget="smoke", steps=10')
    assert len(block("python").splitlines()) <= 12
    (tmp_path / "example.py").write_text(code, "utf-8")
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0\.9 +[\d.]+ +[\d.]+$", done.stdout, re.MULTILINE)


def test_the_grid_file_plans(tmp_path: Path) -> None:
    path = tmp_path / "latent.toml"
    path.write_text(block("toml"), "utf-8")
    cells = plan(load_grid(path)).cells
    assert [(c.config.latent_dim, c.config.init.kind) for c in cells] == [
        (100, "normal"), (100, "default"), (10, "normal"), (10, "default"),
    ]  # fmt: skip


def test_the_two_commands_are_on_the_first_screen() -> None:
    first_screen = "\n".join(README.splitlines()[:24])
    assert 'python -m pip install "nox[uv]" && nox -s ablate -- --grid bn_label_smooth' in first_screen
    assert 'python -m pip install "nox[uv]" && nox -s tests' in first_screen


def test_every_file_that_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("line", [line for line in README.splitlines() if line.strip().startswith("nox -s ablate")])
def test_every_shipped_grid_that_it_names_is_there(line: str) -> None:
    name = re.search(r"--grid (\S+)", line)
    assert name is not None
    if not name[1].endswith(".toml"):
        load_grid(name[1])
