"""Logs of users' scripts: named patterns, JSON lines, CSV files and event files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gan_ablate.design.script_logs import LOG_PATTERNS, LogFile, find_usual_column
from gan_ablate.execution.script import Script, read_output, run_script
from gan_ablate.execution.script_log import ScriptLog, times_path

DCGAN = "[0/5][{0}/938] Loss_D: 1.2{0} Loss_G: 3.4 D(x): 0.5 D(G(z)): 0.3 / 0.1"
DCGAN_TUTORIAL = "[0/5][{0}/938]\tLoss_D: 1.2{0}\tLoss_G: 3.4\tD(x): 0.5\tD(G(z)): 0.3 / 0.1"
PYTORCH_GAN = "[Epoch 0/200] [Batch {0}/938] [D loss: 1.2{0}] [G loss: 3.4]"
WITH_ACCURACY = "[Epoch 0/200] [Batch {0}/938] [D loss: 1.2{0}, acc: 50%] [G loss: 3.4, adv: 1.0, pixel: 2.0]"
LIGHTNING = "Epoch 0:  10%|█         | {0}/938 [00:01<00:09, 9.1it/s, v_num=0, d_loss=1.2{0}, g_loss=3.4]"
LIGHTNING_RICH = "Epoch 0/4 ━━━╸━━━━ {0}/938 0:00:10 • 0:00:01 20it/s v_num: 0 g_loss: 3.4 d_loss: 1.2{0}"
MIMICRY = "INFO: [Epoch 1/1][Global Step: {0}/938] \n| D(G(z)): 0.3\n| errD: 1.2{0}\n| errG: 3.4\n| lr_D: 0.0002"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("pytorch-dcgan", DCGAN),
        ("pytorch-dcgan", DCGAN_TUTORIAL),
        ("pytorch-gan", PYTORCH_GAN),
        ("pytorch-gan", WITH_ACCURACY),
        ("lightning", LIGHTNING),
        ("lightning", LIGHTNING_RICH),
        ("mimicry", MIMICRY),
    ],
)
def test_a_named_pattern_reads_the_usual_lines(name: str, line: str) -> None:
    log = ScriptLog(name)
    for second in (1, 2, 3):
        for part in line.format(second).split("\n"):
            log.read(part.encode(), float(second))
    assert log.history() == {"step": [1, 2, 3], "loss_d": [1.21, 1.22, 1.23], "loss_g": [3.4] * 3}
    assert log.step_ms() == [1e3, 1e3]
    assert log.notes == ()


def test_every_named_pattern_is_read_in_time_where_it_does_not_match() -> None:
    for name in LOG_PATTERNS:
        log = ScriptLog(name)
        for second in range(50):
            log.read(b"Epoch 3: " + b"1/2 " * 2_000, float(second))
        assert log.notes == ("external.log matches no line of its output",)


def test_json_lines_of_the_output_are_read_among_others() -> None:
    log = ScriptLog("jsonl")
    lines = ["starting", '{"step": 10, "d_loss": 0.5, "G_loss": 1}', "{broken", '{"epoch": 1}', "[1]"]
    lines += ['{"step": 20.0, "d_loss": NaN, "G_loss": null, "is_best": true}']
    for second, line in enumerate(lines):
        log.read(line.encode(), float(second))
    assert [(row.step, row.losses.get("loss_g")) for row in log.rows] == [(10, 1.0), (20, None)]
    assert not log.is_finite
    assert log.notes == ()
    assert ScriptLog("jsonl").notes == ("external.log finds no JSON object in the output",)


def test_columns_of_json_lines_have_the_names_that_the_log_gives() -> None:
    log = ScriptLog(LogFile(jsonl="-", step="it", loss_d="critic"))
    log.read(b'{"it": 3, "critic": 0.25, "step": 7}', 0.0)
    assert (log.rows[0].step, log.rows[0].losses) == (3, {"loss_d": 0.25})


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("loss_d", "loss_d"),
        ("d_loss", "loss_d"),
        ("Loss/D", "loss_d"),
        ("train/lossD", "loss_d"),
        ("errG", "loss_g"),
        ("g_loss", "loss_g"),
        ("Generator Loss", "loss_g"),
        ("global_step", "step"),
        ("Epoch", "epoch"),
        ("errD/loss", "loss_d"),
        ("loss/errD", "loss_d"),
        ("g_loss_step", "loss_g"),
        ("loss", None),
        ("fid", None),
    ],
)
def test_usual_columns_are_found(column: str, name: str | None) -> None:
    found = [known for known in ("epoch", "step", "loss_d", "loss_g") if find_usual_column(known, [column])]
    assert found == ([] if name is None else [name])


def test_a_csv_file_is_read_while_it_grows(tmp_path: Path) -> None:
    log = ScriptLog(LogFile(csv="logs/*.csv"), tmp_path)
    log.read_files(0.0)
    assert list(log.notes) == ["external.log finds no file logs/*.csv in {out}"]
    path = tmp_path / "logs" / "metrics.csv"
    path.parent.mkdir()
    with path.open("w") as file:
        file.write("epoch,step,d_loss,g_loss,val_fid\n0,0,1.5,2.5,\n0,10,1.4,2.")
        file.flush()
        log.read_files(2.0)
        assert [row.step for row in log.rows] == [0]  # the last line has no end yet
        file.write("4,\n0,10,,,33.0\n")
        file.flush()
        log.read_files(2.5)
        assert len(log.rows) == 1  # looked at a second later
        log.read_files(4.0)
        file.write("1,20,1.3,2.3,")
    log.read_files(6.0, is_last=True)
    assert log.history() == {"step": [0, 10, 20], "loss_d": [1.5, 1.4, 1.3], "loss_g": [2.5, 2.4, 2.3]}
    assert log.step_ms() == [200.0, 200.0]
    assert log.notes == ()


def test_a_csv_file_that_is_written_anew_with_more_columns_is_read_anew(tmp_path: Path) -> None:
    log = ScriptLog(LogFile(csv="a.csv"), tmp_path)
    (tmp_path / "a.csv").write_text("step,d_loss\n1,0.5\n")
    log.read_files(1.0)
    (tmp_path / "a.csv").write_text("step,d_loss,g_loss\n1,0.5,\n2,0.4,7\n")
    log.read_files(3.0)
    assert [(row.step, row.losses) for row in log.rows] == [(1, {"loss_d": 0.5}), (2, {"loss_d": 0.4, "loss_g": 7.0})]


@pytest.mark.parametrize(
    ("log", "content", "note"),
    [
        (LogFile(csv="a"), "step,critic\n1,2\n", "finds no loss in a, which has step, critic; valid: loss_d = "),
        (LogFile(csv="a", loss_d="D"), "step,d_loss\n1,2\n", "finds no column D in a, which has step, d_loss"),
        (LogFile(csv="a"), "step,d_loss\nx,2\n", "finds no whole numbers as steps in a"),
        (LogFile(csv="a"), "", "finds no file a in {out}"),
        (LogFile(jsonl="a"), "no json\n", "finds no file a in {out}"),
        (LogFile(jsonl="a"), '{"critic": 1}', "finds no loss in a, which has critic"),
    ],
)
def test_a_file_without_losses_is_noted_with_its_columns(tmp_path: Path, log: LogFile, content: str, note: str) -> None:
    (tmp_path / "a").write_text(content)
    read = ScriptLog(log, tmp_path)
    read.read_files(1.0, is_last=True)
    assert read.rows == []
    assert [text.startswith(f"external.log {note}") for text in read.notes] == [True], read.notes


def test_kept_output_is_read_as_it_was_printed(tmp_path: Path) -> None:
    code = r"""
