"""Commands: run one to its end without a shell, read what it prints, and measure its time and memory."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from gan_ablate.execution.checkpoint import RunStoppedError
from gan_ablate.execution.output_log import MAX_LINE_BYTES
from gan_ablate.signals import describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gan_ablate.execution.output_log import Log

MAX_OUTPUT_BYTES = 50_000_000
MAX_CHUNKS = 64
"""Chunks that are read at once: a program that prints without end can still be ended."""

POLL_SEC, PROGRESS_SEC, GRACE_SEC = 0.1, 0.25, 5.0
_PR_SET_PDEATHSIG = 1


class ProgramError(Exception):
    """A program did not do what was agreed: its run has failed, with this line as the reason."""


@dataclass(frozen=True)
class Command:
    """A program to be run.

    Attributes:
        words: the program and its arguments.
        folder: in which it runs.
        output: the file that keeps what it prints.
        environment: its variables.
        timeout_sec: after which it is ended; None: never.
        name: what messages call it.
        limit: what sets the timeout.
    """

    words: Sequence[str]
    folder: Path
    output: Path
    environment: Mapping[str, str]
    timeout_sec: float | None
    name: str = "the program"
    limit: str = "external.timeout_sec"


@dataclass(frozen=True)
class Ending:
    """How a program ended: its exit status, negative where a signal ended it, its seconds and its most memory."""

    status: int
    seconds: float
    peak_bytes: int

    @property
    def how(self) -> str:
        """The exit status in words."""
        return describe_exit(self.status)


def run_command(
    command: Command, log: Log, should_stop: Callable[[], bool], on_line: Callable[[float], None] = lambda _: None
) -> Ending:
    """Run a program to its end.

    Args:
        command: the program.
        log: reads what it prints.
        should_stop: asked a few times a second whether to end here.
        on_line: called with the seconds since the start, a few times a second, once the log has a row.

    Raises:
        RunStoppedError: if it was asked to stop.
        ProgramError: if the program cannot be started, or takes too long.
    """
    started = time.perf_counter()
    try:
        program = subprocess.Popen(
            command.words,
            cwd=command.folder,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (no threads hold locks)
        )
    except OSError as refused:
        raise ProgramError(f"{command.words[0]}: cannot be started ({refused.strerror or refused})") from None
    try:
        status, usage = _listen(command, program, log, started, should_stop, on_line)
    finally:
        _end(program)
    # Linux counts in KiB, macOS in bytes.
    peak_bytes = usage * (1 if sys.platform == "darwin" else 1024)
    return Ending(status, time.perf_counter() - started, peak_bytes)


def _listen(
    command: Command,
    program: subprocess.Popen[bytes],
    log: Log,
    started: float,
    should_stop: Callable[[], bool],
    on_line: Callable[[float], None],
) -> tuple[int, int]:
    """Read what a program prints until it ends; return its exit status and its peak memory as the system counts it."""
    assert program.stdout is not None
    os.set_blocking(program.stdout.fileno(), False)
    told_at, pending, written, is_open = 0.0, b"", 0, True
    with command.output.open("wb") as file, selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ)
        while True:
            ended, status, usage = os.wait4(program.pid, os.WNOHANG)
            if is_open:
                selector.select(0 if ended else POLL_SEC)
            elif not ended:
                time.sleep(POLL_SEC)  # it prints nothing any more, and goes on
            seconds = time.perf_counter() - started
            for chunk in _chunks(program.stdout) if is_open else ():
                is_open = bool(chunk)
                written = _keep(file, chunk, written)
                *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    log.read(line, seconds)
                pending = pending[-MAX_LINE_BYTES:]
            file.flush()
            if ended:
                log.read(pending, seconds)
                program.returncode = os.waitstatus_to_exitcode(status)
                return program.returncode, usage.ru_maxrss
            if should_stop():
                raise RunStoppedError
            if command.timeout_sec is not None and seconds > command.timeout_sec:
                raise ProgramError(f"{command.name} had not ended after {command.timeout_sec:g} s ({command.limit})")
            if log.rows and seconds - told_at > PROGRESS_SEC:
                told_at = seconds
                on_line(seconds)


def _chunks(pipe: IO[bytes]) -> list[bytes]:
    """Read what is there, without waiting; an empty chunk comes last where the pipe was closed."""
    found: list[bytes] = []
    with suppress(BlockingIOError):  # nothing more for now
        while len(found) < MAX_CHUNKS and b"" not in found[-1:]:
            found.append(os.read(pipe.fileno(), 65_536))
    return found


def _keep(file: IO[bytes], chunk: bytes, written: int) -> int:
    """Write output down until there is too much of it."""
    if written < MAX_OUTPUT_BYTES:
        file.write(chunk[: MAX_OUTPUT_BYTES - written])
        if written + len(chunk) >= MAX_OUTPUT_BYTES:
            file.write(b"\n[more was printed]\n")
    return written + len(chunk)


def _end_with_parent() -> None:
    """Let the program end with the process that started it, also where that one is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(program: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started: first asked, then killed."""
    for number, seconds in ((signal.SIGTERM, GRACE_SEC), (signal.SIGKILL, 0.0)):
        with suppress(ProcessLookupError, PermissionError):  # it has ended, and so have its children
            os.killpg(program.pid, number)
            deadline = time.monotonic() + seconds
            while program.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
    program.wait()
    if program.stdout is not None:
        program.stdout.close()
