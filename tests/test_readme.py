"""What the README shows must be true."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_ablate import score_images
from gan_ablate.analysis.table import load_results
from gan_ablate.design.grid import load_grid, load_grids
from gan_ablate.design.plan import plan
from gan_ablate.training.data import load_dataset
from tests.calls import call
from tests.features import warm
from tests.quick_worker import QUICK_START

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


SECTIONS = {text.partition("\n")[0]: text for text in README.split("\n## ")}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    (shown,) = blocks("From Python", "python")
    assert len(shown.splitlines()) <= 12
    warm(tmp_path / "results")
    code = QUICK_START + shown.replace('budget="smoke"', 'budget="smoke", steps=10')
    (tmp_path / "example.py").write_text(code, "utf-8")
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0\.9 +[\d.]+ +[\d.]+$", done.stdout, re.MULTILINE)


def test_the_grid_file_plans(tmp_path: Path) -> None:
    path = tmp_path / "latent.toml"
    (shown,) = blocks("Your own question", "toml")
    path.write_text(shown, "utf-8")
    variants = plan(load_grid(path)).variants
    assert [(c.trained.latent_dim, c.trained.init.kind) for c in variants] == [
        (100, "normal"), (100, "default"), (10, "normal"), (10, "default"),
    ]  # fmt: skip


def test_the_two_commands_are_on_the_first_screen() -> None:
    first_screen = "\n".join(README.splitlines()[:24])
    assert 'python -m pip install "nox[uv]" && nox -s ablate -- --grid bn_label_smooth' in first_screen
    assert 'python -m pip install "nox[uv]" && nox -s tests' in first_screen


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("line", [line for line in README.splitlines() if line.strip().startswith("nox -s ablate")])
def test_every_named_grid_exists(line: str) -> None:
    names = re.findall(r"--grid (\S+)", line)
    assert names
    load_grids([name for name in names if not name.endswith(".toml")])


OWN = "Your own GAN"

MYNETS = """
from torch import nn

class Generator(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Linear(100, width), nn.ReLU(), nn.Linear(width, 784), nn.Tanh())
        self.append(nn.Unflatten(1, (1, 28, 28)))
