"""Programs of one's own: started without a shell, listened to, ended, and scored like any run."""

from __future__ import annotations

import logging
import os
import signal
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gan_ablate.analysis.table import load_results
from gan_ablate.api import run_grid, run_until_settled
from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.planning import Plan, plan
from gan_ablate.execution.checkpoint import RunStoppedError
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.drawn import load_samples
from gan_ablate.execution.events import Progress
from gan_ablate.execution.listening import ProgramError
from gan_ablate.execution.program import execute_program, fill_command
from gan_ablate.execution.run import execute
from gan_ablate.execution.store import Record, Store
from gan_ablate.reporting.report import write_report
from tests.features import warm

PREAMBLE = """
import sys, time, os, signal
from pathlib import Path
import numpy as np
noise, seed, num = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(seed)
images = rng.integers(0, 256, (num, 28, 28)).astype("uint8")
"""

SAVE = 'np.save("images.npy", images)\n'

GRID = """
title = "Mine"
[external]
command = ["python", "train.py", "{{noise}}", "{{seed}}", "{{num_samples}}"]
samples = "{samples}"
{more}
[factors.noise]
baseline = "low"
levels.low = {{}}
levels.high = {{}}
[budget.standard]
num_samples = 1280
seeds = 2
"""


def write_grid(folder: Path, script: str, *, samples: str = "images.npy", more: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(PREAMBLE + textwrap.dedent(script), "utf-8")
    path = folder / "mine.toml"
    path.write_text(GRID.format(samples=samples, more=more), "utf-8")
    return path


def plan_script(folder: Path, script: str, *, samples: str = "images.npy", more: str = "") -> Plan:
    return plan(load_grid(write_grid(folder, script, samples=samples, more=more)), allow_code=True)


def run_script(tmp_path: Path, script: str, *, samples: str = "images.npy", more: str = "") -> Record:
    """Run a script's baseline with seed 0, in this process."""
    planned = plan_script(tmp_path / "mine", script, samples=samples, more=more)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    return execute(planned.baseline.config, context, lambda _: None)


def test_a_program_is_run_heard_and_scored(tmp_path: Path) -> None:
    script = """
        for step in range(1, 11):
            print(f"[{step}/10] Loss_D: {1 / step:.3f} Loss_G: {step:.1f}")
            time.sleep(0.02)
        print("this line tells nothing")
        np.save("images.npy", images)
    """
    log = "log = '\\[(?P<step>\\d+)/.*Loss_D: (?P<loss_d>[\\d.]+).*Loss_G: (?P<loss_g>[\\d.]+)'"
    record = run_script(tmp_path, script, more=log)
    assert (record.status, record.message) == ("completed", "")
    assert record.history["step"] == list(range(1, 11))
    assert record.history["loss_g"] == list(map(float, range(1, 11)))
    assert record.history["loss_d"][1] == 0.5
    assert record.scoring is not None
    assert record.scoring.final is not None
    assert record.scoring.final.fid > 50  # noise is no digit
    assert record.throughput is not None
    assert record.throughput.step_ms_median is not None
    assert 15 < record.throughput.step_ms_median < 500
    assert 5 * 2**20 < record.throughput.peak_memory_bytes < 2**32
    assert 0.2 < record.train_sec < record.total_sec
    store = Store(tmp_path / "out")
    assert "this line tells nothing" in (store.run_dir(record.run_id) / "output.txt").read_text()
    assert [sheet.name for sheet in store.sample_sheets(record.run_id)] == ["step-000000.png"]
    assert store.load_record(record.run_id) == record


@pytest.mark.parametrize(
    ("script", "samples", "more", "message"),
    [
        ("print('no data'); sys.exit(3)", "images.npy", "", "exit code 3: no data; all of its output is in output.txt"),
        ("raise ValueError('lr')", "images.npy", "", "exit code 1: ValueError: lr"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "images.npy", "", "ended with signal SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", "images.npy", "", r"ended with signal SIGRTMIN\+3"),
        ("Path('../record.json').mkdir()\n" + SAVE, "images.npy", "", "made a folder record.json above its own"),
        ("time.sleep(60)", "images.npy", "timeout_sec = 0.5", r"had not ended after 0.5 s \(external.timeout_sec\)"),
        ("pass", "images.npy", "", r"left no images.npy in work/ \(external.samples\)"),
        ("pass", "samples/*.png", "", r"left no samples/\*.png in work/"),
        ("np.save('images.npy', images[:99])", "images.npy", "", "left 99 images in images.npy; valid: scoring.num_s"),
        ("np.save('images.npy', images[:, :14])", "images.npy", "", "images.npy: 28×14 pixels; valid: 28×28"),
        ("np.save('images.npy', images / 255)", "images.npy", "", "numbers of type float64; valid: uint8"),
        ("np.save('images.npy', images.astype(object))", "images.npy", "", "images.npy: not a readable array"),
        ("Path('a.png').write_bytes(b'GIF89a no')", "*.png", "", "not readable as images: a.png"),
        ("Path('g.pt').write_bytes(b'junk')", "g.pt", "latent_shape = [8]", "g.pt: the saved generator does not draw"),
    ],
)  # fmt: skip
def test_a_program_that_does_not_do_what_was_agreed_fails_in_one_line(
    tmp_path: Path, script: str, samples: str, more: str, message: str
) -> None:
    started = time.monotonic()
    record = run_script(tmp_path, script, samples=samples, more=more)
    assert record.status == "failed"
    assert "\n" not in record.message
    with pytest.raises(ProgramError, match=message):
        raise ProgramError(record.message)
    assert time.monotonic() - started < 30


def test_a_program_that_cannot_be_started_fails_in_one_line(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "mine", SAVE)
    path.write_text(path.read_text().replace('["python", "train.py"', '["no-such-program"'), "utf-8")
    planned = plan(load_grid(path), allow_code=True)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    record = execute(planned.baseline.config, context, lambda _: None)
    assert record.message == "no-such-program: cannot be started (No such file or directory)"


def test_one_that_fails_leaves_the_others_alone_and_is_told_of(tmp_path: Path) -> None:
    script = """
        if noise == "high" and seed == 1:
            print("out of luck")
            sys.exit(9)
        if noise == "low":
            images //= 2
        np.save("images.npy", images)
    """
    planned = plan_script(tmp_path / "mine", script)
    runs = run_grid(planned, warm(tmp_path / "out"), jobs=2)
    assert sorted(runs["status"]) == ["completed"] * 3 + ["failed"]
    failed = runs.loc[runs["status"] == "failed"].iloc[0]
    assert (failed["noise"], failed["seed"]) == ("high", 1)
    page = write_report(tmp_path / "out").with_name("mine") / "report.md"
    assert "1 of 4 runs failed with an error, and will be tried again: 1× noise high." in page.read_text()
    # Mended, the whole grid is another one: its files are part of its runs' names.
    mended = plan_script(tmp_path / "mine", SAVE)
    assert not {*mended.run_ids} & {*planned.run_ids}
    again = run_grid(mended, tmp_path / "out", jobs=2)
    assert list(again["status"]) == ["completed"] * 4
    assert load_results(tmp_path / "out", "mine").equals(again)


def test_seeds_are_added_to_a_program_until_it_is_settled(tmp_path: Path) -> None:
    script = """
        images[:] = 0
        images[:, 4:24, 12 if noise == "low" else 4:16] = 255 - rng.integers(0, 9)
        np.save("images.npy", images)
    """
    grid = load_grid(write_grid(tmp_path / "mine", script))
    (settling,) = run_until_settled(plan(grid, seeds=6, allow_code=True), warm(tmp_path / "out"), jobs=2)
    assert settling.is_over
    assert len(settling.plan.seeds) < 6
    assert settling.looks[-1].effects[0].answer in ("lower", "higher")


def test_no_shell_sees_a_command(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "mine", 'Path("noise.txt").write_text(noise)\n' + SAVE)
    odd = "$(touch /tmp/x); `id` && echo *"
    text = path.read_text().replace("levels.low = {}", f'levels.low = {{ noise = "{odd}" }}')
    path.write_text(text, "utf-8")
    planned = plan(load_grid(path), allow_code=True)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    record = execute(planned.baseline.config, context, lambda _: None)
    assert record.status == "completed"
    work = Store(tmp_path / "out").run_dir(record.run_id) / "work"
    assert (work / "noise.txt").read_text() == odd


def test_names_are_filled_in_word_by_word(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "mine", SAVE)
    words = '["python", "train.py", "--{noise}={seed}", "{{{out}}}", "{data_dir}/{dataset}", "{here}", "{steps}"]'
    path.write_text(path.read_text().replace('["python", "train.py", "{noise}", "{seed}", "{num_samples}"]', words))
    planned = plan(load_grid(path), allow_code=True, steps=7)
    config = planned.baseline.config.with_seed(5)
    assert isinstance(config, ExternalConfig)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir=str(tmp_path), folders=planned.folders)
    filled = fill_command(config, context, tmp_path / "w")
    here = tmp_path / "mine"
    assert Path(filled[0]).name.startswith("python")
    assert filled[1:] == [
        str(here / "train.py"), "--low=5", f"{{{tmp_path / 'w'}}}", f"{tmp_path}/mnist-10k", str(here), "7",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TorchScript")  # it is on its way out
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_saved_generator_is_drawn_from_with_the_same_latents(tmp_path: Path, suffix: str) -> None:
    generator = nn.Sequential(nn.Linear(8, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))).eval()
    path = tmp_path / f"g{suffix}"
    if suffix == ".pt":
        torch.jit.script(generator).save(str(path))
    else:
        size = torch.export.Dim("batch", min=2, max=4096)
        torch.export.save(torch.export.export(generator, (torch.zeros(4, 8),), dynamic_shapes=({0: size},)), path)
    config = ExternalConfig.model_validate(
        {
            "command": ["x"], "samples": path.name, "latent_shape": [8], "code": "x@0", "seed": 3,
            "scoring": {"features": "digits", "num_samples": 1_280},
        }
    )  # fmt: skip
    images = load_samples(config, tmp_path)
    assert images.shape == (1_280, 1, 28, 28)
    assert torch.equal(images, load_samples(config.with_seed(4), tmp_path))
    wrong = config.model_copy(update={"latent_shape": (9,)})
    with pytest.raises(ProgramError, match=f"g{suffix}: the saved generator does not draw"):
        load_samples(wrong, tmp_path)
    with pytest.raises(ProgramError, match="draws 1280 × 1 × 28 × 28; valid: 1280 × 1 × 32 × 32"):
        load_samples(config.model_copy(update={"image_size": 32}), tmp_path)


