"""Logs of users' scripts: steps over all epochs, rows of several lines, and patterns that never end."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from gan_ablate.errors import describe_exit
from gan_ablate.execution.command import MATCH_SEC, Log

README = Path(__file__).parents[2] / "gan_ablate" / "execution" / "README.md"
BOTH = r"\[(?P<epoch>\d+)/\d+\]\[(?P<step>\d+)/(?P<steps_per_epoch>\d+)\].*D: (?P<loss_d>\S+).*G: (?P<loss_g>\S+)"
NO_TOTAL = r"epoch (?P<epoch>\d+) step (?P<step>\d+) D (?P<loss_d>\S+)"


def read(pattern: str, *lines: str) -> Log:
    """Read lines that come a second apart."""
    log = Log(pattern)
    for second, line in enumerate(lines):
        log.read(line.encode(), float(second))
    return log


def steps_of(log: Log) -> list[int]:
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


def test_without_the_number_of_batches_steps_never_restart_and_no_time_is_told_across_epochs() -> None:
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


def test_lines_without_steps_are_counted_in_pairs_and_tell_no_times() -> None:
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


def test_a_pattern_that_matches_nothing_is_said() -> None:
    log = read(r"Loss: (?P<loss_d>\S+)", "loss 1", "loss 2")
    assert log.notes == ("external.log matches no line of its output",)
    assert read("", "loss 1").notes == ()


def test_a_pattern_that_backtracks_for_ever_is_given_up() -> None:
    log = Log(r"(?P<loss_d>(a+)+)$")
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
def test_a_last_line_tells_a_divergence(line: str, is_divergence: bool) -> None:
    assert read("", line).tells_divergence == is_divergence


def test_an_infinite_loss_is_no_row_of_a_history() -> None:
    log = read(r"D (?P<loss_d>\S+)", "D 0.5", "D 1e999")
    assert math.isinf(log.rows[1].losses["loss_d"])
    assert log.history() == {"step": [1.0], "loss_d": [0.5]}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (None, "exit code None"),
        (-signal.SIGTERM, "signal SIGTERM"),
        (-signal.SIGKILL, "signal SIGKILL; out of memory?"),
        (-500, "signal SIGRTMIN+466"),
    ],
)
def test_an_exit_is_described_by_its_code_or_its_signal(code: int | None, words: str) -> None:
    assert describe_exit(code) == words


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="this system has no real-time signals")
def test_every_signal_of_the_system_has_a_name() -> None:
    """Python has no name for most real-time signals; a shell has."""
    for number in (*range(1, signal.SIGRTMIN + 1), *range(signal.SIGRTMIN, signal.NSIG)):
        assert describe_exit(-number).startswith("signal ")
    named = subprocess.run(["bash", "-c", "kill -l 37"], capture_output=True, text=True, check=True).stdout.strip()
    assert describe_exit(-37) == f"signal SIG{named.removeprefix('SIG')}"


def test_a_process_that_a_real_time_signal_ends_is_described() -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)"
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert describe_exit(ended.returncode) == "signal SIGRTMIN+3"
