"""Outcomes of a user's table: which columns were measured, what is better, and their numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np

from gan_ablate.analysis.cleaning import read_numbers
from gan_ablate.design.grid import MAX_NAME
from gan_ablate.design.outcomes import OUTCOMES, Outcome
from gan_ablate.design.validation import choices, shorten
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pandas as pd

RESERVED = ("variant", "status", "collapsed", "seed", "runs")
"""Columns that this program's tables have beside the factors."""

NAMES, NAMES_WORDS = r"[\w .+@%()/-]+", f"at most {MAX_NAME} letters, digits, spaces and _ . + @ % ( ) / -"
MAX_SIZE = 1e100
"""The largest number that a figure's axis has room for."""


def parse_outcome(text: str, frame: pd.DataFrame, source: str = "the table") -> Outcome:
    """Read ``NAME``, ``NAME:lower`` or ``NAME:higher:difference``: a column, the better direction, and the scale.

    A name in ``OUTCOMES`` needs neither. Another outcome is on the ratio scale if all its values are above zero, and
    else on that of differences.

    Args:
        text: the text.
        frame: the table.
        source: the table's name in messages.

    Raises:
        UserError: if there is no such column, a value is not a number, or the text is of another form.
    """
    name, *given = text.split(":")
    if not re.fullmatch(NAMES, name) or len(name) > MAX_NAME:
        raise UserError(f"{option('outcomes', shorten(text))}: the column has to be renamed; valid: {NAMES_WORDS}")
    advice = "valid: COLUMN:lower or COLUMN:higher, with :ratio or :difference behind it to choose the scale"
    columns = [str(column) for column in frame.columns]
    if name not in columns:
        raise UserError(f"{option('outcomes', shorten(text))}: {source} has no such column; {choices(name, columns)}")
    known = OUTCOMES.get(name)
    better: Literal["lower", "higher"] | None = known.better if known else None
    scale = known.scale if known else None
    for word in given:
        match word:
            case "lower" | "higher":
                better = word
            case "ratio" | "difference":
                scale = word
            case _:
                raise UserError(f"{option('outcomes', shorten(text))}: {shorten(repr(word))}; {advice}")
    if better is None:
        raise UserError(f"{option('outcomes', shorten(text))}: which is better? {advice}")
    values = read_numbers(frame, name, source)
    finite = values[np.isfinite(values)]
    if (np.abs(finite) > MAX_SIZE).any():
        place = int(np.flatnonzero(np.isfinite(values) & (np.abs(values) > MAX_SIZE))[0])
        where = f"{source}: row {frame.index[place]}, {name} = {values[place]:g}"
        raise UserError(f"{where}: valid: numbers up to {MAX_SIZE:g}")
    if scale == "ratio" and (finite <= 0).any():
        place = int(np.flatnonzero(np.isfinite(values) & (values <= 0))[0])
        reason = f"row {frame.index[place]} has {values[place]:g}, and ratios need numbers above 0"
        raise UserError(f"{option('outcomes', shorten(text))}: {reason}; valid: {name}:{better}:difference")
    if scale is None:
        scale = "ratio" if len(finite) and (finite > 0).all() else "difference"
    title = known.title if known else name.replace("_", " ")
    return Outcome(name, title, better, scale, known.definition if known else f"The column {name}.")


def read_outcomes(outcomes: Sequence[str], runs: pd.DataFrame, factors: Collection[str], source: str) -> list[Outcome]:
    """Find the outcomes' columns, and put numbers into them; a completed run with an infinite one has diverged.

    Args:
        outcomes: each as ``parse_outcome`` reads it.
        runs: the table, with a column ``status``; it is changed.
        factors: the columns of what was varied.
        source: the table's name in messages.

    Raises:
        UserError: if there are none, one is named twice, or one says which run it is.
    """
    if not outcomes:
        raise UserError(f"{option('outcomes')}: what was measured? valid: COLUMN:lower or COLUMN:higher")
    found: list[Outcome] = []
    for text in outcomes:
        if text.partition(":")[0] in (*RESERVED, *factors):
            raise UserError(f"{option('outcomes', shorten(text))}: it says which run it is; valid: a column of results")
        outcome = parse_outcome(text, runs, source)
        if outcome.name in {other.name for other in found}:
            raise UserError(f"{option('outcomes', shorten(text))}: it is named twice; valid: once")
        found.append(outcome)
    for outcome in found:
        values = read_numbers(runs, outcome.name, source)
        is_infinite = np.isinf(values) & (runs["status"] == "completed").to_numpy()
        runs.loc[is_infinite, "status"] = "diverged"
        is_over = np.isfinite(values) & (runs["status"] == "completed").to_numpy()
        runs[outcome.name] = np.where(is_over, values, np.nan)
    return found
