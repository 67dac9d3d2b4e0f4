"""Users' scripts: run one to its end without a shell, and keep what it prints."""

from __future__ import annotations

import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from gan_ablate.errors import describe_exit
from gan_ablate.execution.checkpoint import RunStoppedError
from gan_ablate.execution.log_files import CHUNK_BYTES
from gan_ablate.execution.script_log import Lines, times_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gan_ablate.execution.script_log import ScriptLog

POLL_SEC, PROGRESS_SEC, GRACE_SEC = 0.1, 0.25, 5.0

_LAUNCHER = """
import json, os, signal, subprocess, sys, threading

def end_with_parent():
    os.read(0, 1)  # returns when the parent process ends
    os.killpg(0, signal.SIGKILL)

signal.signal(signal.SIGTERM, lambda *_: None)  # a script inherits no handler, but would inherit SIG_IGN
threading.Thread(target=end_with_parent, daemon=True).start()
try:
    script = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=2)
except OSError as refused:
    report = {"refused": refused.strerror or str(refused)}
else:
    _, status, usage = os.wait4(script.pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    report = {"status": os.waitstatus_to_exitcode(status), "peak_bytes": usage.ru_maxrss * unit}
os.write(1, json.dumps(report).encode())
os._exit(0)
"""
"""A small process between this one and a script: it ends the script with this one, and measures its memory.

Linux counts the memory of the process that starts another one as the other's, so a large process cannot measure it.
What the script prints comes from standard error, the launcher's report from standard output.
"""


class ScriptError(Exception):
    """A script did not do what was agreed; its run fails with this message."""


@dataclass(frozen=True)
class Script:
    """A script to run.

    Attributes:
        words: the command and its arguments.
        folder: the working folder.
        output: the file that keeps what the script prints.
        environment: the environment variables.
        timeout_sec: seconds after which the script is ended; None: never.
        name: how messages call it.
    """

    words: Sequence[str]
    folder: Path
    output: Path
    environment: Mapping[str, str]
    timeout_sec: float | None
    name: str = "the program"


@dataclass(frozen=True)
class ScriptExit:
    """How a script ended.

    Attributes:
        status: the exit code; negative: the number of the signal that ended the script.
        seconds: wall-clock seconds.
        peak_bytes: the peak resident memory of the script's process, or of the largest child process that it waited
            for, as the operating system measures it.
    """

    status: int
    seconds: float
    peak_bytes: int

    @property
    def reason(self) -> str:
        """The exit status in words."""
        return describe_exit(self.status)


def run_script(
    script: Script,
    log: ScriptLog,
    should_stop: Callable[[], bool],
    on_progress: Callable[[float], None] = lambda _: None,
) -> ScriptExit:
    """Run a script to its end. However this function ends, all processes of the script's group end with it.

    Args:
        script: what to run.
        log: reads the lines that the script prints.
        should_stop: asked at least ten times a second whether to end here.
        on_progress: called with the seconds since the start, at most four times a second, once the log has a row.

    Raises:
        RunStoppedError: if it was asked to stop.
        ScriptError: if the script cannot be started, or takes too long.
    """
    started, progress_at = time.perf_counter(), 0.0
    process = _start(script)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with script.output.open("wb") as file, times_path(script.output).open("w", encoding="ascii") as times:
            output = _Output(process.stderr, file, times, log, started)
            while process.poll() is None:
                output.read(POLL_SEC)
                seconds = time.perf_counter() - started
                log.read_files(seconds)
                if should_stop():
                    raise RunStoppedError
                if script.timeout_sec is not None and seconds > script.timeout_sec:
                    limit = f"{script.timeout_sec:g} s (external.timeout_sec)"
                    raise ScriptError(f"{script.name} had not ended after {limit}")
                if log.rows and seconds - progress_at > PROGRESS_SEC:
                    progress_at = seconds
                    on_progress(seconds)
            output.read_rest()
            log.read_files(time.perf_counter() - started, is_last=True)
        report = json.loads(process.stdout.read() or b"{}")  # nothing where a script killed its process group
    finally:
        _end(process)
    if "refused" in report:
        raise ScriptError(f"{script.words[0]}: cannot be started ({report['refused']})")
    seconds = time.perf_counter() - started
    return ScriptExit(report.get("status", process.returncode), seconds, report.get("peak_bytes", 0))


def _start(script: Script) -> subprocess.Popen[bytes]:
    """Start a script's launcher as the first process of its own session and process group."""
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, *script.words],
            cwd=script.folder,
            env=script.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as refused:
        raise ScriptError(f"{script.words[0]}: cannot be started ({refused.strerror or refused})") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all processes of a script's group: first ask them, then kill them."""
    with suppress(ProcessLookupError, PermissionError):  # they have ended
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SEC)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


MAX_OUTPUT_BYTES = 50_000_000
CUT = b"\n[more was printed]\n"
"""The end of a file of output that is cut."""

MAX_LAST_CHUNKS = 64
"""Chunks that are read after a script's end: a child process of it may print forever."""

TIME_SEC = 0.001
"""Seconds between two times of the output that are kept."""


class _Output:
    """Copies what a script prints to a file, up to ``MAX_OUTPUT_BYTES``, and its lines to a log."""

    def __init__(self, pipe: IO[bytes], file: IO[bytes], times: IO[str], log: ScriptLog, started: float) -> None:
        self._pipe, self._file, self._times, self._started = pipe, file, times, started
        self._lines = Lines(log)
        self._is_open = True
        self._num_bytes = 0
        self._timed_sec = -TIME_SEC

    def read(self, timeout_sec: float) -> bool:
        """Read a chunk, and return whether there was one within so many seconds."""
        if not self._is_open:  # the script may close its output and go on
            time.sleep(timeout_sec)
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            if not selector.select(timeout_sec):
                return False
        chunk = os.read(self._pipe.fileno(), CHUNK_BYTES)
        self._is_open = bool(chunk)
        room = MAX_OUTPUT_BYTES - self._num_bytes
        seconds = time.perf_counter() - self._started
        if room > 0:
            if seconds - self._timed_sec >= TIME_SEC:
                self._times.write(f"{self._num_bytes} {seconds:.4f}\n")
                self._timed_sec = seconds
            self._file.write(chunk[:room] + (CUT if len(chunk) >= room else b""))
            self._file.flush()
        self._num_bytes += len(chunk)
        self._lines.feed(chunk, seconds)
        return self._is_open

    def read_rest(self) -> None:
        """Read what a script printed before it ended."""
        for _ in range(MAX_LAST_CHUNKS):
            if not self.read(0.0):
                break
        self._lines.end(time.perf_counter() - self._started)


def read_output(output: Path, log: ScriptLog, seconds: float) -> bool:
    """Read the kept output of a script that has ended, as ``run_script`` read it, and the files that its log names.

    Args:
        output: the file of what it printed; the times lie beside it.
        log: reads its lines.
        seconds: how long it took.

    Returns:
        Whether all is there that it printed: long output is cut.

    Raises:
        OSError: if it cannot be read.
    """
    content = output.read_bytes()
    is_whole = not content.endswith(CUT)
    content = content if is_whole else content.removesuffix(CUT)
    lines, end = Lines(log), len(content)
    starts = [line.split() for line in times_path(output).read_text("ascii").splitlines()]
    times = [(int(start), float(second)) for start, second in starts] or [(0, seconds)]
    for (start, second), (stop, _) in itertools.pairwise([*times, (end, seconds)]):
        if stop > start:
            lines.feed(content[start:stop], second)
    lines.end(seconds)
    log.read_files(seconds, is_last=True)
    return is_whole
