"""External runs: a script is started without a shell, its log is read, it is ended, and its images are scored."""

from __future__ import annotations

import logging
import multiprocessing
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_ablate.analysis.table import load_results
from gan_ablate.api import run_grid, run_until_settled
from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.design.resolve_external import list_links
from gan_ablate.errors import UserError
from gan_ablate.execution import script as script_module
from gan_ablate.execution.checkpoint import RunStoppedError
from gan_ablate.execution.context import Compute, Progress, RunContext
from gan_ablate.execution.external import execute_script
from gan_ablate.execution.external_setup import fill_command, make_environment
from gan_ablate.execution.records import Record
from gan_ablate.execution.run import execute
from gan_ablate.execution.script import ScriptError
from gan_ablate.execution.store import Store
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


@pytest.mark.slow
def test_a_script_is_run_its_log_read_and_its_images_scored(tmp_path: Path) -> None:
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
    assert [sample_grid.name for sample_grid in store.sample_grids(record.run_id)] == ["step-000000.png"]
    assert store.load_record(record.run_id) == record


@pytest.mark.slow
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
        ("np.save('images.npy', images / 255)", "images.npy", "", "numbers of type float64 from 0 to 1; valid: uint8"),
        ("np.save('images.npy', images.astype(object))", "images.npy", "", "images.npy: not a readable array"),
        ("Path('a.png').write_bytes(b'GIF89a no')", "*.png", "", "not readable as images: a.png"),
        ("Path('g.pt').write_bytes(b'junk')", "g.pt", "latent_shape = [8]", "g.pt: the saved generator cannot"),
    ],
)  # fmt: skip
def test_a_script_that_does_not_do_what_was_agreed_fails_in_one_line(
    tmp_path: Path, script: str, samples: str, more: str, message: str
) -> None:
    started = time.monotonic()
    record = run_script(tmp_path, script, samples=samples, more=more)
    assert record.status == "failed"
    assert "\n" not in record.message
    with pytest.raises(ScriptError, match=message):
        raise ScriptError(record.message)
    assert time.monotonic() - started < 30


def test_a_script_that_cannot_be_started_fails_in_one_line(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "mine", SAVE)
    path.write_text(path.read_text().replace('["python", "train.py"', '["no-such-program"'), "utf-8")
    planned = plan(load_grid(path), allow_code=True)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    record = execute(planned.baseline.config, context, lambda _: None)
    assert record.message == "no-such-program: cannot be started (No such file or directory)"


@pytest.mark.slow
def test_a_failed_run_leaves_the_others_alone_and_is_reported(tmp_path: Path, no_figures: None) -> None:
    script = """
        if noise == "high" and seed == 1:
            print("out of luck")
            sys.exit(9)
        if noise == "low":
            images //= 2
        np.save("images.npy", images)
    """
    planned = plan_script(tmp_path / "mine", script)
    runs = run_grid(planned, warm(tmp_path / "out"), Compute(jobs=1))
    assert sorted(runs["status"]) == ["completed"] * 3 + ["failed"]
    failed = runs.loc[runs["status"] == "failed"].iloc[0]
    assert (failed["noise"], failed["seed"]) == ("high", 1)
    page = write_report(tmp_path / "out").with_name("mine") / "report.md"
    assert "1 of 4 runs failed with an error, and will be tried again: 1× noise high." in page.read_text()
    # Mended, the whole grid is another one: its files are part of its runs' names.
    mended = plan_script(tmp_path / "mine", SAVE)
    assert not {*mended.run_ids} & {*planned.run_ids}
    again = run_grid(mended, tmp_path / "out", Compute(jobs=1))
    assert list(again["status"]) == ["completed"] * 4
    assert load_results(tmp_path / "out", "mine").equals(again)


@pytest.mark.slow
def test_seeds_are_added_to_a_script_until_it_is_settled(tmp_path: Path) -> None:
    script = """
        images[:] = 0
        images[:, 4:24, 12 if noise == "low" else 4:16] = 255 - rng.integers(0, 9)
        np.save("images.npy", images)
    """
    grid = load_grid(write_grid(tmp_path / "mine", script))
    (state,) = run_until_settled(plan(grid, seeds=6, allow_code=True), warm(tmp_path / "out"), Compute(jobs=1))
    assert state.is_over
    assert len(state.plan.seeds) < 6
    assert state.looks[-1].effects[0].decision in ("lower", "higher")


