from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from gan_ablate import api
from gan_ablate.cli import app as cli
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from tests.calls import call
from tests.features import warm
from tests.quick_worker import QUICK_START
from tests.synthetic import save_runs


def test_a_broken_image_stops_everything_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pets").mkdir()
    for i in range(8):
        Image.new("RGB", (40, 40)).save(f"pets/{i}.png")
    Path("pets/3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert call(monkeypatch, "run", "--grid", "beta1", "--dataset", "folder:pets") == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert "1 of 8 files not readable as images: 3.png (cut short, or none of BMP" in line
    assert output.out.splitlines()[-1] == "Loading folder:pets …"
    assert not Path("results").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
def test_a_folder_below_a_file_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_grid: Path
) -> None:
    Path("file").write_text("", "utf-8")
    assert call(monkeypatch, "run", "--grid", str(tiny_grid), "--out", "file/results") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--out file/results: cannot be written to" in line


def test_report_links_the_study_that_beside_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_figures: None
) -> None:
    for out, steps in (("short", 99), ("long", 999), ("longest", 9999)):
        save_runs(Store(Path(out)), plan(load_grid("beta1"), steps=steps), lambda _, seed: 20.0 + seed)
    assert call(monkeypatch, "report", "--out", "short", "--beside", "long", "--beside", "longest") == 0
    assert capsys.readouterr().err == ""
    page = Path("short/report.md").read_text("utf-8")
    assert "[long](../long/report.md)" in page
    assert "[longest](../longest/report.md)" in page
    assert call(monkeypatch, "report", "--out", "short", "--beside", "none") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == ("gan-ablate: --beside none: no grid was run into this folder; valid: another results folder")


@pytest.mark.parametrize(
    "command", ["run", "plan", "train", "list", "report", "cite", "judge", "score", "archive", "status", "verify",
                "clean", "sample"]
)  # fmt: skip
def test_help_describes_each_option_in_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert call(monkeypatch, command, "--help") == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert re.findall(r"[Aa]s for \w+|likewise|[Ss]ee run", words) == []


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_more_steps_go_on_where_a_kept_checkpoint_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, keeps: bool
) -> None:
    command = ["train", "mlp", "--set", "scoring.features=none", *(["--keep-checkpoints"] if keeps else [])]
    for steps in ("20", "40"):
        assert call(monkeypatch, *command, "--steps", steps) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    folder = Path(last.removeprefix("Samples, weights and record: "))
    assert ("goes on from step 20" in (folder / "log.txt").read_text("utf-8")) == keeps


def test_a_failed_run_is_exit_code_1_and_the_report_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_grid: Path
) -> None:
    def fail(configs: list[RunConfig], context: RunContext, *_: object) -> Iterator[Record]:
        for config in configs:
            record = Record(run_id=config.run_id, status="failed", message="planted", config=config)
            Store(Path(context.out)).save_record(record)
            yield record

    monkeypatch.setattr(api, "run_local", fail)
    assert call(monkeypatch, "run", "--grid", str(tiny_grid), "--budget", "smoke") == 1
    assert "4 of 4 runs failed" in capsys.readouterr().err
    assert "failed with an error" in Path("results/report.md").read_text("utf-8")


