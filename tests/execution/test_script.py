"""Users' scripts: how they end, and what is read of their logs."""

from __future__ import annotations

import math
import os
import re
import sys
import time
import tomllib
from pathlib import Path

import pytest

from gan_ablate.execution.script import Script, ScriptExit, run_script
from gan_ablate.execution.script_log import MATCH_SEC, ScriptLog

README = Path(__file__).parents[2] / "gan_ablate" / "execution" / "README.md"
BOTH = r"\[(?P<epoch>\d+)/\d+\]\[(?P<step>\d+)/(?P<steps_per_epoch>\d+)\].*D: (?P<loss_d>\S+).*G: (?P<loss_g>\S+)"
NO_TOTAL = r"epoch (?P<epoch>\d+) step (?P<step>\d+) D (?P<loss_d>\S+)"


def read(pattern: str, *lines: str) -> ScriptLog:
    """Read lines that come a second apart."""
    log = ScriptLog(pattern)
    for second, line in enumerate(lines):
        log.read(line.encode(), float(second))
    return log


def steps_of(log: ScriptLog) -> list[int]:
    return [row.step for row in log.rows]


def readme_log() -> str:
    """The pattern of README's grid of a training script."""
    blocks = re.findall(r"```toml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (grid,) = (grid for grid in map(tomllib.loads, blocks) if "external" in grid)
    return str(grid["external"]["log"])


@pytest.mark.parametrize("gap", [" ", "\t"])  # the example's, and the tutorial's
def test_the_pattern_of_the_readme_reads_the_dcgan_example(gap: str) -> None:
    def line(epoch: int, batch: int) -> str:
        parts = [f"[{epoch}/25][{batch}/938]", "Loss_D: 1.2000", "Loss_G: 3.4000", "D(x): 0.5"]
        return gap.join([*parts, "D(G(z)): 0.3 / 0.1"])

    log = read(readme_log(), *(line(epoch, batch) for epoch in range(2) for batch in (0, 50, 900)))
    assert steps_of(log) == [0, 50, 900, 938, 988, 1838]
    assert log.rows[0].losses == {"loss_d": 1.2, "loss_g": 3.4}
    assert log.step_ms() == [1e3 / 50, 1e3 / 850, 1e3 / 38, 1e3 / 50, 1e3 / 850]


def test_epochs_that_count_from_one_begin_at_their_first_step() -> None:
    log = read(BOTH, "[1/3][100/938] D: 1 G: 2", "[2/3][100/938] D: 1 G: 2", "[3/3][938/938] D: 1 G: 2")
    assert steps_of(log) == [100, 1038, 2814]


def test_without_the_number_of_batches_steps_go_on_and_no_time_is_taken_across_epochs() -> None:
    lines = (f"epoch {epoch} step {step} D 0.5" for epoch in (0, 1) for step in (0, 50, 100))
    log = read(NO_TOTAL, *lines)
    assert steps_of(log) == [0, 50, 100, 150, 200, 250]
    assert log.step_ms() == [20.0] * 4
    assert steps_of(read(r"step (?P<step>\d+)", "step 1", "step 2", "step 1", "step 2")) == [1, 2, 3, 4]
    assert steps_of(read(NO_TOTAL, *(f"epoch {n} step 937 D 1" for n in range(3)))) == [937, 1874, 2811]


def test_steps_that_are_counted_over_all_epochs_stay_as_they_are() -> None:
    assert steps_of(read(NO_TOTAL, *(f"epoch {n} step {938 * n} D 1" for n in range(3)))) == [0, 938, 1876]


def test_lines_of_one_step_are_one_row() -> None:
    alternatives = r"step (?P<step>\d+)|errD: (?P<loss_d>\S+)|errG: (?P<loss_g>\S+)"
    lines = [text for n in (1, 2, 3) for text in (f"step {n}", f"errD: {n}.0", f"errG: 0.{n}")]
    log = read(alternatives, *lines)
    assert steps_of(log) == [1, 2, 3]
    assert log.history() == {"step": [1.0, 2.0, 3.0], "loss_d": [1.0, 2.0, 3.0], "loss_g": [0.1, 0.2, 0.3]}
    assert log.step_ms() == [3_000.0, 3_000.0]  # three lines a step, a second each


def test_lines_without_steps_are_counted_in_pairs_and_have_no_times() -> None:
    log = read(r"errD: (?P<loss_d>\S+)|errG: (?P<loss_g>\S+)", "errD: 1", "errG: 2", "errD: 3", "errG: nan")
    assert steps_of(log) == [1, 2]
    assert log.history() == {"step": [1.0], "loss_d": [1.0], "loss_g": [2.0]}
    assert log.step_ms() == []
    assert not log.is_finite


def test_a_loss_that_recovers_is_finite() -> None:
    assert read(r"D (?P<loss_d>\S+)", "D nan", "D 0.5").is_finite
    assert not read(r"D (?P<loss_d>\S+)", "D 0.5", "D nan").is_finite


@pytest.mark.parametrize("number", ["9" * 5_000, "9" * 400, "inf", "-1", "1e9", "1.5"])
def test_a_step_that_is_no_number_of_a_training_is_passed_over(number: str) -> None:
    log = read(r"step (?P<step>\S+) D (?P<loss_d>\S+)", f"step {number} D 0.5")
    assert (log.rows, log.history(), log.step_ms()) == ([], {}, [])
    assert log.notes == ("external.log matches lines of its output, but not one whose groups are numbers",)
    log.read(b"step 7, D 0.5,", 1.0)
    assert steps_of(log) == [7]
    assert not log.notes


def test_colours_are_no_part_of_a_line() -> None:
    log = read(NO_TOTAL, "\x1b]0;title\x07epoch 1 \x1b[1;32mstep 7\x1b[0m D \x1b[31mnan\x1b[0m\x1b[K")
    assert log.last_line == "epoch 1 step 7 D nan"
    assert steps_of(log) == [7]
    assert not log.is_finite


def test_a_pattern_that_matches_nothing_is_noted() -> None:
    log = read(r"Loss: (?P<loss_d>\S+)", "loss 1", "loss 2")
    assert log.notes == ("external.log matches no line of its output",)
    assert read("", "loss 1").notes == ()


def test_a_pattern_that_backtracks_for_ever_is_given_up() -> None:
    log = ScriptLog(r"(?P<loss_d>(a+)+)$")
    started = time.monotonic()
    for _ in range(3):
        log.read(b"a" * 60 + b"b", 0.0)
    assert time.monotonic() - started < 4 * MATCH_SEC
    assert log.notes == ("external.log took longer than 1 s, and was not searched for any more",)


@pytest.mark.parametrize(
    ("line", "is_divergence"),
    [
        ("RuntimeError: Function 'MulBackward0' returned nan values in its 0th output.", True),
        ("ValueError: loss is NaN", True),
        ("AssertionError: non-finite loss", True),
        ("ValueError: finance", False),
        ("KeyError: 'nano'", False),
    ],
)
def test_a_last_line_shows_a_divergence(line: str, is_divergence: bool) -> None:
    assert read("", line).shows_divergence == is_divergence


def test_an_infinite_loss_is_no_row_of_a_history() -> None:
    log = read(r"D (?P<loss_d>\S+)", "D 0.5", "D 1e999")
    assert math.isinf(log.rows[1].losses["loss_d"])
    assert log.history() == {"step": [1.0], "loss_d": [0.5]}


def run_code(folder: Path, code: str, log: ScriptLog | None = None) -> ScriptExit:
    """Run Python code as a script."""
    script = Script([sys.executable, "-c", code], folder, folder / "output.txt", dict(os.environ), None)
    return run_script(script, log or ScriptLog(), lambda: False)


def test_waiting_for_a_script_that_closed_its_output_takes_no_cpu_time(tmp_path: Path) -> None:
    used, log = time.process_time(), ScriptLog()
    ended = run_code(tmp_path, "import os, time; print('on'); os.close(1); os.close(2); time.sleep(1)", log)
    assert (ended.status, log.last_line) == (0, "on")
    assert ended.seconds > 1
    assert time.process_time() - used < 0.5


def test_memory_that_was_freed_before_the_end_counts(tmp_path: Path) -> None:
    ended = run_code(tmp_path, "x = bytearray(b'1') * 300_000_000; del x")
    assert 300e6 < ended.peak_bytes < 330e6


def test_a_child_that_prints_forever_ends_with_its_script(tmp_path: Path) -> None:
    child = "while True: print('child', flush=True)"
    log = ScriptLog()
    ended = run_code(tmp_path, f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])", log)
    assert ended.status == 0
    assert ended.seconds < 60