@pytest.mark.slow
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


def test_a_stopped_script_ends_with_all_it_started(tmp_path: Path) -> None:
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
        execute_script(config, context, store, log, lambda _: None, lambda: pids.is_file() and pids.read_text() != "")
    for pid in map(int, pids.read_text().split()):
        _wait_until_gone(pid)
    assert store.load_record(config.run_id) is None


@pytest.mark.slow
def test_a_script_ends_with_a_killed_worker_and_so_do_its_children(tmp_path: Path) -> None:
    script = """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        Path("pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(300)
    """
    planned = plan_script(tmp_path / "mine", script)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    pids = Store(tmp_path / "out").run_dir(planned.baseline.config.run_id) / "work" / "pids"
    # Spawned: a fork of a process with threads may wait for a lock for ever.
    worker = multiprocessing.get_context("spawn").Process(
        target=execute, args=(planned.baseline.config, context, print)
    )
    worker.start()
    try:
        deadline = time.monotonic() + 120
        while not (pids.is_file() and pids.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        worker.kill()
        worker.join()
    for pid in map(int, pids.read_text().split()):
        _wait_until_gone(pid)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # its parent has not reaped it yet
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


@pytest.mark.slow
def test_progress_follows_the_log(tmp_path: Path) -> None:
    script = """
        for step in range(40):
            print("step", step, "loss", 0.25, flush=True)
            time.sleep(0.03)
        np.save("images.npy", images)
    """
    planned = plan_script(tmp_path / "mine", script, more=r"log = 'step (?P<step>\d+) loss (?P<loss_g>[\d.]+)'")
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    seen: list[Progress] = []
    record = execute(planned.baseline.config, context, seen.append)
    assert record.status == "completed"
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)  # the same step twice where a busy machine holds the script up
    assert len(set(steps)) > 1
    assert all(progress.loss_g == 0.25 and np.isnan(progress.loss_d) for progress in seen)
    assert set(record.history) == {"step", "loss_g"}


@pytest.mark.slow
def test_endless_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_module, "MAX_OUTPUT_BYTES", 1_000)
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


def test_a_script_that_prints_nan_and_gives_up_has_diverged(tmp_path: Path) -> None:
    script = "print('1 D 0.5')\nprint('2 D nan')\nprint('giving up')\nsys.exit(1)"
    record = run_script(tmp_path, script, more=r"log = '(?P<step>\d+) D (?P<loss_d>\S+)'")
    assert (record.status, record.diverged_at) == ("diverged", 2)
    assert record.message == "the program ended with exit code 1: giving up"
    assert record.scoring is not None
    assert record.scoring.final is None
    assert Store(tmp_path / "out").is_done(record.run_id)


def test_a_script_that_is_killed_after_nan_has_failed(tmp_path: Path) -> None:
    script = "print('2 D nan')\nos.kill(os.getpid(), signal.SIGKILL)"
    assert run_script(tmp_path, script, more=r"log = '(?P<step>\d+) D (?P<loss_d>\S+)'").status == "failed"


@pytest.mark.slow
def test_carriage_returns_end_lines(tmp_path: Path) -> None:
    script = """
        for epoch in range(2):
            for step in (0, 100, 100, 938):
                bar = f"Epoch {epoch}: 10%|#  | {step}/938 [00:10<01:23, 9.9it/s, loss_d=0.{step}, loss_g=1.5]"
                sys.stderr.write("\\r" + bar)
                sys.stderr.flush()
            sys.stderr.write("\\n")
        np.save("images.npy", images)
    """
    counts = r"Epoch (?P<epoch>\d+):.* (?P<step>\d+)/(?P<steps_per_epoch>\d+) "
    losses = r"\[.*d=(?P<loss_d>\S+) loss_g=(?P<loss_g>[\d.]+)"
    record = run_script(tmp_path, script, more=f"log = '{counts}{losses}'")
    assert record.history["step"] == [0, 100, 938, 938, 938 + 100, 938 + 938]
    assert record.notes == ()


