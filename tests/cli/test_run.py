from __future__ import annotations

import multiprocessing
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_ablate.cli import run as run_command
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.executors.worker import needs_nothing
from gan_ablate.execution.progress import PhaseDisplay
from gan_ablate.execution.store import Store
from gan_ablate.execution.trackers import TrackedRun
from tests.calls import call
from tests.configs import make_config
from tests.features import warm
from tests.synthetic import save_runs


def test_grids_are_planned_together(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "plan", "--grid", "beta1", "--grid", "dropout", "--seeds", "2") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Adam's β1" in output
    assert "Dropout in the discriminator" in output
    assert "12 runs to compute" in output  # three and four variants, of which they share one, by two seeds


def test_plan_runs_a_batch_through_a_users_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("odd_nets.py").write_text("from torch import nn\ndef generator():\n    return nn.Linear(100, 7)\n")
    Path("mine.toml").write_text(
        'base = "mlp"\n[factors.g]\nbaseline = "a"\nlevels.a = {}\n'
        'levels.b = { generator = { kind = "module", path = "odd_nets:generator" } }\n'
    )
    assert call(monkeypatch, "plan", "--grid", "mine.toml") == 2
    assert "valid: with --allow-code" in capsys.readouterr().err
    assert call(monkeypatch, "plan", "--grid", "mine.toml", "--allow-code") == 2
    assert "given (4, 100), it gives (4, 7) of torch.float32; valid: (4, 1, 28, 28)" in capsys.readouterr().err


def test_plan_and_status_say_how_far_things_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_grid: Path
) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    save_runs(Store(Path("results")), planned, lambda _, seed: 9.0 if seed else None)
    (Path("results/runs") / planned.baseline.config.run_id / "record.json").unlink()
    assert call(monkeypatch, "plan", "--grid", str(tiny_grid), "--budget", "smoke") == 0
    output = capsys.readouterr().out
    assert "1/2 runs done" in output
    assert "2/2 runs done" in output
    assert "1 runs to compute" in output
    assert call(monkeypatch, "status") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "tiny" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["tiny", "smoke", "2", "1", "0", "1"]


def test_status_of_a_file_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("", "utf-8")
    assert call(monkeypatch, "status", "--out", "file") == 2
    assert "--out file: not a folder" in capsys.readouterr().err


def test_plan_shows_the_base_and_what_each_variant_sets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plan", "--grid", "bn_label_smooth", "--base", "dcgan-28") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["Batch norm and label smoothing: 4 variants", "Base: dcgan-28 on mnist-10k"]
    place = lines.index("batch norm off, label smoothing on")
    assert lines[place + 2] == 'sets generator.norm = "none", discriminator.norm = "none", loss.real_label = 0.9'
    assert any(line.endswith("(baseline)") for line in lines)


def test_plan_refuses_a_data_set_that_run_would_refuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pets").mkdir()
    for i in range(8):
        Image.new("RGB", (40, 40)).save(f"pets/{i}.png")
    Path("pets/3.png").write_bytes(b"no image")
    assert call(monkeypatch, "plan", "--grid", "beta1", "--dataset", "folder:pets") == 2
    output = capsys.readouterr()
    assert "1 of 8 files not readable as images: 3.png" in output.err
    assert output.out.splitlines() == ["Starting a worker process …", "Loading folder:pets …"]
    assert multiprocessing.active_children() == []


def test_plan_refuses_runs_that_no_look_can_settle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--grid", "beta1", "--until", "settled", "--set", "scoring.features=none"]
    assert call(monkeypatch, "plan", *command) == 2
    assert "--until settled: mnist-10k is not scored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ({}, "cpu", True),
        ({}, "cuda", False),
        ({"dataset": "mnist"}, "cpu", False),
        ({"precision": "bf16"}, "cpu", False),
        ({"scoring": {"features": "inception", "num_samples": 5_000, "curve_samples": 5_000}}, "cpu", False),
    ],
)
def test_only_what_the_package_has_needs_no_check(settings: dict[str, Any], device: str, *, expected: bool) -> None:
    assert needs_nothing(make_config("mlp", **settings), device) is expected


@pytest.mark.parametrize("command", [["status"], ["report"], ["list", "claims"]])
def test_an_empty_results_folder_points_to_the_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert call(monkeypatch, *command) == (2 if command == ["report"] else 0)
    output = capsys.readouterr()
    text = " ".join((output.out + output.err).split())
    assert "no grid was run into" in text
    assert "see the finished study: --out" in text


