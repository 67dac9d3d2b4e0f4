"""What the README shows must be true."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gan_ablate.design.grid import load_grid
from gan_ablate.design.planning import plan
from gan_ablate.design.study import load_grids

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
    assert [(c.trained.latent_dim, c.trained.init.kind) for c in cells] == [
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
    names = re.findall(r"--grid (\S+)", line)
    assert names
    load_grids([name for name in names if not name.endswith(".toml")])


ANCHORS = {
    "design/objective.py": "Penalty = Annotated[",
    "design/networks.py": "Activation = Annotated[",
    "training/penalties.py": '        case "gradient":',
    "training/models/layers.py": '        case "leaky_relu":',
}
"""Before what a chunk of the README goes, in the file that it names."""

PROGRAM = """
import torch
from gan_ablate.design.planning import plan
from gan_ablate.design.grid import load_grid
from gan_ablate.training.train import Trainer
for cell in plan(load_grid("new.toml"), budget="smoke").cells:
    config = cell.config.model_copy(update={"batch_size": 4})
    row = Trainer(config, torch.zeros(9, 1, 28, 28, dtype=torch.uint8)).step()
    print(cell.label, config.run_id, bool(row.loss_d.isfinite() and row.loss_g.isfinite()))
"""


def test_a_mechanism_is_added_as_it_says(tmp_path: Path) -> None:
    """A level, a penalty and an activation: the README's lines in a copy of the package, and a grid that uses them."""
    package = tmp_path / "gan_ablate"
    shutil.copytree(ROOT / "gan_ablate", package, ignore=shutil.ignore_patterns("__pycache__"))
    for code in re.findall(r"```py\n(.*?)```", README, re.DOTALL):
        assert len(code.splitlines()) < 10
        for file, header, chunk in re.findall(
            r"^# gan_ablate/(\S+), (.*)\n((?:(?!# gan_ablate).*\n)*)", code, re.MULTILINE
        ):
            path = package / file
            text = path.read_text("utf-8")
            text = text.replace(ANCHORS[file], f"{chunk}\n{ANCHORS[file]}", 1)
            member = re.search(r"behind (\w+): (\| \w+)", header)
            if member is not None:
                head, anchor, tail = text.partition(ANCHORS[file])
                text = head + anchor + tail.replace(member[1], f"{member[1]} {member[2]}", 1)
            path.write_text(text, "utf-8")
    (level,) = re.findall(r"One more level is one more line: `(.*?)`", README)
    (tmp_path / "new.toml").write_text(
        f"""
        base = "dcgan-28"
        design = "one-at-a-time"
        [factors.new]
        baseline = "none"
        levels.none = {{}}
        levels.drift = {{ penalty = "drift" }}
        levels.silu = {{ generator.activation = "silu" }}
        {level}
        """,
        "utf-8",
    )
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["baseline", "new drift", "new silu", "new uniform"]
    assert all(row[2] == "True" for row in rows)
    assert len({row[1] for row in rows}) == 4
