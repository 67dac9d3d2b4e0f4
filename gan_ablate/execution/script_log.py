"""Logs of users' scripts: read steps and losses from what a script prints, or from files that it writes."""

from __future__ import annotations

import itertools
import math
import re
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gan_ablate.design.script_logs import (
    JSON_LINES,
    LOG_GROUPS,
    PRINTED,
    LogFile,
    compile_log,
)
from gan_ablate.design.validation import shorten
from gan_ablate.execution import log_files
from gan_ablate.execution.log_files import MAX_LINE_BYTES, EventFiles, TableFile, find_column, parse_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_HISTORY = 10_000
"""Rows of a history: from a longer log, every second row is kept, or every third, and so on."""

MAX_STEP = 10**15
"""More than any training takes, and exact in float64."""

MAX_SHOWN_COLUMNS = 12
"""Columns that a note names."""

MATCH_SEC = 1.0
"""Seconds that a log's pattern may take for one line: it may backtrack forever."""

_CONTROL_SEQUENCES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))")
"""What terminals read as colours, cursor movements and titles; scripts print them to pipes, too."""

_NOT_FINITE = re.compile(r"\b(nan|non-?finite)\b", re.IGNORECASE)


def times_path(output: Path) -> Path:
    """Return the file that keeps when a script printed what: a number of bytes and a second a line."""
    return output.with_suffix(".times")


class Lines:
    """Splits what a script prints into the lines of its log; a carriage return ends a line, as of a progress bar.

    Args:
        log: reads the lines.
    """

    def __init__(self, log: ScriptLog) -> None:
        self._log = log
        self._line = b""  # the last one, which has no end yet

    def feed(self, chunk: bytes, second: float) -> None:
        """Read a chunk that was printed so many seconds after the start."""
        *lines, last = (self._line + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._log.read(line, second)
        self._line = last[-MAX_LINE_BYTES:]

    def end(self, second: float) -> None:
        """Read the last line, which may have no end."""
        self._log.read(self._line, second)
        self._line = b""


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
    """Reads a script's output, line by line, and the files of numbers that it writes.

    Args:
        log: a regular expression with groups of ``LOG_GROUPS``, a name in ``LOG_PATTERNS`` or ``JSON_LINES``, or a
            file; empty: no line has values.
        work: the script's working folder, where a file is.

    Attributes:
        rows: the values so far, a row per step.
        last_line: the last line that is not empty, at most 300 printable characters.
    """

    def __init__(self, log: str | LogFile = "", work: Path | None = None) -> None:
        self.rows: list[LogRow] = []
        self.last_line = ""
        self._log, self._work = LogFile(jsonl=PRINTED) if log == JSON_LINES else log, work
        is_pattern = isinstance(self._log, str) and bool(self._log)
        self._pattern = compile_log(str(self._log)) if is_pattern else None
        self._has_steps = self._pattern is not None and "step" in self._pattern.groupindex
        self._problem = "matches no line of its output" if is_pattern else ""
        self._match_sec = 0.0
        self._counter = _StepCounter()
        self._columns: dict[str, str] = {}
        self._table: TableFile | EventFiles | None = None
        if isinstance(self._log, LogFile):
            self._start_file(self._log)

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
        if isinstance(self._log, LogFile):
            if self._log.pattern == PRINTED:
                self._read_json(text, second)
            return
        match = self._search(text, second)
        found = {} if match is None else {name: value for name, value in match.groupdict().items() if value}
        if found:
            self._add_found(found, second, "matches lines of its output, but not one whose groups are numbers")

    def read_files(self, second: float, *, is_last: bool = False) -> None:
        """Read what was written since the last call to the file that the log names, if it names one.

        Args:
            second: seconds from the start of the script.
            is_last: whether the script has ended; otherwise most calls do nothing.
        """
        if self._table is None or not (is_last or second >= self._table.due):
            return
        started = time.perf_counter()
        with suppress(OSError):  # it is being replaced
            self._table.is_last = is_last
            self._table.read(second)
        self._table.due = second + max(log_files.FILES_SEC, 10 * (time.perf_counter() - started))

    def _start_file(self, log: LogFile) -> None:
        """Prepare to read a file, or JSON lines of the output."""
        if log.pattern == PRINTED:
            self._problem = "finds no JSON object in the output"
            return
        self._problem = f"finds no file {shorten(log.pattern)} in {{out}}"
        assert self._work is not None, "a file lies in a folder"
        self._table = EventFiles(log, self._work, self) if log.tensorboard else TableFile(log, self._work, self)

    def _read_json(self, text: str, second: float) -> None:
        """Read a line that is a JSON object; others are passed over."""
        row = parse_object(text)
        if row is not None:
            self.add_row(row, second, "the output")

    def add_row(self, row: Mapping[str, object], second: float, where: str) -> None:
        """Add a row of named values, of which some are those that the log names.

        Args:
            row: column → value; empty texts and other things than numbers are passed over.
            second: seconds from the start of the script.
            where: what has the row, for notes.
        """
        assert isinstance(self._log, LogFile)
        for name in LOG_GROUPS:
            if name not in self._columns and (column := find_column(name, self._log, row)) is not None:
                self._columns[name] = column
        found = {name: text for name, column in self._columns.items() if (text := _write_number(row.get(column)))}
        if not found.keys() & {"loss_d", "loss_g"}:
            self._explain(row, where)
            return
        self._has_steps = self._has_steps or "step" in found
        self._add_found(found, second, f"finds no whole numbers as steps in {where}")

    def restart(self) -> None:
        """Forget all rows: the file is read anew."""
        self.rows, self._counter, self._columns = [], _StepCounter(), {}

    def _explain(self, row: Mapping[str, object], where: str) -> None:
        """Note why rows have no loss, as long as none has had one."""
        assert isinstance(self._log, LogFile)
        if self.rows:
            return
        has = ", ".join(shorten(str(name)) for name in list(row)[:MAX_SHOWN_COLUMNS])
        missing = [column for name, column in self._log.columns.items() if name not in self._columns]
        what = f"column {shorten(missing[0])}" if missing else "loss"
        advice = "" if missing else '; valid: loss_d = "COLUMN", loss_g = "COLUMN"'
        self._problem = f"finds no {what} in {where}, which has {has}{advice}"

    def _add_found(self, found: Mapping[str, str], second: float, problem: str) -> None:
        try:
            self._add(found, second)
        except ValueError:  # a group matched something that is no number
            if not self.rows:
                self._problem = problem
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


def _write_number(value: object) -> str:
    """Write a value of a table as a pattern's group would have it; empty for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return ""
    text = str(value).strip()
    return text.removesuffix(".0") if re.fullmatch(r"[0-9]+\.0", text) else text


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