@pytest.mark.slow
def test_notes_of_a_run_are_recorded_and_on_its_page(tmp_path: Path, no_figures: None) -> None:
    script = """
        from PIL import Image
        for i in range(1300):
            folder = Path("samples") / str(i % 10)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i % num]).save(folder / f"{i}.png")
        print("Loss 1")
    """
    planned = plan_script(tmp_path / "mine", script, samples="**/*.png", more="log = 'loss: (?P<loss_d>.*)'")
    run_grid(planned, warm(tmp_path / "out"), Compute(jobs=1))
    page = write_report(tmp_path / "out").with_name("mine") / "report.md"
    text = page.read_text()
    assert "4 of 4 runs: external.log matches no line of its output." in text
    assert "4 of 4 runs: 1,280 of 1,300 images scored." in text
    assert "Lowers FID" not in text
    assert "Does not matter" not in text
    store = Store(tmp_path / "out")
    folder = store.run_dir(planned.baseline.config.run_id)
    assert len(list((folder / "work").rglob("*.png"))) == 1_300  # more than are scored: they stay for more samples
    assert not (folder / "samples.npz").exists()


@pytest.mark.slow
def test_samples_stay_where_that_is_asked_for(tmp_path: Path) -> None:
    record = run_script(tmp_path, SAVE, more="keep_samples = true")
    folder = Store(tmp_path / "out").run_dir(record.run_id)
    assert (folder / "work" / "images.npy").is_file()
    assert not (folder / "samples.npz").exists()
    without = plan_script(tmp_path / "mine", SAVE).baseline.config
    assert without.run_id == record.run_id


def launch(tmp_path: Path, *words: str, more: str = "", device: str = "cpu") -> tuple[list[str], list[str]]:
    """The words and the links of a script's run, in a grid's folder that has data, configs and older samples."""
    here = tmp_path / "mine"
    for name in ("data/train/a.txt", "configs/a.yaml", "samples/old.png", "low/x.txt"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    path = write_grid(here, SAVE, samples="samples/*.png", more=more)
    listed = ", ".join(f'"{word}"' for word in words)
    command = f'["python", "train.py", "{{seed}}", "{{noise}}", {listed}]'
    path.write_text(path.read_text().replace('["python", "train.py", "{noise}", "{seed}", "{num_samples}"]', command))
    planned = plan(load_grid(path), allow_code=True)
    config = planned.baseline.config
    assert isinstance(config, ExternalConfig)
    context = RunContext(out=str(tmp_path / "out"), data_dir="d", device=device, folders=planned.folders)
    filled = fill_command(config, context, tmp_path / "w")
    return filled[4:], list_links(config, filled, here)


def test_files_and_folders_beside_the_grid_are_found(tmp_path: Path) -> None:
    here = tmp_path / "mine"
    words, links = launch(
        tmp_path, "--dataroot", "data", "--root=data", "--config=configs/a.yaml", "./data/train", "--out=samples",
        "samples/new", "../mine/data", "no/such", "x" * 5_000, "a=b=c", "--flag", "/usr",
    )  # fmt: skip
    assert words == [
        "--dataroot", "data", "--root=data", f"--config={here}/configs/a.yaml", f"{here}/data/train", "--out=samples",
        "samples/new", f"{here}/../mine/data", "no/such", "x" * 5_000, "a=b=c", "--flag", "/usr",
    ]  # fmt: skip
    assert links == ["low", "data"]  # the level of a factor, too, may be meant as a folder; its word is unchanged


@pytest.mark.slow
def test_a_script_opens_linked_folders_and_the_message_names_missing_links(tmp_path: Path) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "x.txt").write_text("found")
    script = "assert Path('data/x.txt').read_text() == 'found'\n" + SAVE
    failed = run_script(tmp_path, script)
    assert failed.status == "failed"
    assert failed.message == (
        "the program ended with exit code 1: FileNotFoundError: [Errno 2] No such file or directory: 'data/x.txt'; "
        'data lies beside the grid: valid: external.links = ["data"]; all of its output is in output.txt'
    )
    linked = run_script(tmp_path, script, more='links = ["data"]')
    assert (linked.status, linked.message) == ("completed", "")
    assert linked.run_id != failed.run_id