def test_the_report_names_its_pages_and_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_grid: Path, no_figures: None
) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    save_runs(Store(Path("results")), planned, lambda _, seed: 9.0 + seed)
    counts: list[tuple[int, int]] = []
    monkeypatch.setattr(PhaseDisplay, "preparing", lambda _, __, done, total: counts.append((done, total)))
    assert call(monkeypatch, "run", "--grid", str(tiny_grid), "--budget", "smoke") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "Report: results/report.md",
        "Tiny: results/tiny/report.md",
        "All in one file, for a browser: results/report.html",
    ]
    assert counts[0] == (0, 10)
    assert counts[-1][0] >= 1


def test_finished_runs_go_to_a_tracker_and_what_fails_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_grid: Path, no_figures: None
) -> None:
    written: list[str] = []

    class Tracker:
        name, title, place = "mlflow", "MLflow", "here"

        def write(self, run: TrackedRun) -> None:
            written.append(run.name)
            if len(written) == 1:
                raise ConnectionError("no network")

    def load(names: list[str], root: Path) -> list[Tracker]:
        assert (names, root) == (["mlflow"], Path("results"))
        return [Tracker()]

    monkeypatch.setattr("gan_ablate.cli.options.load_trackers", load)
    planned = plan(load_grid(tiny_grid), budget="smoke")
    save_runs(Store(Path("results")), planned, lambda _, seed: 9.0 + seed)
    assert call(monkeypatch, "run", "--grid", str(tiny_grid), "--budget", "smoke", "--mlflow") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        f"MLflow: {planned.num_runs - 1} runs written to here",
        "MLflow: 1 run not written (ConnectionError: no network); the same command tries again",
    ]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_help_groups_options_and_gives_budgets_in_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "80")
    assert call(monkeypatch, command, "--help") == 0
    output = capsys.readouterr().out
    for group in ("What to run", "How much of it", "Where and how", "Your own code", "Executors"):
        assert f"─ {group} ─" in output
    words = " ".join(output.replace("│", " ").split())
    assert "smoke: 120 steps × 2 seeds; standard: 1,500 steps × 5 seeds; full: 10,000 steps × 10 seeds" in words
    assert "…" not in output.replace("cuda:1, …", "")


def test_what_cannot_be_rescored_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (("--until", "settled"), "--until settled: valid: with run, which trains more seeds"),
        ((), "--out results: no finished run has kept a generator of these runs (runs/*/generator.safetensors)"),
        (("--features-size", "64"), "--features-size 64: valid: with --features MODULE:NAME or FILE.pt"),
        (("--features", "mine:embed"), "scoring.features.path = 'mine:embed': code of yours; valid: with --allow-code"),
        (("--holdout", "pictures"), "--holdout folder:pictures: no such folder"),
    ):
        assert call(monkeypatch, "rescore", "--grid", "beta1", *options) == 2
        assert message in capsys.readouterr().err
    assert not Path("results").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_plan_says_what_rescore_has_without_training(
    tiny_grid: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warm(Path("results"))
    common = ("--grid", str(tiny_grid), "--budget", "smoke", "--seeds", "1")
    more = (*common, "--set", "scoring.num_samples=1300")
    assert call(monkeypatch, "run", *common) == 0
    assert call(monkeypatch, "plan", *more) == 0
    assert "2 runs differ in their scoring alone from finished runs" in " ".join(capsys.readouterr().out.split())
    assert call(monkeypatch, "rescore", *more) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 missing runs are scored without training them again" in shown
    assert "runs have no kept generator" not in shown
    assert call(monkeypatch, "rescore", *common, "--set", "scoring.num_samples=1400", "--seeds", "2") == 0
    assert "2 runs have no kept generator or failed: gan-ablate run trains them." in capsys.readouterr().out


@pytest.mark.slow
def test_train_takes_a_users_extractor_and_says_what_becomes_of_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eyes.py").write_text(
        "from torch.nn import functional\n\n"
        "def embed(images):\n    return functional.adaptive_avg_pool2d(images, 2).flatten(1)\n"
    )
    (tmp_path / "wide").mkdir()
    rng = np.random.default_rng(0)
    for i in range(240):
        Image.fromarray(rng.integers(0, 256, (8, 16, 3), np.uint8)).save(tmp_path / "wide" / f"{i}.png")
    command = ["train", "mlp", "--dataset", "folder:wide", "--features", "eyes:embed", "--features-size", "4"]
    few = [f"scoring.{name}=100" for name in ("num_samples", "curve_samples")]
    settings = [*few, "scoring.keep_best=true", "image_size=8", "batch_size=8", "scoring.curve_points=2"]
    options = [part for setting in settings for part in ("--set", setting)]
    assert call(monkeypatch, *command, "--allow-code", "--steps", "4", *options) == 0
    shown = capsys.readouterr().out
    assert "folder:wide: images 16×8 → 8×8, centre crop: it cuts off 50 % of each; --set fit=pad" in shown
    assert re.search(r"FID \S+, KID \S+; real images: FID", shown)
    assert re.search(r"FID \S+ with the best weights, of step [24]\n", shown)