@pytest.mark.slow
def test_the_main_job_from_grid_to_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_grid: Path, no_figures: None
) -> None:
    """The run in a process of its own, as a user starts it; what comes behind it in this one, without its figures."""
    command = ["run", "--grid", str(tiny_grid), "--budget", "smoke"]
    warm(Path("results"))
    start = f"{QUICK_START}from gan_ablate.__main__ import start\nstart()"
    done = subprocess.run([sys.executable, "-c", start, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "2 variants × 2 seeds, 4 runs to compute" in done.stdout
    assert "[4/4] completed" in done.stdout
    assert "Report: results/report.md" in done.stdout
    text = Path("results/report.md").read_text("utf-8")
    assert "These runs are too short to answer anything" in text
    drawn = {path.name for path in Path("results/tiny").iterdir()}
    assert drawn == {
        "curves.png", "losses.png", "quality.png", "samples.png", "training-0.webp", "training-1.webp",
        "runs.csv", "summary.csv", "effects.csv", "summary.tex", "effects.tex", "report.md",
    }  # fmt: skip
    assert call(monkeypatch, *command) == 0
    assert "0 runs to compute" in capsys.readouterr().out
    assert Path("results/report.md").read_text("utf-8") == text
    run_id = next(Path("results/runs").iterdir()).name
    assert call(monkeypatch, "sample", run_id, "--num", "9", "--to", "nine.png") == 0
    with Image.open("nine.png") as picture:
        assert picture.size == (92, 92)  # three by three images of 28 pixels, two pixels around each


def test_sample_refuses_a_run_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "sample", "abcdef012345") == 2
    assert "abcdef012345: no finished run" in capsys.readouterr().err


def test_the_ci_script_can_be_run() -> None:
    assert (Path(__file__).parents[2] / ".ci" / "run").stat().st_mode & stat.S_IXUSR


def test_brackets_from_outside_are_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_grid: Path, no_figures: None
) -> None:
    text = tiny_grid.read_text("utf-8").replace("Tiny", "Is [/nope] or [red] better?")
    tiny_grid.write_text(text, "utf-8")
    planned = plan(load_grid(tiny_grid), budget="smoke")
    assert call(monkeypatch, "plan", "--grid", str(tiny_grid), "--budget", "smoke", "--out", "x[/y]") == 0
    assert "Is [/nope] or [red] better?" in capsys.readouterr().out
    save_runs(Store(Path("x[/y]")), planned, lambda _, seed: 20.0 + seed)
    for command in (["run", "--grid", str(tiny_grid), "--budget", "smoke"], ["status"], ["report"]):
        assert call(monkeypatch, *command, "--out", "x[/y]") == 0
    assert "Report: x[/y]/report.md" in capsys.readouterr().out
    for command in (["status"], ["report"]):
        assert call(monkeypatch, *command, "--out", "[/z]") in (0, 2)
    assert "[/z]" in capsys.readouterr().out


@pytest.mark.parametrize(("seeds", "is_said"), [("1", True), ("2", False)])
def test_run_says_where_the_report_will_cover_less(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seeds: str,
    *,
    is_said: bool,
) -> None:
    save_runs(Store(tmp_path), plan(load_grid("beta1"), seeds=2), lambda *_: 20.0)
    monkeypatch.setattr(cli, "write_pages", lambda *_: None)
    assert call(monkeypatch, "run", "--grid", "beta1", "--seeds", seeds, "--out", str(tmp_path)) == 0
    assert ("takes the place of another plan of beta1" in capsys.readouterr().out) is is_said


@pytest.mark.parametrize("command", [["status"], ["plan", "--grid", "tiny.toml", "--data-dir=~/data"]])
def test_a_home_that_the_shell_leaves_is_expanded(
    tmp_path: Path, tiny_grid: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Shells leave the sign alone behind ``--out=``; a folder of that name is deleted at one's peril."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    asked: list[Path] = []

    def note(store: Store) -> list[str]:
        asked.append(store.root)
        return []

    for name in ("list_plans", "check_writable"):
        monkeypatch.setattr(Store, name, note)
    assert call(monkeypatch, *command, "--out=~/res") == 0
    assert asked == [tmp_path / "home" / "res"]
    assert not Path("~").exists()


def test_a_home_that_nobody_has_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "status", "--out=~nobody-of-that-name/res") == 2
    words = "gan-ablate: ~nobody-of-that-name/res: there is no such home folder; valid: a path without ~"
    assert capsys.readouterr().err.strip() == words


def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gan_ablate", "list"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=True)

    assert b"\\u03b2" in done.stdout
