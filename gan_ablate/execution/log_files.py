"""Files of numbers that users' scripts write while they train: CSV, JSON lines, and event files of TensorBoard."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from gan_ablate.design.script_logs import find_usual_column

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from gan_ablate.design.script_logs import LogFile

MAX_LINE_BYTES = 10_000
CHUNK_BYTES = 65_536

FILES_SEC = 1.0
"""Seconds between two looks at a log's file; more where a look takes long."""


class Rows(Protocol):
    """What takes the rows of a file."""

    def add_row(self, row: Mapping[str, object], second: float, where: str) -> None:
        """Add a row of named values, see ``ScriptLog.add_row``."""

    def restart(self) -> None:
        """Forget all rows: the file is read anew."""


def find_column(name: str, log: LogFile, row: Collection[str]) -> str | None:
    """Find the column of a value: the one that the log names, or one with a usual name.

    Args:
        name: one of ``LOG_GROUPS``.
        log: the log.
        row: the names of the columns.
    """
    given = log.columns.get(name)
    return find_usual_column(name, row) if given is None else given if given in row else None


def parse_object(text: str) -> dict[str, Any] | None:
    """Parse a line that is a JSON object; return None for any other."""
    if not text.startswith("{"):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


class TableFile:
    """Reads the lines of a CSV file, or of a file of JSON lines, as they are written.

    Args:
        log: which file.
        work: the script's working folder.
        rows: takes the rows.

    Attributes:
        due: the second of the next look.
        is_last: whether the script has ended.
    """

    def __init__(self, log: LogFile, work: Path, rows: Rows) -> None:
        self.due, self.is_last = 0.0, False
        self._log, self._work, self._rows = log, work, rows
        self._path: Path | None = None
        self._offset = 0
        self._header: list[str] = []

    def read(self, second: float) -> None:
        """Read the lines that are new; of a file that was written anew, all."""
        found = [path for path in self._work.glob(self._log.pattern) if path.is_file()]
        if not found:
            return
        path = max(found, key=lambda one: (one.stat().st_mtime_ns, one.as_posix()))
        with path.open("rb") as file:
            first = file.readline(MAX_LINE_BYTES)
            is_other = path != self._path or (self._header and _split_cells(first) != self._header)
            if is_other or path.stat().st_size < self._offset:
                self._begin(path)
            file.seek(self._offset)
            while chunk := file.readlines(CHUNK_BYTES):
                is_whole = chunk[-1].endswith(b"\n") or self.is_last
                chunk = chunk if is_whole else chunk[:-1]  # the last line is being written
                self._offset += sum(map(len, chunk))
                for line in chunk:
                    self._read_line(line[:MAX_LINE_BYTES], second)
                if not is_whole:
                    break

    def _begin(self, path: Path) -> None:
        if self._path is not None:
            self._rows.restart()
        self._path, self._offset, self._header = path, 0, []

    def _read_line(self, line: bytes, second: float) -> None:
        assert self._path is not None
        if self._log.jsonl:
            row = parse_object(line.decode("utf-8", "replace").strip())
            if row is not None:
                self._rows.add_row(row, second, self._path.name)
        elif not self._header:
            self._header = _split_cells(line)
        elif cells := _split_cells(line):
            self._rows.add_row(dict(zip(self._header, cells, strict=False)), second, self._path.name)


def _split_cells(line: bytes) -> list[str]:
    text = line.decode("utf-8-sig", "replace")
    with suppress(csv.Error):
        return next(csv.reader(io.StringIO(text)), [])
    return []


class EventFiles:
    """Reads event files of TensorBoard with its own reader; see ``TableFile``."""

    def __init__(self, log: LogFile, work: Path, rows: Rows) -> None:
        self.due, self.is_last = 0.0, False
        self._log, self._work, self._rows = log, work, rows
        self._readers: dict[Path, Any] = {}

    def read(self, second: float) -> None:
        """Read all events; steps of the same number in several folders are one."""
        found = sorted(self._work.glob(self._log.pattern))
        folders = dict.fromkeys(path if path.is_dir() else path.parent for path in found)
        folders = dict.fromkeys(folder for folder in folders if any(folder.glob("*tfevents*")))
        if not folders:
            return
        loaded = [(folder, tag, events) for folder in folders for tag, events in self._load(folder).items()]
        tags = [tag for _, tag, _ in loaded]
        columns = {
            tag if tags.count(tag) == 1 else f"{folder.name}/{tag}": events for folder, tag, events in loaded
        }  # a writer for each loss, as ``add_scalars`` and mimicry have it, gives all of them one tag
        steps: dict[int, dict[str, float]] = {}
        times: dict[int, float] = {}
        chosen = {name: find_column(name, self._log, columns) for name in ("loss_d", "loss_g")}
        wanted = {tag for tag in chosen.values() if tag is not None}
        for tag in wanted:
            for at, step, value in columns[tag]:
                steps.setdefault(step, {})[tag] = value
                times[step] = max(at, times.get(step, at))
        self._rows.restart()
        start = min(times.values(), default=0.0)
        for step in sorted(steps):
            self._rows.add_row({"step": step, **steps[step]}, times[step] - start, self._log.pattern)
        if not wanted:
            self._rows.add_row(dict.fromkeys(columns, ""), second, self._log.pattern)

    def _load(self, folder: Path) -> dict[str, list[tuple[float, int, float]]]:
        """Read the scalars of a folder: tag → seconds of the clock, step and value of each."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util import tensor_util

        reader = self._readers.get(folder)
        if reader is None:
            guidance = {"scalars": 0, "tensors": 0, "images": 1, "histograms": 1, "audio": 1}
            reader = self._readers[folder] = EventAccumulator(str(folder), size_guidance=guidance)
        reader.Reload()
        tags = reader.Tags()
        found = {
            tag: [(event.wall_time, event.step, float(event.value)) for event in reader.Scalars(tag)]
            for tag in tags["scalars"]
        }
        for tag in tags["tensors"]:
            values = [(event, tensor_util.make_ndarray(event.tensor_proto)) for event in reader.Tensors(tag)]
            numbers = [
                (event.wall_time, event.step, float(value))
                for event, value in values
                if value.dtype.kind == "f" and value.size == 1
            ]
            if numbers:
                found.setdefault(tag, []).extend(numbers)
        return found
