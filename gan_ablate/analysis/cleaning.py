"""Cleaning of a user's table: read a CSV file, leave out rows that are not runs, parse statuses and numbers."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import math
import re
from collections import Counter
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path


STATUS_COLUMNS = ("status", "state")
"""Names, in any case and behind ``tags.`` or the like, of columns that say how a run ended."""

STATUS_WORDS: Mapping[str, tuple[str, ...]] = {
    "completed": ("completed", "complete", "finished", "success", "succeeded"),
    "diverged": ("diverged",),
    "failed": (
        "failed", "fail", "crashed", "crash", "killed", "error", "aborted", "cancelled", "canceled", "interrupted",
        "timeout", "preempted", "pruned", "out_of_memory",
    ),
    "unfinished": ("running", "pending", "queued", "scheduled", "waiting", "preempting", "paused"),
}  # fmt: skip
"""Status → its words in this program, W&B, MLflow, Optuna and schedulers, in any case."""

_EXAMPLES = ("finished", "crashed", "killed", "running", "complete", "pruned")
_MEANINGS = {word: status for status, words in STATUS_WORDS.items() for word in words}

NO_RESULT = ("failed", "unfinished")
"""Statuses of runs whose last numbers are not results."""

NOTHING = ("", "-", "nan", "none", "na", "n/a", "#n/a", "<na>", "null")
"""Texts that stand for a missing value."""

_POINT = r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?"
"""``1,234.5``: commas between thousands."""
_COMMA = r"[+-]?(\d+(,\d+)?|\d{1,3}(\.\d{3})+,\d+)([eE][+-]?\d+)?"
"""``0,5`` or ``1.234,5``: a decimal comma."""
_GROUPED = r"[1-9]\d{0,2}(\.\d{3})+"
"""``1.234``: in a column of whole numbers, the point may separate thousands."""


def is_missing(value: Any) -> bool:
    """Whether a cell is empty."""
    if isinstance(value, str):
        return not value.strip()
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def drop_non_runs(frame: pd.DataFrame) -> tuple[pd.DataFrame, Counter[str]]:
    """Leave out rows that are not runs: empty rows, comments and repeated headers.

    Returns:
        The runs, whose index counts the rows of the table from 1, for messages; and kind of row → how many were left
        out.
    """
    columns = list(frame.columns)
    kinds = [_kind(row, columns) for row in frame.itertuples(index=False, name=None)]
    runs = frame.set_axis(range(1, len(frame) + 1), axis="index").loc[[not kind for kind in kinds]].copy()
    return runs, Counter(kind for kind in kinds if kind)


def _kind(row: tuple[Any, ...], columns: Sequence[str]) -> str:
    """Return the kind of a row that is not a run; empty for a run."""
    cells = [(name, value) for name, value in zip(columns, row, strict=True) if not is_missing(value)]
    if not cells:
        return "empty row{s}"
    if all(isinstance(value, str) and value.strip() == name for name, value in cells):
        return "repeated header{s}"
    is_comment = len(cells) == 1 and str(row[0]).lstrip().startswith("#")
    return "comment{s}" if is_comment else ""


def read_statuses(runs: pd.DataFrame, others: Collection[str], source: str) -> pd.Series[str]:
    """Read how each run ended: ``completed``, ``diverged``, ``failed`` or ``unfinished``.

    Args:
        runs: from ``drop_non_runs``.
        others: columns that are not a status, whatever their names.
        source: the table's name, for the message.

    Returns:
        A status per run; ``completed`` for every run without a column of statuses.

    Raises:
        UserError: naming the row and the value that is not a status.
    """
    statuses = pd.Series("completed", index=runs.index, dtype=object)
    for name in runs.columns:
        if re.split(r"[/.]", name)[-1].lower() not in STATUS_COLUMNS or name in others:
            continue
        words = ["" if is_missing(value) else str(value).strip() for value in runs[name]]
        # Optuna's enumeration is written as TrialState.COMPLETE.
        found = [_MEANINGS.get(word.lower().rpartition(".")[2]) for word in words]
        if name != "status" and not any(found):  # another kind of state
            continue
        for row, word, status in zip(runs.index, words, found, strict=True):
            if status is None:
                where = f"{source}: row {row}, {name} = {shorten(repr(word))}"
                advice = f"{', '.join(STATUS_WORDS)}, or as W&B, MLflow and Optuna write it: {', '.join(_EXAMPLES)}"
                raise UserError(f"{where}: valid: {advice}")
            if statuses[row] == "completed":
                statuses[row] = status
    return statuses


def drop_repeated(runs: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Leave out failed and unfinished attempts where the same run has another row.

    Args:
        runs: the runs, with a column ``status``.
        keys: columns that identify a run.

    Returns:
        The other runs, and how many rows were left out.
    """
    has_result = ~runs["status"].isin(NO_RESULT)
    is_repeated = has_result.groupby([runs[key] for key in keys], sort=False).transform("any")
    kept = has_result | ~(is_repeated | runs.duplicated(list(keys)))
    return runs.loc[kept].copy(), int((~kept).sum())


