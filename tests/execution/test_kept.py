"""Kept trainings: what a script left is read and scored again, and the script does not run again."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gan_ablate.api import rescore, run_grid
from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.errors import UserError
from gan_ablate.execution import kept as kept_module
from gan_ablate.execution.context import Compute, RunContext
from gan_ablate.execution.kept import find_training, is_readable, load_training, training_path
from gan_ablate.execution.maintenance import find_waste
from gan_ablate.execution.records import Record
from gan_ablate.execution.run import execute
from gan_ablate.execution.schedule import find_trained, kept_notes
from gan_ablate.execution.store import Store
from tests.features import warm

COUNTING = """
import os, sys, time
from pathlib import Path
import numpy as np
with open({executions!r}, "a") as executions:
    executions.write("ran\\n")
images = np.random.default_rng(int(sys.argv[2])).integers(0, 256, (1_400, 28, 28)).astype("uint8")
num = int(sys.argv[3]) if len(sys.argv) > 3 else 1_280
for step in range(1, 6):
    print("step", step, "D", round(0.1 * step, 1), "G 2.0", flush=True)
    time.sleep(0.02)
"""
"""A script that counts its own executions."""

SAVE = 'np.save("images.npy", images[:num])\n'

GRID = """
title = "Mine"
[external]
command = ["python", "train.py", "{noise}", "{seed}"]
samples = "images.npy"
log = 'step (?P<step>\\d+) D (?P<loss_d>\\S+)'
[factors.noise]
baseline = "low"
levels.low = {}
levels.high = {}
[budget.standard]
num_samples = 1280
seeds = 1
"""


@pytest.fixture(autouse=True)
def executions(tmp_path: Path) -> Path:
    path = tmp_path / "executions.txt"
    path.touch()
    return path


def count(executions: Path) -> int:
    return len(executions.read_text().splitlines())


def plan_mine(folder: Path, script: str, grid: str = GRID, **options: object) -> Plan:
    folder.mkdir(exist_ok=True)
    counting = COUNTING.format(executions=str(folder.parent / "executions.txt"))
    (folder / "train.py").write_text(counting + textwrap.dedent(script), "utf-8")
    (folder / "mine.toml").write_text(grid, "utf-8")
    return plan(load_grid(folder / "mine.toml"), allow_code=True, **options)  # type: ignore[arg-type]


def compute(planned: Plan, tmp_path: Path) -> tuple[Record, Path]:
    """Compute the baseline of a plan in this process, and return its record and its folder."""
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    record = execute(planned.baseline.config, context, lambda _: None)
    return record, Store(tmp_path / "out").run_dir(record.run_id)


def training_id(planned: Plan) -> str:
    config = planned.baseline.config
    assert isinstance(config, ExternalConfig)
    return config.training.run_id


def fid(record: Record) -> float:
    assert record.scoring is not None
    assert record.scoring.final is not None
    return record.scoring.final.fid


READING = {
    "log": ("D (?P<loss_d>", "D .* G (?P<loss_g>"),
    "samples": ('"images.npy"', '"other/*.npy"'),
    "samples_grid": ('samples = "images.npy"', 'samples = "x.png"\nsamples_grid = { rows = 5 }'),
    "a checkpoint": ('samples = "images.npy"', 'samples = { checkpoint = "x", module = "nets:G" }\nlatent_shape = [9]'),
    "num_samples": ("num_samples = 1280", "num_samples = 1300"),
    "the grid's own title": ('title = "Mine"', 'title = "Other"'),
    "the data set": ("[budget", '[set]\ndataset = "fashion-mnist"\n[budget'),
    "image_size": ("[budget", "[set]\nimage_size = 32\n[budget"),
}
TRAINING = {
    "the command": ('"train.py", ', '"train.py", "-v", '),
    "a number of samples by name": ('"{seed}"]', '"{seed}", "{num_samples}"]'),
    "seed_globals": ("log =", "seed_globals = true\nlog ="),
    "an environment variable": ("log =", 'env = { WIDTH = "9" }\nlog ='),
    "the working folder": ("log =", 'cwd = "a/b"\nlog ='),
    "a file": ("log =", 'files = ["nets.py"]\nlog ='),
    "a patch": ("[factors", '[[external.patches]]\nfile = "train.py"\nfind = "1_400"\nreplace = "1_500"\n[factors'),
}


@pytest.mark.parametrize("change", READING)
def test_how_samples_are_read_and_scored_is_no_part_of_what_is_trained(tmp_path: Path, change: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nets.py").write_text("class G: ...")
    before = plan_mine(tmp_path / "mine", SAVE)
    after = plan_mine(tmp_path / "mine", SAVE, GRID.replace(*READING[change], 1))
    assert training_id(after) == training_id(before)
    is_named = change != "the grid's own title"
    assert (after.baseline.config.run_id != before.baseline.config.run_id) == is_named


@pytest.mark.parametrize("change", TRAINING)
def test_what_the_script_sees_is_part_of_what_is_trained(tmp_path: Path, change: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nets.py").write_text("class G: ...")
    before = plan_mine(tmp_path / "mine", SAVE)
    after = plan_mine(tmp_path / "mine", SAVE, GRID.replace(*TRAINING[change], 1))
    assert training_id(after) != training_id(before)
    assert training_id(plan_mine(tmp_path / "mine", SAVE + "# changed")) != training_id(before)
    other = before.baseline.config.with_seed(1)
    assert isinstance(other, ExternalConfig)
    assert other.training.run_id != training_id(before)


def test_a_data_set_that_the_script_is_told_is_part_of_what_is_trained(tmp_path: Path) -> None:
    named = GRID.replace('"{seed}"]', '"{seed}", "{dataset}", "{image_size}"]')
    before = plan_mine(tmp_path / "mine", SAVE, named)
    for more in ('[set]\ndataset = "fashion-mnist"\n[budget', "[set]\nimage_size = 32\n[budget"):
        assert training_id(plan_mine(tmp_path / "mine", SAVE, named.replace("[budget", more))) != training_id(before)


@pytest.mark.slow
def test_a_corrected_log_is_read_from_the_kept_output_with_its_times(tmp_path: Path, executions: Path) -> None:
    planned = plan_mine(tmp_path / "mine", SAVE)
    first, _ = compute(planned, tmp_path)
    both = GRID.replace(r"D (?P<loss_d>\S+)", r"D (?P<loss_d>\S+) G (?P<loss_g>\S+)")
    again, folder = compute(plan_mine(tmp_path / "mine", SAVE, both), tmp_path)
    assert count(executions) == 1
    assert again.run_id != first.run_id
    assert first.history == {"step": [1, 2, 3, 4, 5], "loss_d": [0.1, 0.2, 0.3, 0.4, 0.5]}
    assert again.history == {**first.history, "loss_g": [2.0] * 5}
    assert fid(again) == fid(first)  # the same images, from the packed file
    assert again.throughput is not None
    assert again.throughput.step_ms_median is not None
    assert 15 < again.throughput.step_ms_median < 500
    assert (again.train_sec, again.environment) == (first.train_sec, first.environment)
    assert f"read again from what the script had left in run {first.run_id}, without running it" in again.notes
    assert [path.name for path in folder.glob("trained-*.json")] == [f"trained-{training_id(planned)}.json"]


@pytest.mark.slow
def test_a_run_that_failed_at_its_samples_is_read_after_the_correction(tmp_path: Path, executions: Path) -> None:
    script = 'Path("other").mkdir()\nnp.save("other/a.npy", images[:num])\n'
    failed, _ = compute(plan_mine(tmp_path / "mine", script), tmp_path)
    assert failed.status == "failed"
    assert "left no images.npy in work/ (external.samples); it left other/a.npy" in failed.message
    mended = GRID.replace('"images.npy"', '"other/*.npy"')
    record, _ = compute(plan_mine(tmp_path / "mine", script, mended), tmp_path)
    assert (record.status, count(executions)) == ("completed", 1)


@pytest.mark.slow
def test_a_run_that_found_nothing_runs_its_script_again_where_nothing_was_corrected(
    tmp_path: Path, executions: Path
) -> None:
    planned = plan_mine(tmp_path / "mine", "")
    for number in (1, 2, 3):
        record, _ = compute(planned, tmp_path)
        assert "left no images.npy" in record.message
        assert count(executions) == number
    corrected = plan_mine(tmp_path / "mine", "", GRID.replace("images.npy", "b.npy"))
    assert "left no b.npy" in compute(corrected, tmp_path)[0].message
    assert count(executions) == 3  # read for the first time
    compute(corrected, tmp_path)
    assert count(executions) == 4


@pytest.mark.slow
def test_images_that_do_not_fit_stay_until_the_correction(tmp_path: Path, executions: Path) -> None:
    script = 'np.save("images.npy", images[:num].repeat(2, 1).repeat(2, 2))\n'
    planned = plan_mine(tmp_path / "mine", script)
    for _ in range(2):
        record, folder = compute(planned, tmp_path)
        assert record.message == (
            "images.npy: 56×56 pixels; valid: 28×28, one image a picture; what it left stays, and is read again after "
            f"a correction; to run it again, delete runs/{record.run_id}"
        )
    assert (folder / "work" / "images.npy").is_file()
    sized = plan_mine(tmp_path / "mine", script, GRID.replace("[budget", "[set]\nimage_size = 56\n[budget"))
    assert (compute(sized, tmp_path)[0].status, count(executions)) == ("completed", 1)


@pytest.mark.slow
def test_more_samples_are_read_where_the_script_has_left_them(tmp_path: Path, executions: Path) -> None:
    script = 'np.save("images.npy", images)\n'
    first, _ = compute(plan_mine(tmp_path / "mine", script), tmp_path)
    assert "1,280 of 1,400 images scored" in first.notes
    more = plan_mine(tmp_path / "mine", script, overrides=["scoring.num_samples=1400"])
    record, _ = compute(more, tmp_path)
    assert record.scoring is not None
    assert record.scoring.final is not None
    assert record.scoring.final.num_samples == 1400
    too_many = plan_mine(tmp_path / "mine", script, overrides=["scoring.num_samples=1500"])
    assert (
        "left 1,400 images in images.npy; valid: scoring.num_samples, 1,500" in compute(too_many, tmp_path)[0].message
    )
    fewer = plan_mine(tmp_path / "mine", script, overrides=["scoring.num_samples=1300"])
    record, _ = compute(fewer, tmp_path)  # of the packed images of the second run
    assert (record.status, count(executions)) == ("completed", 1)
    assert "1,300 of 1,400 images scored" in record.notes


@pytest.mark.slow
def test_a_script_runs_again_where_its_command_asks_for_more_samples(
    tmp_path: Path, executions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = GRID.replace('"{seed}"]', '"{seed}", "{num_samples}"]')
    compute(plan_mine(tmp_path / "mine", SAVE, grid), tmp_path)
    more = plan_mine(tmp_path / "mine", SAVE, grid, overrides=["scoring.num_samples=1300"])
    store = Store(tmp_path / "out")
    assert kept_notes([more], store) == [
        "1 of 2 runs run a finished script again: its command names {num_samples}, which has risen to 1,300."
    ]
    assert compute(more, tmp_path)[0].status == "completed"
    assert count(executions) == 2
    fewer = plan_mine(tmp_path / "mine", SAVE, grid, overrides=["scoring.num_samples=1290"])
    assert kept_notes([fewer], store) == ["1 of 2 runs do not run the script: what it has left is read again."]
    assert compute(fewer, tmp_path)[0].status == "completed"
    assert count(executions) == 2


GENERATOR = """
import torch
class Net(torch.nn.Module):
    def forward(self, z):
        return torch.tanh(z).expand(-1, 1, 28, 28)