def test_a_program_that_is_asked_to_stop_is_ended_with_all_it_started(tmp_path: Path) -> None:
    script = """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        Path("pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(300)
    """
    planned = plan_script(tmp_path / "mine", script)
    config = planned.baseline.config
    assert isinstance(config, ExternalConfig)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    store = Store(tmp_path / "out")
    pids = store.run_dir(config.run_id) / "work" / "pids"
    log = logging.getLogger("test")
    with pytest.raises(RunStoppedError):
        execute_program(config, context, store, log, lambda _: None, lambda: pids.is_file() and pids.read_text() != "")
    for pid in map(int, pids.read_text().split()):
        _wait_until_gone(pid)
    assert store.load_record(config.run_id) is None


def test_a_program_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    script = """
        Path("pid").write_text(str(os.getpid()))
        time.sleep(300)
    """
    planned = plan_script(tmp_path / "mine", script)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    pid_file = Store(tmp_path / "out").run_dir(planned.baseline.config.run_id) / "work" / "pid"
    worker = os.fork()
    if worker == 0:
        with suppress(BaseException):
            execute(planned.baseline.config, context, lambda _: None)
        os._exit(0)
    deadline = time.monotonic() + 60
    while not (pid_file.is_file() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    _wait_until_gone(int(pid_file.read_text()))


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # nobody has asked for its exit code yet
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


def test_progress_is_told_as_the_log_tells_it(tmp_path: Path) -> None:
    script = """
        for step in range(40):
            print("step", step, "loss", 0.25, flush=True)
            time.sleep(0.03)
        np.save("images.npy", images)
    """
    planned = plan_script(tmp_path / "mine", script, more=r"log = 'step (?P<step>\d+) loss (?P<loss_g>[\d.]+)'")
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    told: list[Progress] = []
    record = execute(planned.baseline.config, context, told.append)
    assert record.status == "completed"
    assert [progress.step for progress in told] == sorted({progress.step for progress in told})
    assert all(progress.loss_g == 0.25 and np.isnan(progress.loss_d) for progress in told)
    assert set(record.history) == {"step", "loss_g"}


def test_endless_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_ablate.execution import listening

    monkeypatch.setattr(listening, "MAX_OUTPUT_BYTES", 1_000)
    record = run_script(tmp_path, "print('x' * 100_000)\nprint('last')\n" + SAVE)
    assert record.status == "completed"
    text = (Store(tmp_path / "out").run_dir(record.run_id) / "output.txt").read_text()
    assert len(text) < 1_100
    assert text.endswith("[more was printed]\n")


def test_a_loss_that_is_no_number_is_a_divergence(tmp_path: Path) -> None:
    script = "print('1 D 0.5')\nprint('2 D nan')\n" + SAVE
    record = run_script(tmp_path, script, more=r"log = '(?P<step>\d+) D (?P<loss_d>\S+)'")
    assert (record.status, record.diverged_at) == ("diverged", 2)
    assert record.history == {"step": [1.0], "loss_d": [0.5]}


def test_a_script_that_changes_between_plan_and_run_is_not_run(tmp_path: Path) -> None:
    planned = plan_script(tmp_path / "mine", "import helper\n" + SAVE)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    (tmp_path / "mine" / "train.py").write_text("raise SystemExit('it was run')")
    record = execute(planned.baseline.config, context, lambda _: None)
    assert record.message == "its files have changed since this run was planned; run the same command again"