import sys, time
for step in range(5):
    sys.stderr.write(f"\r{step}/5 d={step}.5 "); sys.stderr.flush(); time.sleep(0.05)
sys.stderr.write("\nthe last line")
"""
    pattern = r"(?P<step>\d+)/5 d=(?P<loss_d>\S+)"
    live, again = ScriptLog(pattern), ScriptLog(pattern)
    output = tmp_path / "output.txt"
    ended = run_script(
        Script([sys.executable, "-c", code], tmp_path, output, dict(os.environ), None), live, lambda: False
    )
    assert read_output(output, again, ended.seconds)
    assert again.history() == live.history() == {"step": list(range(5)), "loss_d": [0.5, 1.5, 2.5, 3.5, 4.5]}
    assert again.step_ms() == pytest.approx(live.step_ms(), abs=2.0)
    assert again.last_line == live.last_line == "the last line"
    times_path(output).write_text("")
    untimed = ScriptLog(pattern)
    read_output(output, untimed, ended.seconds)
    assert untimed.history() == live.history()


WRITE_EVENTS = """
import sys, time
from torch.utils.tensorboard import SummaryWriter
for name in ("errD", "errG"):
    with SummaryWriter(f"{sys.argv[1]}/data/{name}") as writer:
        for step in range(5):
            writer.add_scalar("loss", step + (name == "errG") / 2, step * 10, walltime=100.0 + step)
"""


@pytest.mark.slow
def test_event_files_are_read_with_tensorboards_own_reader(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", exc_type=ImportError)
    subprocess.run([sys.executable, "-W", "ignore", "-c", WRITE_EVENTS, str(tmp_path)], check=True)
    code = """
import json, sys
from pathlib import Path
from gan_ablate.design.script_logs import LogFile
from gan_ablate.execution.script_log import ScriptLog
for log in (LogFile(tensorboard="data/*"), LogFile(tensorboard="data/*", loss_d="errG/loss"), LogFile(tensorboard="x")):
    read = ScriptLog(log, Path(sys.argv[1]))
    read.read_files(9.0, is_last=True)
    read.read_files(9.0, is_last=True)
    print(json.dumps([read.history(), read.step_ms(), read.notes]))
"""
    shown = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
    usual, named, none = map(json.loads, shown.stdout.splitlines())
    steps, half = [0, 10, 20, 30, 40], [0.5, 1.5, 2.5, 3.5, 4.5]
    assert usual == [{"step": steps, "loss_d": [0, 1, 2, 3, 4], "loss_g": half}, [100.0] * 4, []]
    assert named[0] == {"step": steps, "loss_d": half, "loss_g": half}
    assert none == [{}, [], ["external.log finds no file x in {out}"]]


def test_the_readme_names_every_pattern() -> None:
    text = (Path(__file__).parents[2] / "gan_ablate" / "execution" / "README.md").read_text("utf-8")
    assert all(re.search(f'"{name}"', text) for name in (*LOG_PATTERNS, "jsonl"))
