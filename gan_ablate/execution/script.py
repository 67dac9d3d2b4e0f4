"""Users' scripts: run one to its end without a shell, and read steps and losses from what it prints."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from gan_ablate.design.external import compile_log
from gan_ablate.errors import describe_exit
from gan_ablate.execution.checkpoint import RunStoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

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
        with script.output.open("wb") as file:
            output = _Output(process.stderr, file, log, started)
            while process.poll() is None:
                output.read(POLL_SEC)
                seconds = time.perf_counter() - started
                if should_stop():
                    raise RunStoppedError
                if script.timeout_sec is not None and seconds > script.timeout_sec:
                    limit = f"{script.timeout_sec:g} s (external.timeout_sec)"
                    raise ScriptError(f"{script.name} had not ended after {limit}")
                if log.rows and seconds - progress_at > PROGRESS_SEC:
                    progress_at = seconds
                    on_progress(seconds)
            output.read_rest()
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
MAX_LINE_BYTES = 10_000
CHUNK_BYTES = 65_536
MAX_LAST_CHUNKS = 64
"""Chunks that are read after a script's end: a child process of it may print forever."""


class _Output:
    """Copies what a script prints to a file, up to ``MAX_OUTPUT_BYTES``, and its lines to a log."""

    def __init__(self, pipe: IO[bytes], file: IO[bytes], log: ScriptLog, started: float) -> None:
        self._pipe, self._file, self._log, self._started = pipe, file, log, started
        self._is_open = True
        self._num_bytes = 0
        self._line = b""  # the last one, which has no end yet

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
        self._num_bytes += len(chunk)
        if room > 0:
            self._file.write(chunk[:room] + (b"\n[more was printed]\n" if len(chunk) >= room else b""))
            self._file.flush()
        seconds = time.perf_counter() - self._started
        *lines, last = (self._line + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._log.read(line, seconds)
        self._line = last[-MAX_LINE_BYTES:]
        return self._is_open

    def read_rest(self) -> None:
        """Read what a script printed before it ended."""
        for _ in range(MAX_LAST_CHUNKS):
            if not self.read(0.0):
                break
        self._log.read(self._line, time.perf_counter() - self._started)


MAX_HISTORY = 10_000
"""Rows of a history: from a longer log, every second row is kept, or every third, and so on."""

MAX_STEP = 10**15
"""More than any training takes, and exact in float64."""

MATCH_SEC = 1.0
"""Seconds that a log's pattern may take for one line: it may backtrack forever."""

_CONTROL_SEQUENCES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))")
"""What terminals read as colours, cursor movements and titles; scripts print them to pipes, too."""

_NOT_FINITE = re.compile(r"\b(nan|non-?finite)\b", re.IGNORECASE)


@dataclass
class LogRow:
    """What a log's lines say about one step.

    Attributes:
        step: counted over all epochs.
        epoch: how many times the steps have begun again, where the number of steps per epoch is unknown; else 0.
        second: seconds from the start to the first of the lines.
        losses: ``loss_d``, ``loss_g`` or both.
    """

    step: int
    epoch: int
    second: float
    losses: dict[str, float]