def test_the_message_of_a_missing_output_folder_says_how_to_make_it(tmp_path: Path) -> None:
    failed = run_script(tmp_path, "open('images/fakes/0.png', 'wb')\n" + SAVE)
    assert failed.message == (
        "the program ended with exit code 1: FileNotFoundError: [Errno 2] No such file or directory: "
        "'images/fakes/0.png'; there is no folder images/fakes in {out}: valid: "
        'os.makedirs("images/fakes", exist_ok=True) in the program; all of its output is in output.txt'
    )


def test_a_script_beside_the_grid_that_another_one_starts_can_be_linked(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "real.py").write_text("")
    failed = run_script(tmp_path, "import subprocess\nsys.exit(subprocess.call([sys.executable, 'real.py']))")
    assert 'real.py lies beside the grid: valid: external.links = ["real.py"]' in failed.message


@pytest.mark.slow
def test_copies_among_samples_are_noted(tmp_path: Path) -> None:
    record = run_script(tmp_path, 'np.save("images.npy", np.repeat(images[:1], num, 0))')
    assert "1,279 of 1,280 images are exact copies of others; 1 distinct" in record.notes


@pytest.mark.slow
def test_a_module_beside_the_grid_is_started_by_its_name(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "mine", SAVE)
    path.write_text(path.read_text().replace('"python", "train.py"', '"python", "-m", "train"'))
    planned = plan(load_grid(path), allow_code=True)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    assert execute(planned.baseline.config, context, lambda _: None).status == "completed"


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        ("5,6", "cuda:1", "6"),
        ("5, 6", "cuda:1", "6"),
        ("GPU-a1,GPU-b2", "cuda:0", "GPU-a1"),
        (None, "cuda:1", "1"),
        ("5,6", "cuda", "5,6"),
        ("5,6", "cpu", "5,6"),
    ],
)
def test_a_gpu_is_one_of_those_that_a_scheduler_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, expected: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    context = RunContext(out="o", data_dir="d", device=device)
    assert make_environment(context, tmp_path, ["train"])["CUDA_VISIBLE_DEVICES"] == expected
    words, _ = launch(tmp_path, "{device}", device=device)
    assert words == ["cpu" if device == "cpu" else "cuda:0"]


@pytest.mark.slow
def test_the_page_of_a_script_without_a_seed_says_unpaired(tmp_path: Path, no_figures: None) -> None:
    script = "images[0, 0, 0] = os.getpid() % 256\n" + SAVE
    path = write_grid(tmp_path / "mine", script, more="paired = false")
    path.write_text(path.read_text().replace('"{seed}"', '"7"'))
    planned = plan(load_grid(path), allow_code=True)
    assert planned.notes == (
        "external.paired is false: runs of one seed share nothing, so means of runs are compared (Welch's t test).",
    )
    run_grid(planned, warm(tmp_path / "out"), Compute(jobs=1))
    text = (write_report(tmp_path / "out").with_name("mine") / "report.md").read_text()
    assert "Runs of one seed share nothing (external.paired is false)" in text
    assert "What pairing is worth" not in text


GENERATOR = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(float(torch.rand(1))))
        self.drop = torch.nn.Dropout(0.9)
    def forward(self, z):
        return self.drop(torch.tanh(self.scale * z).expand(-1, 1, 28, 28))