"""

SMALL = "\n[budget.standard]\nsteps = 5\nseeds = 2\nnum_samples = 1280\ncurve_samples = 1280\ncurve_points = 1\n"


def commands(section: str, start: str) -> list[list[str]]:
    """The lines of a section that a user would type, without what is said of them."""
    lines = [line.strip().partition("  #")[0] for line in SECTIONS[section].splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(start)]


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_user_network_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm(tmp_path / "results")
    Path("mynets.py").write_text(MYNETS, "utf-8")
    Path("mynets.toml").write_text(blocks(OWN, "toml")[0] + SMALL, "utf-8")
    (command,) = commands(OWN, "gan-ablate run --grid mynets.toml")
    assert call(monkeypatch, *command) == 0
    runs = load_results("results", "mynets")
    assert list(runs["status"]) == ["completed"] * 4
    assert "generator mine" in Path("results/mynets/report.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_user_script_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop in the style of the tutorials, over two factors and two seeds: scored, timed and reported."""
    warm(tmp_path / "results")
    shutil.copyfile(Path(__file__).with_name("tutorial_script.py"), "train.py")
    Path("mine.toml").write_text(blocks(OWN, "toml")[1] + SMALL, "utf-8")
    (command,) = commands(OWN, "gan-ablate run --grid mine.toml")
    assert call(monkeypatch, *command) == 0
    runs = load_results("results", "mine")
    assert list(runs["status"]) == ["completed"] * 8
    assert runs["fid"].notna().all()
    assert (runs["peak_memory_mib"] > 100).all()
    assert (runs["step_ms_median"].dropna() > 0).all()  # on a busy machine all lines may come at once
    page = Path("results/mine/report.md").read_text("utf-8")
    assert "**lr 0.001**" in page
    assert "train.py" in page
    # The script by itself, as its author would start it, draws the same images.
    (tmp_path / "alone").mkdir()
    arguments = ["--bn", "off", "--lr", "0.001", "--seed", "1", "--num", "1280"]
    script = [sys.executable, str(tmp_path / "train.py"), *arguments]
    subprocess.run(script, cwd=tmp_path / "alone", check=True, capture_output=True)
    of_run = runs.query("batch_norm == 'off' and lr == '0.001' and seed == 1")["fid"].item()
    assert score_images(tmp_path / "alone" / "samples", out="results").fid == pytest.approx(of_run, rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_judge_and_score_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm(tmp_path / "results")
    rows = [
        f"{norm},{lr},{seed},{(20 + seed) * (1.5 if norm == 'off' else 1) + 0.01 * seed},{0.7 - 0.001 * seed}"
        for seed in range(5)
        for norm in ("on", "off")
        for lr in ("0.0002", "0.001")
    ]
    Path("runs.csv").write_text("\n".join(["batch_norm,lr,seed,fid,accuracy", *rows]), "utf-8")
    digits = load_dataset("mnist-10k", 28, tmp_path).images[:1_280, 0].numpy()
    np.save("samples.npy", digits)
    Path("samples").mkdir()
    for number, digit in enumerate(digits):
        Image.fromarray(digit).save(f"samples/{number}.png")
    for command in commands(OWN, "gan-ablate judge") + commands(OWN, "gan-ablate score"):
        assert call(monkeypatch, *command) == 0
    assert "Raises FID: **batch norm off** +50" in Path("judged/report.md").read_text("utf-8")
    assert Path("scores.csv").is_file()
    (code,) = blocks(OWN, "python")
    assert len(code.splitlines()) <= 10
    Path("example.py").write_text(code, "utf-8")
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"batch norm off +(49|50)\.\d+ +higher +5", done.stdout)
    assert done.stdout.endswith("judged/report.md\n")


ANCHORS = {
    'above "Penalty ="': "Penalty = Annotated[",
    'above "Activation ="': "Activation = Annotated[",
    "in discriminator_penalty's match": '        case "gradient":',
    "in build_activation's match": '        case "leaky_relu":',
}
"""The line before which a chunk of the README goes, by the words that name the place."""

PROGRAM = """
import torch
from gan_ablate.design.plan import plan
from gan_ablate.design.grid import load_grid
from gan_ablate.training.trainer import Trainer
for variant in plan(load_grid("new.toml"), budget="smoke").variants:
    config = variant.config.model_copy(update={"batch_size": 4})
    row = Trainer(config, torch.zeros(9, 1, 28, 28, dtype=torch.uint8)).step()
    print(variant.label, config.run_id, bool(row.loss_d.isfinite() and row.loss_g.isfinite()))
"""


@pytest.mark.slow
def test_examples_of_added_mechanisms_run(tmp_path: Path) -> None:
    """A level, a penalty and an activation: the README's lines in a copy of the package, and a grid that uses them."""
    package = tmp_path / "gan_ablate"
    shutil.copytree(ROOT / "gan_ablate", package, ignore=shutil.ignore_patterns("__pycache__"))
    for code in re.findall(r"```py\n(.*?)```", README, re.DOTALL):
        assert len(code.splitlines()) < 10
        for file, header, chunk in re.findall(
            r"^# gan_ablate/(\S+), (.*)\n((?:(?!# gan_ablate).*\n)*)", code, re.MULTILINE
        ):
            path = package / file
            anchor = ANCHORS[header.partition(";")[0]]
            text = path.read_text("utf-8")
            assert anchor in text
            text = text.replace(anchor, f"{chunk}\n{anchor}", 1)
            member = re.search(r"behind (\w+): (\| \w+)", header)
            if member is not None:
                head, _, tail = text.partition(anchor)
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
