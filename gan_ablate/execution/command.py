"""Commands: run one to its end without a shell, and read what its lines say of steps and losses."""

from __future__ import annotations

import ctypes
import itertools
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


MAX_LINE_BYTES = 10_000
MAX_HISTORY = 10_000
"""Rows of a history; of a longer one every second is kept, or every fourth and so on."""

MAX_STEP = 10**15
"""More than any training takes, and exact in float64."""

MATCH_SEC = 1.0
"""Seconds that a log's pattern may take for one line: it may backtrack for ever."""

_STYLES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))")
"""What terminals take for colours, movements of the cursor and titles; programs print it to pipes, too."""

_NOT_FINITE = re.compile(r"\b(nan|non-?finite)\b", re.IGNORECASE)


@dataclass
class LogRow:
    """What lines of a log say of one step.

    Attributes:
        step: counted over all epochs.
        epoch: how many times the steps have begun again, where it is not known how many an epoch has; else 0.
        second: when the first of the lines came.
        losses: ``loss_d`` and ``loss_g``, or one of them.
    """

    step: int
    epoch: int
    second: float
    losses: dict[str, float]


class Log:
    """Reads a program's output, line by line.

    Args:
        pattern: a regular expression with groups of ``LOG_GROUPS``; empty: no line says anything.

    Attributes:
        rows: what its lines have said so far, a row a step.
        last_line: the last one that is not empty.
    """

    def __init__(self, pattern: str = "") -> None:
        self.rows: list[LogRow] = []
        self.last_line = ""
        self._pattern = compile_log(pattern) if pattern else None
        self._has_steps = self._pattern is not None and "step" in self._pattern.groupindex
        self._problem = "matches no line of its output" if pattern else ""
        self._match_sec = 0.0
        self._raw: tuple[int | None, int] = (None, 0)  # epoch and step as the last row's lines have them
        self._first_epoch: int | None = None
        self._before = 0  # steps of the epochs that are over
        self._epochs = 0

    @property
    def is_finite(self) -> bool:
        """Whether the losses of the last row are numbers."""
        return not self.rows or all(map(math.isfinite, self.rows[-1].losses.values()))

    @property
    def tells_divergence(self) -> bool:
        """Whether a program that gave up did so for a number that is none: by its losses, or by its last line."""
        return not self.is_finite or _NOT_FINITE.search(self.last_line) is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with the pattern, if anything is."""
        return (f"external.log {self._problem}",) if self._problem else ()

    def read(self, line: bytes, second: float) -> None:
        """Take in a line that came after so many seconds."""
        text = line[:MAX_LINE_BYTES].decode("utf-8", "replace")
        text = _STYLES.sub("", text).strip()
        if text:
            self.last_line = "".join(c if c.isprintable() else " " for c in text[:300])
        match = self._search(text, second)
        found = {} if match is None else {name: value for name, value in match.groupdict().items() if value}
        if not found:
            return
        try:
            self._add(found, second)
        except ValueError:  # a line whose numbers are none
            if not self.rows:
                self._problem = "matches lines of its output, but not one whose groups are numbers"
            return
        self._problem = ""

    def _search(self, text: str, second: float) -> re.Match[str] | None:
        """Search a line, and give the pattern up once it takes too long."""
        if self._pattern is None:
            return None
        try:
            with _time_limit(MATCH_SEC):
                started = time.perf_counter()  # of many short lines the limit takes longer than the search
                match = self._pattern.search(text)
                self._match_sec += time.perf_counter() - started
        except TimeoutError:
            match = None
            self._match_sec += MATCH_SEC
        if self._match_sec > MATCH_SEC + 0.1 * second:
            self._pattern, self._problem = None, f"took longer than {MATCH_SEC:g} s, and was not searched for any more"
        return match

    def _add(self, found: Mapping[str, str], second: float) -> None:
        """Add what a line says to the last row, or as a row of its own.

        Raises:
            ValueError: if what should be a number is none.
        """
        losses = {name: float(found[name].rstrip(",;)]")) for name in ("loss_d", "loss_g") if name in found}
        step, epoch, per_epoch = (_read_count(found.get(name)) for name in ("step", "epoch", "steps_per_epoch"))
        last = self.rows[-1] if self.rows else None
        if step is None and last is not None and (self._has_steps or not losses.keys() & last.losses.keys()):
            last.losses.update(losses)
            return
        if step is None:
            if self._has_steps:
                return  # of a step that no line has named yet
            self.rows.append(LogRow(len(self.rows) + 1, 0, second, losses))
            return
        if last is not None and (epoch, step) == self._raw:
            last.losses.update(losses)
            return
        self.rows.append(LogRow(self._count_steps(epoch, step, per_epoch), self._epochs, second, losses))
        self._raw = epoch, step

    def _count_steps(self, epoch: int | None, step: int, per_epoch: int | None) -> int:
        """Count a step over all epochs: many scripts begin again with each."""
        if epoch is not None and per_epoch is not None:
            self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
            return max(epoch - self._first_epoch, 0) * per_epoch + step
        last_epoch, last_step = self._raw
        if self.rows and (step < last_step or (step == last_step and epoch != last_epoch)):
            if per_epoch is None:
                of_epoch = [row.step for row in self.rows[-2:] if row.epoch == self._epochs]
                gap = of_epoch[1] - of_epoch[0] if len(of_epoch) == 2 else max(last_step, 1)
                self._before += last_step + gap - step  # as if the next line of the epoch had come
                self._epochs += 1
            else:
                self._before += per_epoch
        return self._before + step

    def history(self) -> dict[str, list[float]]:
        """Columns as a record keeps them: those that the lines had, without rows in which a number is none."""
        names = [name for name in ("loss_d", "loss_g") if any(name in row.losses for row in self.rows)]
        rows = [
            [float(row.step), *(row.losses[name] for name in names)]
            for row in self.rows
            if all(math.isfinite(row.losses.get(name, math.nan)) for name in names)
        ]
        rows = rows[:: -(-len(rows) // MAX_HISTORY) or 1]
        return {name: [row[i] for row in rows] for i, name in enumerate(["step", *names])} if rows else {}

    def step_ms(self) -> list[float]:
        """Milliseconds of a step between each two rows; none where lines do not name steps.

        Of rows that came at once the last counts. Between two epochs of unknown length nothing is known.
        """
        if not self._has_steps:
            return []
        last = {row.second: row for row in self.rows}
        return [
            1e3 * (b.second - a.second) / (b.step - a.step)
            for a, b in itertools.pairwise(last.values())
            if b.step > a.step and b.epoch == a.epoch
        ]


def _read_count(text: str | None) -> int | None:
    """Read a step or an epoch.

    Raises:
        ValueError: if it is none that a training may have.
    """
    if text is None:
        return None
    number = int(text.rstrip(",;)]"))
    if not 0 <= number <= MAX_STEP:
        raise ValueError(text)
    return number


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in what takes longer. ``re`` looks for signals while it searches, in a main thread."""
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
