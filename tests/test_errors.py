from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from gan_ablate.errors import describe_exit


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