netG = Net()
"""


@pytest.mark.slow
def test_samples_of_a_global_are_kept_and_more_of_them_need_the_script(tmp_path: Path, executions: Path) -> None:
    grid = GRID.replace('samples = "images.npy"', 'generator = "netG"\nlatent_shape = [1, 1, 1]')
    first, folder = compute(plan_mine(tmp_path / "mine", GENERATOR, grid), tmp_path)
    assert first.status == "completed"
    with np.load(folder / "samples.npz") as packed:
        assert packed["images"].shape == (1280, 1, 28, 28)
    relogged, _ = compute(
        plan_mine(tmp_path / "mine", GENERATOR, grid.replace("D (?P<loss_d>", "D (?P<loss_g>")), tmp_path
    )
    assert fid(relogged) == fid(first)
    assert count(executions) == 1
    compute(plan_mine(tmp_path / "mine", GENERATOR, grid, overrides=["scoring.num_samples=1300"]), tmp_path)
    assert count(executions) == 2
    compute(plan_mine(tmp_path / "mine", GENERATOR, grid.replace("[1, 1, 1]", "[1, 28, 28]")), tmp_path)
    assert count(executions) == 3  # other latents: the generator itself is gone


@pytest.mark.slow
def test_a_global_of_another_size_is_read_after_the_correction(tmp_path: Path, executions: Path) -> None:
    grid = GRID.replace('samples = "images.npy"', 'generator = "netG"\nlatent_shape = [1, 1, 1]')
    sized = grid.replace("[budget", "[set]\nimage_size = 32\n[budget")
    wrong, _ = compute(plan_mine(tmp_path / "mine", GENERATOR, sized), tmp_path)
    assert "netG: gives 1280 × 1 × 28 × 28; valid: 1280 × 1 × 32 × 32" in wrong.message
    assert compute(plan_mine(tmp_path / "mine", GENERATOR, grid), tmp_path)[0].status == "completed"
    assert count(executions) == 1


@pytest.mark.slow
def test_a_grid_is_rescored_without_its_script(
    tmp_path: Path, executions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_mine(tmp_path / "mine", 'np.save("images.npy", images)\n')
    runs = run_grid(planned, warm(tmp_path / "out"), Compute(jobs=1))
    store = Store(tmp_path / "out")
    assert list(runs["status"]) == ["completed"] * 2
    more = plan_mine(tmp_path / "mine", 'np.save("images.npy", images)\n', overrides=["scoring.num_samples=1400"])
    assert find_trained([more], store).keys() == set(more.run_ids)
    assert kept_notes([more], store) == ["2 of 2 runs do not run the script: what it has left is read again."]
    rescore(more, tmp_path / "out", Compute(jobs=1))
    records = [store.load_record(run_id) for run_id in more.run_ids]
    assert [record is not None and record.status for record in records] == ["completed"] * 2
    assert count(executions) == 2
    assert kept_notes([more], store) == []
    other = plan_mine(tmp_path / "mine", SAVE)
    with pytest.raises(UserError, match="no script has left what these runs can be read from"):
        rescore(other, tmp_path / "out", Compute(jobs=1))
    assert find_waste(store) == []


@pytest.mark.slow
def test_the_script_does_not_run_where_only_a_rescoring_was_asked_for(tmp_path: Path, executions: Path) -> None:
    planned = plan_mine(tmp_path / "mine", SAVE)
    gone = {planned.baseline.config.run_id: str(tmp_path / "gone")}
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders, trained=gone)
    record = execute(planned.baseline.config, context, lambda _: None)
    assert record.message == "what its script has left is gone; valid: gan-ablate run"
    assert count(executions) == 0


@pytest.mark.slow
def test_a_stopped_or_failed_script_is_no_training(tmp_path: Path, executions: Path) -> None:
    planned = plan_mine(tmp_path / "mine", "sys.exit(3)\n")
    for number in (1, 2):
        record, folder = compute(planned, tmp_path)
        assert "exit code 3" in record.message
        assert count(executions) == number
        assert list(folder.glob("trained-*")) == []


@pytest.mark.slow
def test_a_divergence_is_judged_again_by_the_corrected_log(tmp_path: Path, executions: Path) -> None:
    script = "print('step 6 D nan G 1')\nprint('giving up')\nsys.exit(1)\n"
    first, _ = compute(plan_mine(tmp_path / "mine", script), tmp_path)
    assert first.status == "diverged"
    both = GRID.replace(r"D (?P<loss_d>\S+)", r"D (?P<loss_d>\S+) G (?P<loss_g>\S+)")
    again, _ = compute(plan_mine(tmp_path / "mine", script, both), tmp_path)
    assert (again.status, again.message, again.diverged_at) == (first.status, first.message, 6)
    assert count(executions) == 1
    blind, _ = compute(
        plan_mine(tmp_path / "mine", script, GRID.replace("loss_d", "loss_g").replace("D ", "G ")), tmp_path
    )
    assert blind.message == "the program ended with exit code 1: giving up; all of its output is in output.txt"


@pytest.mark.slow
def test_a_damaged_or_deleted_part_runs_the_script_again(tmp_path: Path, executions: Path) -> None:
    planned = plan_mine(tmp_path / "mine", SAVE)
    _, folder = compute(planned, tmp_path)
    config = planned.baseline.config
    assert isinstance(config, ExternalConfig)
    path = training_path(config, folder)
    training = load_training(path)
    assert training is not None
    assert find_training(config, Store(tmp_path / "out")) is not None
    content = path.read_text()
    path.write_text(content.replace('"status": 0', '"status": 1'))
    assert load_training(path) is None
    path.write_text(content)
    (folder / "samples.npz").rename(folder / "gone.npz")
    assert not is_readable(training, config, folder)
    assert json.loads(content)["packed"]["num"] == 1280


@pytest.mark.parametrize(
    ("name", "pattern", "is_match"),
    [
        ("a/1.png", "a/*.png", True),
        ("a/1.png", "b/*.png", False),
        ("1.png", "**/*.png", True),
        ("a/b/1.png", "**/*.png", True),
        ("images.npy", "final.npy", False),
    ],
)
def test_a_deleted_file_matches_a_pattern_or_may(name: str, pattern: str, is_match: bool) -> None:
    assert kept_module._matches(name, pattern) == is_match