def left_out_words(counts: Mapping[str, int]) -> str:
    """Say how many rows were left out: ``2 empty rows, 1 repeated header``; empty where there are none.

    Args:
        counts: kind of row, with ``{s}`` where its plural has an s → how many.
    """
    return ", ".join(f"{num:,} {what.format(s='' if num == 1 else 's')}" for what, num in counts.items() if num)


def read_numbers(frame: pd.DataFrame, name: str, source: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Parse a column as numbers, NaN where a run has none; ``93.5 %`` is 0.935, and a comma may be decimal.

    Raises:
        UserError: naming the row and the value that is not a number, or is ambiguous.
    """
    column = frame[name]
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=math.nan)
    texts = {row: "" if is_missing(value) else str(value).strip() for row, value in column.items()}
    present = {row: text for row, text in texts.items() if text.lower() not in NOTHING}
    is_percent = bool(present) and all(text.endswith("%") for text in present.values())
    if is_percent:
        present = {row: text.removesuffix("%").rstrip() for row, text in present.items()}
    write = _choose_notation(present, name, source)
    numbers: dict[Any, float] = {}
    for row, text in present.items():
        number = _to_number(write(text))
        if number is None:
            raise UserError(f"{source}: row {row}, {name} = {shorten(repr(texts[row]))}: {_advise(text)}")
        numbers[row] = number / 100 if is_percent else number
    return np.array([numbers.get(row, math.nan) for row in texts], np.float64)


def _advise(text: str) -> str:
    """Say what would be valid where a text is no number."""
    if re.fullmatch(r"[\d.,\s]+(±|\+/-|\+-|\\pm)[\d.,\s]+%?", text) or re.fullmatch(r"[\d.,]+\s*\([\d.,]+\)", text):
        return "a mean over runs, and judge compares runs; valid: a row for each run, with its own number"
    if text.endswith("%"):
        return "valid: percent signs behind all numbers of the column, or behind none"
    return "valid: a number, or nothing where a run has none"


def whole_text(value: Any) -> str:
    """Write a cell without spaces around it; a whole number has no decimal point."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value)) if is_whole else str(value).strip()


def read_decimal(text: str) -> Decimal | None:
    """Parse a finite number to its last digit, or return None."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _choose_notation(texts: Mapping[Any, str], name: str, source: str) -> Callable[[str], str]:
    """Return a function that rewrites a column's numbers for Python; a column that fits two notations is refused."""
    if all(_to_number(text) is not None for text in texts.values()):
        grouped = [(row, text) for row, text in texts.items() if re.fullmatch(_GROUPED, text)]
        is_whole = all(re.fullmatch(_GROUPED, text) or text.isdecimal() for text in texts.values())
        if is_whole and 0 < len(grouped) < len(texts):
            row, text = grouped[0]
            advice = f"valid: {text}0 or {text.replace('.', '')}"
            raise UserError(f"{source}: row {row}, {name} = {text!r}: a decimal point, or one of thousands? {advice}")
        return str
    with_comma = [text for text in texts.values() if "," in text]
    has_point = all(re.fullmatch(_POINT, text) or _to_number(text) is not None for text in texts.values())
    has_comma = all(re.fullmatch(_COMMA, text) for text in texts.values())
    if with_comma and has_point and has_comma:
        row, text = next((row, text) for row, text in texts.items() if "," in text)
        advice = f"valid: {text.replace(',', '.')} or {text.replace(',', '')}"
        raise UserError(f"{source}: row {row}, {name} = {text!r}: a decimal comma, or one of thousands? {advice}")
    if with_comma and has_comma:
        return lambda text: text.replace(".", "").replace(",", ".")
    if with_comma and has_point:
        return lambda text: text.replace(",", "")
    return str


def _to_number(text: str) -> float | None:
    """Parse a number in Python's notation without underscores, or return None."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


MAX_TABLE_BYTES = 1_000_000_000


_DELIMITERS = (",", ";", "\t")


_OTHER_FILES = {
    b"PK\x03\x04": "a spreadsheet or an archive", b"\xd0\xcf\x11\xe0": "an old spreadsheet", b"\x1f\x8b": "compressed",
    b"PAR1": "Parquet",
}  # fmt: skip
"""First bytes of a file → its kind, if it is not text."""


_CELL_ERRORS = ("#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")
"""Errors that spreadsheets write into cells: a line that begins with one is not a comment."""


def read_csv(path: Path) -> tuple[pd.DataFrame, int]:
    """Read a CSV file. Every cell stays text, so that the level ``0.50`` does not become ``0.5``.

    Columns are separated by commas, semicolons or tabs. Lines that begin with ``#`` are comments.

    Returns:
        The table, and the number of comments that were left out.

    Raises:
        UserError: if there is no such file, or it is not a table.
    """
    # Only line ends of text files split lines, not every line break of Unicode.
    lines = list(io.StringIO(_read_text(path), newline=""))
    declared = re.fullmatch(r"sep=(.)\s*", lines[0]) if lines else None  # as Excel writes it
    lines = lines[1:] if declared else lines
    delimiter = declared[1] if declared else _find_delimiter(lines)
    rows, comments = _split_lines(path, lines, delimiter)
    if not rows:
        raise UserError(
            f"{path}: not a CSV table: no line in it but comments; valid: a line of names, then a row per run"
        )
    names, num_comments = rows[0], len(comments)
    if comments and any(
        _is_number(cell) for cell in names
    ):  # numbers are not names of columns: NumPy writes the names as a comment
        first, _ = _split_lines(path, [comments[-1].lstrip("# ")], delimiter)
        if first and len(first[0]) == len(names):
            names, num_comments = first[0], num_comments - 1
            rows.insert(0, names)
    named = [column for column, name in enumerate(names) if name]
    twice = next((names[column] for column in named if names[column] in names[:column]), None)
    if twice is not None:
        raise UserError(f"{path}: two columns are called {shorten(twice)}; rename one")
    for number, row in enumerate(rows[1:], 1):
        if any(row[len(names) :]):
            advice = "valid: one cell a column; quotes around what holds a comma, or semicolons between columns"
            raise UserError(f"{path}: row {number}: {len(row):,} cells for {len(names):,} columns; {advice}")
    # Only an empty cell is missing: a level may be called None.
    cells = [[row[column] if column < len(row) and row[column] else None for column in named] for row in rows[1:]]
    return pd.DataFrame(cells, columns=[names[column] for column in named], dtype=object), num_comments


def _read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with its mark, as Excel writes it.

    Raises:
        UserError: if there is no such file, or it is not text.
    """
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes; valid: at most {MAX_TABLE_BYTES:,}")
        content = path.read_bytes()
    except OSError as unreadable:
        raise UserError(f"{path}: {unreadable.strerror or unreadable}") from None
    kind = next((kind for start, kind in _OTHER_FILES.items() if content.startswith(start)), None)
    if kind is not None:
        raise UserError(f"{path}: not a CSV table: {kind}; valid: the same saved as CSV, UTF-8")
    try:
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as broken:
        line = content.count(b"\n", 0, broken.start) + 1
        raise UserError(
            f"{path}: not a CSV table: line {line} is no UTF-8; valid: the same saved as CSV, UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        reason = f"line {line} has a byte of zero, as UTF-16 without its mark, or a damaged file"
        raise UserError(f"{path}: not a CSV table: {reason}; valid: the same saved as CSV, UTF-8")
    return text


def _find_delimiter(lines: Sequence[str]) -> str:
    """Find the delimiter of the first line that is not a comment: the one that gives most names."""
    header = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _split_lines(path: Path, lines: Sequence[str], delimiter: str) -> tuple[list[list[str]], list[str]]:
    """Split lines into rows of cells, and comments; a cell in quotes may contain line breaks."""
    rows: list[list[str]] = []
    comments: list[str] = []
    rest = iter(lines)
    for line in rest:
        if line.startswith("#") and not line.upper().startswith(_CELL_ERRORS):
            comments.append(line)
            continue
        reader = csv.reader(itertools.chain([line], rest), delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            row = [cell.strip() for cell in next(reader)]
        except csv.Error as broken:
            raise UserError(f"{path}: not a CSV table: row {len(rows)}: {shorten(str(broken))}") from None
        if row:
            rows.append(row)
    return rows, comments


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
