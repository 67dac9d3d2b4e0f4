"""Rows of a user's table: what is no run is left out and counted; statuses and numbers are read as tools write them."""

from __future__ import annotations

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

STATUS_COLUMNS = ("status", "state")
"""Names, in any case, of columns that say how a run ended."""

STATUS_WORDS: Mapping[str, tuple[str, ...]] = {
    "completed": ("completed", "complete", "finished", "success", "succeeded"),
    "diverged": ("diverged",),
    "failed": (
        "failed", "fail", "crashed", "crash", "killed", "error", "aborted", "cancelled", "canceled", "interrupted",
        "timeout", "preempted", "pruned", "out_of_memory",
    ),
    "unfinished": ("running", "pending", "queued", "scheduled", "waiting", "preempting", "paused"),
}  # fmt: skip
"""How a run ended → the words for it of this program, W&B, MLflow, Optuna and schedulers, in any case."""

_EXAMPLES = ("finished", "crashed", "killed", "running", "complete", "pruned")
_MEANINGS = {word: status for status, words in STATUS_WORDS.items() for word in words}

NO_RESULT = ("failed", "unfinished")
"""Statuses of runs whose last numbers are no results."""

NOTHING = ("", "-", "nan", "none", "na", "n/a", "#n/a", "<na>", "null")
"""What stands for a value that a run has not."""

_POINT = r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?"
"""``1,234.5``: commas between thousands."""
_COMMA = r"[+-]?(\d+(,\d+)?|\d{1,3}(\.\d{3})+,\d+)([eE][+-]?\d+)?"
"""``0,5`` or ``1.234,5``: a decimal comma."""
_GROUPED = r"[1-9]\d{0,2}(\.\d{3})+"
"""``1.234``: beside whole numbers, it may be one, too, with a point between thousands."""


def is_missing(value: Any) -> bool:
    """Whether a cell is empty."""
    if isinstance(value, str):
        return not value.strip()
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def drop_non_runs(frame: pd.DataFrame) -> tuple[pd.DataFrame, Counter[str]]:
    """Leave out rows that are no runs: empty ones, comments, and headers that stand between runs.

    Returns:
        The runs, whose index counts the rows of the table from 1, for messages; and what was left out → how many.
    """
    columns = list(frame.columns)
    kinds = [_kind(row, columns) for row in frame.itertuples(index=False, name=None)]
    runs = frame.set_axis(range(1, len(frame) + 1), axis="index").loc[[not kind for kind in kinds]].copy()
    return runs, Counter(kind for kind in kinds if kind)


def _kind(row: tuple[Any, ...], columns: Sequence[str]) -> str:
    """Say what a row is if it is no run."""
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
        others: columns that are something else, whatever they are called.
        source: of the table, for the message.

    Returns:
        ``completed`` for every run where no column says anything.

    Raises:
        UserError: naming row and value of what is no status.
    """
    statuses = pd.Series("completed", index=runs.index, dtype=object)
    for name in runs.columns:
        if name.lower() not in STATUS_COLUMNS or name in others:
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
    """Leave out attempts that ended without a result where the same run has another row.

    Args:
        runs: with a column ``status``.
        keys: columns that tell runs apart.

    Returns:
        The other runs, and how many were left out.
    """
    has_result = ~runs["status"].isin(NO_RESULT)
    is_repeated = has_result.groupby([runs[key] for key in keys], sort=False).transform("any")
    kept = has_result | ~(is_repeated | runs.duplicated(list(keys)))
    return runs.loc[kept].copy(), int((~kept).sum())


def left_out_words(counts: Mapping[str, int]) -> str:
    """Say what was left out: ``2 empty rows, 1 repeated header``; nothing where nothing was.

    Args:
        counts: what, with ``{s}`` where its plural has an s → how many.
    """
    return ", ".join(f"{num:,} {what.format(s='' if num == 1 else 's')}" for what, num in counts.items() if num)


def read_numbers(frame: pd.DataFrame, name: str, source: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Read a column as numbers, NaN where a run has none; ``93.5 %`` is 0.935, and a decimal comma is understood.

    Raises:
        UserError: naming row and value of what is none, or may be one of two.
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
            advice = "valid: a number, or nothing where a run has none"
            raise UserError(f"{source}: row {row}, {name} = {shorten(repr(texts[row]))}: {advice}")
        numbers[row] = number / 100 if is_percent else number
    return np.array([numbers.get(row, math.nan) for row in texts], np.float64)


def check_spellings(factor: str, levels: Sequence[str], source: str) -> None:
    """Refuse levels that are one level, written in two ways; ``1.1`` and ``1.10`` may be versions."""
    alike: dict[str | Decimal, list[str]] = {}
    for level in levels:
        number = read_decimal(level)
        alike.setdefault("".join(level.lower().split()) if number is None else number, []).append(level)
    for key, spellings in alike.items():
        if len(spellings) == 1 or all(re.fullmatch(r"\d+\.\d+", level) for level in spellings):
            continue
        reason = "differ in case or spaces only" if isinstance(key, str) else "are the same number"
        shown = " and ".join(repr(shorten(level)) for level in spellings)
        raise UserError(f"{source}: {factor} = {shown}: {reason}; valid: one spelling")


def read_decimal(text: str) -> Decimal | None:
    """Read a finite number to its last digit, or None where there is none."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _choose_notation(texts: Mapping[Any, str], name: str, source: str) -> Callable[[str], str]:
    """Find how a whole column is to be rewritten for Python; a column that two notations fit is refused."""
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
    """Read a number as Python writes it, without underscores."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
