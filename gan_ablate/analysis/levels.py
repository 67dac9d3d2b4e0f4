"""Levels of a user's table: their names, and which spellings are of one level."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

import pandas as pd

from gan_ablate.analysis.cleaning import is_missing, read_decimal, whole_text
from gan_ablate.design.grid import MAX_NAME
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from decimal import Decimal

LEVELS = r"[\w .,:;+@%&?()/='\[\]{}→×±°†‡–-]+"
LEVELS_WORDS = "letters, digits, spaces and _ . , : ; + @ % & ? ( ) / = ' [ ] { } → × ± ° † ‡ – -"
LINK = r"\]\s*[(\[:]"
"""Text that Markdown takes for a link."""

YES, NO = {"true", "yes", "on", "y", "t", "1"}, {"false", "no", "off", "n", "f", "0"}
"""Levels that may mean the same."""


def read_levels(column: pd.Series[Any], factor: str, source: str) -> tuple[pd.Series[Any], list[str]]:
    """Name the levels of a column. Spellings of one level get the name of the first.

    ``On`` and ``on`` are one level, ``2e-4`` and ``0.0002`` as well. ``1.1`` and ``1.10`` may be versions: they stay
    two levels.

    Args:
        column: the levels, whose index counts the table's rows from 1.
        factor: the column's name.
        source: the table's name in messages.

    Returns:
        The names, and a sentence for each level that was merged, or that may mean the same as another.

    Raises:
        UserError: naming the row whose level is missing or cannot be shown.
    """
    names = {row: _name(value, factor, row, source) for row, value in column.items()}
    levels = list(dict.fromkeys(names.values()))
    merged: dict[str, str] = {}
    notes: list[str] = []
    for key, spellings in _group(levels).items():
        if len(spellings) == 1:
            continue
        if not isinstance(key, str) and all(re.fullmatch(r"\d+\.\d+", level) for level in spellings):
            notes.append(f"{factor}: {_quote(spellings)} stay apart, as they may be versions; valid: one spelling")
            continue
        reason = "they differ in case or spaces only" if isinstance(key, str) else "they are the same number"
        notes.append(f"{factor}: {_quote(spellings[1:])} read as {_quote(spellings[:1])}: {reason}")
        merged |= dict.fromkeys(spellings, spellings[0])
    kept = list(dict.fromkeys(merged.get(level, level) for level in levels))
    notes += [
        f"{factor}: {_quote(alike)} count as {len(alike)} levels; if they mean the same, give them one spelling"
        for alike in _find_alike(kept)
    ]
    return pd.Series({row: merged.get(name, name) for row, name in names.items()}, dtype=object), notes


def find_level(text: str, levels: Iterable[str]) -> str | None:
    """Find the level that a text names in any of its spellings; None where none is."""
    found = [level for level in levels if level == text] or [
        level for level in levels if _key(level) == _key(whole_text(text))
    ]
    return found[0] if found else None


def _name(value: Any, factor: str, row: Hashable, source: str) -> str:
    """Turn a level into a name; a whole number has no decimal point."""
    if is_missing(value):
        advice = "valid: a level for every run, or nothing at all in the row"
        raise UserError(f"{source}: row {row}: {factor} is empty; {advice}")
    name = whole_text(value).replace("\N{NO-BREAK SPACE}", " ")
    if not re.fullmatch(LEVELS, name) or re.search(LINK, name) or len(name) > MAX_NAME:
        advice = f"valid: at most {MAX_NAME} {LEVELS_WORDS}"
        raise UserError(f"{source}: row {row}, {factor} = {shorten(repr(name))}: {advice}")
    return name


def _group(levels: Iterable[str]) -> dict[str | Decimal, list[str]]:
    groups: dict[str | Decimal, list[str]] = {}
    for level in levels:
        groups.setdefault(_key(level), []).append(level)
    return groups


def _key(level: str) -> str | Decimal:
    """Return what the spellings of one level share."""
    number = read_decimal(level)
    return "".join(unicodedata.normalize("NFKC", level).casefold().split()) if number is None else number


def _find_alike(levels: Sequence[str]) -> list[list[str]]:
    """Find levels that may mean the same: ``True`` and ``1``, ``batch_norm`` and ``batch-norm``."""
    if all(read_decimal(level) is not None for level in levels):
        return []
    joined: dict[str, list[str]] = {}
    for level in levels:
        letters = re.sub(r"(?<=\w)[\s-]+(?=\w)", "", level.casefold().replace("_", " "))
        joined.setdefault(letters, []).append(level)
    answers = ([level for level in levels if level.lower() in words] for words in (YES, NO))
    return [alike for alike in (*answers, *joined.values()) if len(alike) > 1]


def _quote(levels: Sequence[str]) -> str:
    *most, last = (repr(shorten(level)) for level in levels)
    return f"{', '.join(most)} and {last}" if most else last
