"""A command in, run to its end without a shell; what it printed, how long it took and what memory it had, out."""

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
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import torch

from gan_ablate.execution.checkpoint import RunStoppedError
from gan_ablate.execution.events import Progress
from gan_ablate.signals import describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gan_ablate.design.external import ExternalConfig
    from gan_ablate.execution.context import RunContext

MAX_OUTPUT_BYTES = 50_000_000
MAX_LINE_BYTES = 10_000
MAX_HISTORY = 10_000
"""Rows of a history; of a longer one every second is kept, or every fourth and so on."""

POLL_SEC, PROGRESS_SEC, GRACE_SEC = 0.1, 0.25, 5.0
_PR_SET_PDEATHSIG = 1


class ProgramError(Exception):
    """A program did not do what was agreed: its run has failed, with this line as the reason."""


@dataclass
class Heard:
    """What a program's output has told so far, a row each: step (or nothing), losses, and when."""

    steps: list[int] = field(default_factory=list)
    losses_d: list[float] = field(default_factory=list)
    losses_g: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    last_line: str = ""
    is_finite: bool = True
    """Whether the losses of the last line that told any are numbers."""

    def add(self, match: re.Match[str], second: float) -> None:
        """Take in a line that fits; one whose numbers are none is no such line."""
        found = match.groupdict()
        try:
            step = int(found["step"]) if found.get("step") else len(self.steps) + 1
            losses = [float(found[name]) if found.get(name) else math.nan for name in ("loss_d", "loss_g")]
        except ValueError:
            return
        told = [loss for name, loss in zip(("loss_d", "loss_g"), losses, strict=True) if found.get(name)]
        self.is_finite = all(map(math.isfinite, told))
        self.steps.append(step)
        self.losses_d.append(losses[0])
        self.losses_g.append(losses[1])
        self.seconds.append(second)

    def history(self) -> dict[str, list[float]]:
        """Columns as a record keeps them: those that were told, without what is no number."""
        columns = {"step": [float(step) for step in self.steps], "loss_d": self.losses_d, "loss_g": self.losses_g}
        told = {name: values for name, values in columns.items() if not all(map(math.isnan, values))}
        rows = [row for row in zip(*told.values(), strict=True) if all(map(math.isfinite, row))]
        rows = rows[:: -(-len(rows) // MAX_HISTORY) or 1]
        return {name: [row[i] for row in rows] for i, name in enumerate(told)} if rows else {}

    def step_ms(self) -> list[float]:
        """Milliseconds of a step between each two lines that tell of steps; of lines that come at once, the last."""
        last = dict(zip(self.seconds, self.steps, strict=True))
        pairs = itertools.pairwise(last.items())
        return [1e3 * (end - start) / (b - a) for (start, a), (end, b) in pairs if b > a]


def run_command(
    config: ExternalConfig,
    context: RunContext,
    arguments: list[str],
    work: Path,
    output: Path,
    heard: Heard,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> tuple[float, int]:
    """Run a program to its end.

    Args:
        config: the run that it is.
        context: where and how.
        arguments: the program and its arguments.
        work: the folder in which it runs.
        output: where what it prints is kept.
        heard: takes in what its log tells.
        on_progress: called a few times a second, once there is something to tell.
        should_stop: asked a few times a second whether to end here.

    Returns:
        Its seconds, and the most memory that it had, in bytes.

    Raises:
        RunStoppedError: if it was asked to stop.
        ProgramError: if the program cannot be started, fails, or takes too long.
    """
    threads = str(torch.get_num_threads())
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)}
    environment["PYTHONUNBUFFERED"] = "1"  # or nothing is heard before the end
    if context.device.startswith("cuda:"):
        environment["CUDA_VISIBLE_DEVICES"] = context.device.removeprefix("cuda:")
    started = time.perf_counter()
    try:
        program = subprocess.Popen(
            arguments,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (no threads hold locks)
        )
    except OSError as refused:
        raise ProgramError(f"{arguments[0]}: cannot be started ({refused.strerror or refused})") from None
    try:
        status, usage = _listen(config, program, output, heard, started, on_progress, should_stop)
    finally:
        _end(program)
    seconds = time.perf_counter() - started
    if status != 0:
        how, last = describe_exit(status), f": {heard.last_line}" if heard.last_line else ""
        raise ProgramError(f"the program ended with {how}{last}; all of its output is in {output.name}")
    # Linux counts in KiB, macOS in bytes.
    return seconds, usage * (1 if sys.platform == "darwin" else 1024)


def _listen(
    config: ExternalConfig,
    program: subprocess.Popen[bytes],
    output: Path,
    heard: Heard,
    started: float,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> tuple[int, int]:
    """Read what a program prints until it ends; return its exit status and its peak memory as the system counts it."""
    pattern = re.compile(config.log) if config.log else None
    assert program.stdout is not None
    os.set_blocking(program.stdout.fileno(), False)
    told_at, pending, written = 0.0, b"", 0
    with output.open("wb") as file, selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ)
        while True:
            ended, status, usage = os.wait4(program.pid, os.WNOHANG)
            selector.select(0 if ended else POLL_SEC)
            now = time.perf_counter()
            for chunk in _chunks(program.stdout):
                written = _keep(file, chunk, written)
                *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    _hear(line, pattern, heard, now - started)
                pending = pending[-MAX_LINE_BYTES:]
            file.flush()
            if ended:
                _hear(pending, pattern, heard, now - started)
                program.returncode = os.waitstatus_to_exitcode(status)
                return program.returncode, usage.ru_maxrss
            if should_stop():
                raise RunStoppedError
            if config.timeout_sec is not None and now - started > config.timeout_sec:
                raise ProgramError(f"the program had not ended after {config.timeout_sec:g} s (external.timeout_sec)")
            if heard.steps and now - told_at > PROGRESS_SEC:
                told_at = now
                on_progress(_progress(config, heard, now - started))


def _chunks(pipe: IO[bytes]) -> list[bytes]:
    """Read all that is there, without waiting."""
    found = []
    with suppress(BlockingIOError):  # nothing more for now
        while chunk := os.read(pipe.fileno(), 65_536):
            found.append(chunk)
    return found


def _keep(file: IO[bytes], chunk: bytes, written: int) -> int:
    """Write output down until there is too much of it."""
    if written < MAX_OUTPUT_BYTES:
        file.write(chunk[: MAX_OUTPUT_BYTES - written])
        if written + len(chunk) >= MAX_OUTPUT_BYTES:
            file.write(b"\n[more was printed]\n")
    return written + len(chunk)


def _hear(line: bytes, pattern: re.Pattern[str] | None, heard: Heard, second: float) -> None:
    text = line[:MAX_LINE_BYTES].decode("utf-8", "replace").strip()
    if text:
        heard.last_line = "".join(c if c.isprintable() else " " for c in text[:300])
    match = pattern.search(text) if pattern else None
    if match is not None:
        heard.add(match, second)


def _progress(config: ExternalConfig, heard: Heard, seconds: float) -> Progress:
    step = heard.steps[-1]
    losses = heard.losses_d[-1], heard.losses_g[-1]
    return Progress(config.run_id, step, step / seconds, *losses, fid=None, fid_step=None)


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
