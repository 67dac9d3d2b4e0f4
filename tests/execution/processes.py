"""Commands in sessions of their own, and the processes of a machine, as Linux shows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from tests.quick_worker import QUICK_START


class Process(NamedTuple):
    """One of the machine's, with its parent's and its session's numbers."""

    pid: int
    parent: int
    session: int


def start_run(
    folder: Path,
    *options: str,
    is_timed: bool = False,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start ``gan-ablate run`` in a folder, as the head of a session, as a terminal or a scheduler does.

    Ctrl-C reaches it, also where these tests run in the background of a script, which is deaf to it.

    Args:
        folder: the current folder of the command.
        options: of the command.
        is_timed: whether it first times this machine, which takes seconds.
        stdout: where its output goes.
        stderr: where its errors go.
    """
    start = ["-m", "gan_ablate"] if is_timed else ["-c", f"{QUICK_START}from gan_ablate.__main__ import start\nstart()"]
    command = [sys.executable, *start, "run", "--budget", "smoke", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=stdout, stderr=stderr, start_new_session=True, env=environment,
        preexec_fn=_hear_interrupts,  # noqa: PLW1509 (it touches nothing that a thread could hold)
    )  # fmt: skip


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def list_processes() -> Iterator[Process]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            _, parent, _, session, *_ = status.read_text().rpartition(")")[2].split()
            yield Process(int(status.parent.name), int(parent), int(session))
