"""Logs: what the lines that a user's script prints say of steps and losses."""

from __future__ import annotations

import itertools
import math
import re
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gan_ablate.design.external import compile_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