SCRIPT_GRID = """
[external]
command = ["python", "train.py", "{noise}", "{seed}"WORD]
samples = "images.npy"
MORE
[factors.noise]
baseline = "low"
levels.low = {}
levels.high = {}
"""


UNNAMED = "its command does not name {device}"
HIDDEN = 'env = { CUDA_VISIBLE_DEVICES = "" }'


@pytest.mark.parametrize(
    ("device", "finds_gpu", "word", "more", "note"),
    [
        ("cpu", False, "", "", f"finds no GPU on this machine; {UNNAMED}."),
        (
            "cpu",
            True,
            "",
            "",
            f"finds this machine's GPU all the same, one run at a time; {UNNAMED}; external.{HIDDEN} ",
        ),
        ("cpu", True, ', "{device}"', HIDDEN, "finds the GPUs that external.env.CUDA_VISIBLE_DEVICES names; its"),
        ("cuda", True, "", "", f"finds one GPU of this machine as its cuda:0; {UNNAMED}."),
        ("cuda:0,cuda:2", True, "", "", "finds one GPU of this machine, number 0 or 2, counted from 0, as its cuda:0;"),
        (
            "cuda:1",
            True,
            ', "{device}"',
            "",
            "finds one GPU of this machine, number 1, counted from 0, as its cuda:0; ",
        ),
    ],
)
def test_plan_says_which_gpu_a_script_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, finds_gpu: bool, word: str, more: str, note: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("print()")
    Path("mine.toml").write_text(SCRIPT_GRID.replace("WORD", word).replace("MORE", more), "utf-8")
    monkeypatch.setattr(run_command, "has_gpu", lambda: finds_gpu)
    planned = plan(load_grid("mine.toml"), allow_code=True)
    (shown,) = run_command.gpu_notes([planned], device)
    assert shown.startswith(f"--device {device}: the script {note}")
    assert run_command.gpu_notes([plan(load_grid("beta1"))], device) == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_plan_and_run_say_how_many_runs_need_no_run_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warm(Path("results"))
    lines = ["import sys, numpy as np", "open(sys.argv[0] + '.ran', 'a').write('x')"]
    lines += ["images = np.random.default_rng(int(sys.argv[2])).integers(0, 256, (1280, 28, 28)).astype('uint8')"]
    Path("train.py").write_text("\n".join([*lines, "np.save('images.npy', images)", "print('loss 1')"]))
    grid = SCRIPT_GRID.replace("WORD", "")
    words = ("--grid", "mine.toml", "--allow-code", "--seeds", "1", "--set", "scoring.num_samples=1280")
    Path("mine.toml").write_text(grid.replace("MORE", "log = 'Loss (?P<loss_d>.*)'"))
    assert call(monkeypatch, "run", *words, "--jobs", "1") == 0
    Path("mine.toml").write_text(grid.replace("MORE", "log = 'loss (?P<loss_d>.*)'"))
    capsys.readouterr()
    assert call(monkeypatch, "plan", *words) == 0
    shown = capsys.readouterr().out
    assert "0/1 runs done" in shown
    assert "2 of 2 runs do not run the script: what it has left is read again." in shown
    assert call(monkeypatch, "run", *words, "--jobs", "1") == 0
    assert "2 of 2 runs do not run the script: what it has left is read again." in capsys.readouterr().out
    assert Path("train.py.ran").read_text() == "xx"
    assert "read again from what the script had left in run" in Path("results/mine/report.md").read_text()


@pytest.mark.slow
def test_small_colour_folder_is_scored_with_the_objects_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "things").mkdir()
    rng = np.random.default_rng(0)
    for i in range(60):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "things" / f"{i}.png")
    few = [f"scoring.{name}=1280" for name in ("num_samples", "curve_samples")]
    settings = [*few, "image_size=8", "batch_size=8", "scoring.curve_points=1"]
    options = [part for setting in settings for part in ("--set", setting)]
    command = ["train", "mlp", "--dataset", "folder:things", "--features", "objects", "--steps", "2", *options]
    assert call(monkeypatch, *command) == 0
    shown = capsys.readouterr().out
    assert "10 are held out to compare with: they are too few for 64 features of objects" in " ".join(shown.split())
    assert re.search(r"FID \S+, KID \S+; real images: FID", shown)
    (record,) = (
        Store(path.parents[2]).load_record(path.parent.name) for path in tmp_path.glob("**/runs/*/record.json")
    )
    assert record is not None
    assert record.scoring is not None
    assert record.scoring.extractor == "objects"
    assert record.scoring.final is not None
    assert record.scoring.final.class_counts is None
    assert call(monkeypatch, "train", "mlp", "--features", "objects", "--steps", "2") == 2
    assert "it takes colour images, and mnist-10k is grey; valid: digits" in " ".join(capsys.readouterr().err.split())