class ScriptLog:
    """Reads a script's output, line by line.

    Args:
        pattern: a regular expression with groups of ``LOG_GROUPS``; empty: no line has values.

    Attributes:
        rows: the values so far, a row per step.
        last_line: the last line that is not empty, at most 300 printable characters.
    """

    def __init__(self, pattern: str = "") -> None:
        self.rows: list[LogRow] = []
        self.last_line = ""
        self._pattern = compile_log(pattern) if pattern else None
        self._has_steps = self._pattern is not None and "step" in self._pattern.groupindex
        self._problem = "matches no line of its output" if pattern else ""
        self._match_sec = 0.0
        self._counter = _StepCounter()

    @property
    def is_finite(self) -> bool:
        """Whether the losses of the last row are finite numbers."""
        return not self.rows or all(map(math.isfinite, self.rows[-1].losses.values()))

    @property
    def shows_divergence(self) -> bool:
        """Whether the last row's losses or the last line say that a number is not finite."""
        return not self.is_finite or _NOT_FINITE.search(self.last_line) is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with the pattern, if anything is."""
        return (f"external.log {self._problem}",) if self._problem else ()

    def read(self, line: bytes, second: float) -> None:
        """Read a line that was printed so many seconds after the start."""
        text = line[:MAX_LINE_BYTES].decode("utf-8", "replace")
        text = _CONTROL_SEQUENCES.sub("", text).strip()
        if text:
            self.last_line = "".join(c if c.isprintable() else " " for c in text[:300])
        match = self._search(text, second)
        found = {} if match is None else {name: value for name, value in match.groupdict().items() if value}
        if not found:
            return
        try:
            self._add(found, second)
        except ValueError:  # a group matched something that is no number
            if not self.rows:
                self._problem = "matches lines of its output, but not one whose groups are numbers"
            return
        self._problem = ""

    def history(self) -> dict[str, list[float]]:
        """Return the columns of a record's history: ``step`` and the losses, of rows whose losses are all finite."""
        names = [name for name in ("loss_d", "loss_g") if any(name in row.losses for row in self.rows)]
        rows = [
            [float(row.step), *(row.losses[name] for name in names)]
            for row in self.rows
            if all(math.isfinite(row.losses.get(name, math.nan)) for name in names)
        ]
        rows = rows[:: -(-len(rows) // MAX_HISTORY) or 1]
        return {name: [row[i] for row in rows] for i, name in enumerate(["step", *names])} if rows else {}

    def step_ms(self) -> list[float]:
        """Return the milliseconds per step between each two rows; nothing where lines do not name steps.

        Of rows with the same time only the last counts. Between two epochs of unknown length there is no time.
        """
        if not self._has_steps:
            return []
        last = {row.second: row for row in self.rows}
        return [
            1e3 * (b.second - a.second) / (b.step - a.step)
            for a, b in itertools.pairwise(last.values())
            if b.step > a.step and b.epoch == a.epoch
        ]

    def _search(self, text: str, second: float) -> re.Match[str] | None:
        """Search a line for the pattern; drop the pattern once searching takes too long."""
        if self._pattern is None:
            return None
        match, started = None, time.perf_counter()
        try:
            with _time_limit(MATCH_SEC):
                started = time.perf_counter()  # setting the limit takes longer than searching a short line
                match = self._pattern.search(text)
                self._match_sec += time.perf_counter() - started
        except TimeoutError:
            self._match_sec += MATCH_SEC
        if self._match_sec > MATCH_SEC + 0.1 * second:
            self._pattern, self._problem = None, f"took longer than {MATCH_SEC:g} s, and was not searched for any more"
        return match

    def _add(self, found: Mapping[str, str], second: float) -> None:
        """Add a line's values to the last row, or as a new row.

        Raises:
            ValueError: if a value is not a number.
        """
        losses = {name: float(found[name].rstrip(",;)]")) for name in ("loss_d", "loss_g") if name in found}
        step, epoch, per_epoch = (_read_count(found.get(name)) for name in ("step", "epoch", "steps_per_epoch"))
        last = self.rows[-1] if self.rows else None
        if step is not None:
            is_new = self._counter.last != (epoch, step)
        else:  # where steps are named, losses belong to the step named last; else the same loss begins the next step
            is_new = not self._has_steps and (last is None or bool(losses.keys() & last.losses.keys()))
        if not is_new:
            if last is not None:
                last.losses.update(losses)
            return
        total = len(self.rows) + 1 if step is None else self._counter.count(epoch, step, per_epoch)
        self.rows.append(LogRow(total, self._counter.num_restarts, second, losses))


class _StepCounter:
    """Counts steps over all epochs, of a script whose steps begin again with each epoch.

    Attributes:
        last: epoch and step, as the last line has them.
        num_restarts: how many times steps have begun again, where the number of steps per epoch is unknown.
    """

    def __init__(self) -> None:
        self.last: tuple[int | None, int] | None = None
        self.num_restarts = 0
        self._first_epoch: int | None = None
        self._offset = 0  # steps of the epochs before
        self._gap: int | None = None  # between the last two lines of this epoch

    def count(self, epoch: int | None, step: int, per_epoch: int | None) -> int:
        """Return a line's step, counted over all epochs."""
        last, self.last = self.last, (epoch, step)
        if epoch is not None and per_epoch is not None:
            self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
            return max(epoch - self._first_epoch, 0) * per_epoch + step
        last_step = -1 if last is None else last[1]
        if last is None or step > last_step:
            self._gap = None if last is None else step - last_step
        elif per_epoch is not None:
            self._offset += per_epoch
            self._gap = per_epoch + step - last_step
        else:  # as if the next line of the last epoch had come
            self._offset += last_step + (self._gap or max(last_step, 1)) - step
            self._gap = None
            self.num_restarts += 1
        return self._offset + step


def _read_count(text: str | None) -> int | None:
    """Read a step or an epoch.

    Raises:
        ValueError: if it is not a whole number from 0 to ``MAX_STEP``.
    """
    if text is None:
        return None
    number = int(text.rstrip(",;)]"))
    if not 0 <= number <= MAX_STEP:
        raise ValueError(text)
    return number


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in code that takes longer. Only a main thread has a limit: there ``re`` sees signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, end)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