netG = Net()
print("scale", netG.scale.item(), os.environ.get("PYTHONHASHSEED"), sys.argv[1:])
"""


def execute_grid(path: Path, tmp_path: Path, seed: int = 0) -> tuple[Record, Path]:
    """Run the baseline of a grid in this process, and return its record and its folder."""
    planned = plan(load_grid(path), allow_code=True)
    config = planned.baseline.config.with_seed(seed)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    record = execute(config, context, lambda _: None)
    return record, Store(tmp_path / "out").run_dir(record.run_id)


def launched_grid(folder: Path, script: str, more: str = "", words: str = '"train.py"') -> Path:
    """A grid that samples the global ``netG`` of a script, which is seeded from outside."""
    path = write_grid(folder, script, more=f"latent_shape = [1, 1, 1]\nseed_globals = true\n{more}")
    text = path.read_text().replace('samples = "images.npy"', 'generator = "netG"')
    path.write_text(text.replace('"train.py", "{noise}", "{seed}"', f'{words}, "{{noise}}", "3"'), "utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("words", ['"train.py"', '"-u", "-m", "train"'])
def test_a_global_is_sampled_and_the_seed_pairs_runs(tmp_path: Path, words: str) -> None:
    path = launched_grid(tmp_path / "mine", GENERATOR, words=words)
    record, folder = execute_grid(path, tmp_path, seed=5)
    assert (record.status, record.message) == ("completed", "")
    expected = float(torch.rand(1, generator=torch.Generator().manual_seed(5)))
    assert (folder / "output.txt").read_text() == f"scale {expected} 5 ['low', '3', '1280']\n"
    assert "random, NumPy and PyTorch were seeded before the script began (external.seed_globals)" in record.notes
    assert list((folder / "work").iterdir()) == []
    assert record.scoring is not None
    assert record.scoring.final is not None
    assert record.scoring.final.num_samples == 1280


@pytest.mark.slow
def test_a_generator_that_gives_no_numbers_is_a_divergence(tmp_path: Path) -> None:
    script = GENERATOR + "netG.scale.data.fill_(float('nan'))\nsys.exit()"
    record, _ = execute_grid(launched_grid(tmp_path / "mine", script), tmp_path)
    assert record.status == "diverged"
    assert record.message == "its generator gives pixels that are not finite numbers"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import torch\nnetD = torch.nn.Linear(1, 1)", "exit code 1: external.generator = netG: .*; valid: netD"),
        (GENERATOR + "os._exit(0)", "the program ended the process, so its external.generator was not sampled"),
        (GENERATOR + "netG = torch.nn.Identity()", "netG: gives 1280 × 1 × 1 × 1; valid: 1280 × 1 × 28 × 28"),
        (GENERATOR + "1 / 0", "exit code 1: ZeroDivisionError: division by zero; all of its output is in output.txt"),
    ],
)  # fmt: skip
def test_a_script_that_leaves_no_generator_fails_in_one_line(tmp_path: Path, script: str, message: str) -> None:
    record, _ = execute_grid(launched_grid(tmp_path / "mine", script), tmp_path)
    assert record.status == "failed"
    with pytest.raises(ScriptError, match=message):
        raise ScriptError(record.message)
    assert "\n" not in record.message


PATCHES = """
[[external.patches]]
file = "nets/layers.py"
find = "WIDTH = 1"
replace = "WIDTH = '{noise}-{seed}'"
"""


@pytest.mark.slow
def test_a_patch_changes_the_copy_of_a_run_beside_which_all_else_lies(tmp_path: Path) -> None:
    here = tmp_path / "mine"
    for name, text in {"nets/layers.py": "WIDTH = 1\n", "nets/table.txt": "beside", "data/x.txt": "data"}.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    script = """
        from nets import layers
        print(layers.WIDTH, Path(layers.__file__).with_name("table.txt").read_text(), Path("data/x.txt").read_text())
        print(Path(__file__).parent.name)
        np.save("images.npy", images)
    """
    path = write_grid(here, script, more='links = ["data"]\n' + PATCHES)
    record, folder = execute_grid(path, tmp_path, seed=4)
    assert (record.status, record.message) == ("completed", "")
    assert (folder / "output.txt").read_text() == "low-4 beside data\ncode\n"
    assert (here / "nets/layers.py").read_text() == "WIDTH = 1\n"
    copies = [path for path in (folder / "code").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sorted(path.name for path in copies if path.suffix == ".py") == ["layers.py", "train.py"]


@pytest.mark.slow
def test_numbers_of_a_csv_file_are_a_history_and_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan_ablate.execution.log_files.FILES_SEC", 0.05)
    script = """
        with open("metrics.csv", "w", buffering=1) as file:
            file.write("it,critic,generator\\n")
            for step in range(0, 80, 10):
                file.write(f"{step},0.{step},2.5\\n")
                time.sleep(0.12)
        np.save("images.npy", images)
    """
    log = 'log = { csv = "metrics.csv", step = "it", loss_d = "critic", loss_g = "generator" }'
    planned = plan_script(tmp_path / "mine", script, more=log)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    seen: list[Progress] = []
    record = execute(planned.baseline.config, context, seen.append)
    assert (record.status, record.message, record.notes) == ("completed", "", ())
    steps = list(range(0, 80, 10))
    assert record.history == {"step": steps, "loss_d": [float(f"0.{step}") for step in steps], "loss_g": [2.5] * 8}
    assert len({progress.step for progress in seen}) > 1
    assert record.throughput is not None
    assert record.throughput.step_ms_median is not None
    assert 6 < record.throughput.step_ms_median < 60  # of 12
    renamed = plan_script(tmp_path / "mine", script, more=log.replace("critic", "generator"))
    again = execute(renamed.baseline.config, context.model_copy(update={"folders": renamed.folders}), seen.append)
    assert again.history["loss_d"] == [2.5] * 8
    assert again.train_sec == record.train_sec


@pytest.mark.slow
def test_two_levels_above_the_script_is_in_its_runs_folder_and_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "configs").mkdir(parents=True)
    (tmp_path / "home" / "configs" / "a.txt").write_text("width 9")
    script = """
        os.makedirs("../../data/mnist", exist_ok=True)
        Path("../../data/mnist/x.txt").write_text("downloaded")
        Path("../../log").mkdir()
        print(Path("../configs/a.txt").read_text(), os.environ["WIDTH"])
        np.save("images.npy", images)
    """
    more = """
        cwd = "implementations/gan"
        env = { WIDTH = "{noise}-{seed}" }
        [external.links]
        "../../data/mnist" = "{data_dir}/MNIST"
        "../configs" = "~/configs"
    """
    planned = plan_script(tmp_path / "mine", script, more=textwrap.dedent(more))
    data = tmp_path / "data"
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir=str(data), folders=planned.folders)
    record = execute(planned.baseline.config.with_seed(3), context, lambda _: None)
    assert (record.status, record.message) == ("completed", "")
    folder = Store(tmp_path / "out").run_dir(record.run_id)
    assert (folder / "output.txt").read_text() == "width 9 low-3\n"
    assert (data / "MNIST" / "x.txt").read_text() == "downloaded"
    assert sorted(path.name for path in (folder / "work").iterdir()) == ["data", "implementations", "log"]
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == [record.run_id]


@pytest.mark.slow
def test_files_that_a_script_writes_beside_the_runs_are_noted(tmp_path: Path) -> None:
    record = run_script(tmp_path, "os.makedirs('../../data/mnist')\n" + SAVE)
    assert record.notes == (
        'the program wrote data above {out}, beside the runs; external.cwd = "a/b" keeps ../.. in the run\'s folder',
    )
    missing = run_script(tmp_path, "open('../../dat/x')\n" + SAVE)
    assert '../../dat/x lies above {out}: valid: external.cwd = "a/b", external.links = { ' in missing.message


@pytest.mark.slow
def test_a_grid_stops_after_its_first_run_at_a_fault_that_all_share(tmp_path: Path) -> None:
    planned = plan_script(tmp_path / "mine", "import no_such_package")
    with pytest.raises(UserError) as stopped:
        run_grid(planned, warm(tmp_path / "out"), Compute(jobs=2))
    assert str(stopped.value).startswith(
        "mine: the first run failed, and the others would fail alike, so they were not started: the program ended with "
        "exit code 1: ModuleNotFoundError: No module named 'no_such_package'; all of its output is in output.txt; in "
    )
    assert len(list((tmp_path / "out" / "runs").glob("*/record.json"))) == 1
