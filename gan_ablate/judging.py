"""Judge a user's table of runs: estimate effects, give verdicts and write a page."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gan_ablate.analysis.user_table import Table
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.design.plan import Intervals

MAX_TABLE_BYTES = 1_000_000_000
_DELIMITERS = (",", ";", "\t")
_OTHER_FILES = {
    b"PK\x03\x04": "a spreadsheet or an archive", b"\xd0\xcf\x11\xe0": "an old spreadsheet", b"\x1f\x8b": "compressed",
    b"PAR1": "Parquet",
}  # fmt: skip
"""What a file begins with → what it is, if it is no text."""

_CELL_ERRORS = ("#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")
"""What spreadsheets write into a cell without a value: a line that begins with one is no comment."""


class LeftOutWarning(UserWarning):
    """Rows of a table are no runs, and were left out."""


def estimate_effects(
    frame: pd.DataFrame,
    *,
    factors: Sequence[str],
    seed: str = "seed",
    outcome: str = "fid",
    baselines: Mapping[str, str] | None = None,
    margin: float | None = None,
    intervals: Intervals = "fixed",
) -> pd.DataFrame:
    """Estimate what each level changes of an outcome, from a table of runs.

    Args:
        frame: a row per run, from ``load_results`` or elsewhere: a column per factor, one for the seed, one for the
            outcome, missing where a run has none. A column ``status`` or ``state`` says how a run ended:
            ``completed``, ``diverged``, ``failed``, or as W&B, MLflow and Optuna say it. The last numbers of runs that
            failed or had not finished are no results. Rows that are no runs are left out, with a ``LeftOutWarning``.
        factors: columns of what was varied. Either every combination of levels is there, or a baseline and single
            changes of it.
        seed: the column that says which runs share a seed, and are compared with each other.
        outcome: a column, and what is better: ``"fid:lower"``, ``"accuracy:higher"``; with ``:ratio`` or
            ``:difference`` behind it, how it is compared: by default as ratios if all values are above zero. Outcomes
            of the program itself, such as ``"fid"``, need no more than their name.
        baselines: factor → level; by default that of the first row.
        margin: the relative change within which a ratio does not matter; by default 0.1.
        intervals: ``"fixed"``, or ``"sequential"`` if you looked at the answers and then added seeds.

    Returns:
        One row per effect, main effects first, then interactions: ``effect``, ``answer`` (``lower``, ``higher``,
        ``negligible`` or ``open``), ``value``, ``low`` and ``high`` (log ratios, or differences), ``percent_change``,
        ``adjusted_low``, ``adjusted_high``, ``p_holm``, ``num_seeds``, ``needed_seeds`` and others.

    Raises:
        UserError: naming column, row and value that are not valid.
    """
    from gan_ablate.analysis.effects import estimate_effects as estimate
    from gan_ablate.analysis.table import tabulate_effects
    from gan_ablate.analysis.user_table import read_table

    table = read_table(frame, factors=factors, seed=seed, baselines=baselines, margin=margin, intervals=intervals)
    _tell_left_out(table)
    of_outcome = _read_outcomes(table, [outcome])
    return tabulate_effects([effect for one in of_outcome for effect in estimate(table.design, table.runs, one)])


def judge(
    runs: str | Path | pd.DataFrame,
    *,
    factors: Sequence[str],
    seed: str = "seed",
    outcomes: Sequence[str] = ("fid",),
    baselines: Mapping[str, str] | None = None,
    margin: float | None = None,
    intervals: Intervals = "fixed",
    out: str | Path = "judged",
    title: str = "",
    figures_as_pdf: bool = False,
) -> Path:
    """Judge a table of runs: write a page with effects, verdicts and figures.

    Args:
        runs: the path of a CSV file, or a table with a row per run and a column per factor, seed and outcome.
        factors: columns of what was varied.
        seed: the column that says which runs share a seed, and are compared with each other.
        outcomes: columns, each with what is better: ``"fid:lower"``, ``"accuracy:higher"``.
        baselines: factor → level; by default that of the first row.
        margin: the relative change within which a ratio does not matter; by default 0.1.
        intervals: ``"fixed"``, or ``"sequential"`` if you looked at the answers and then added seeds.
        out: the folder to write to.
        title: of the page; by default made of the file's name.
        figures_as_pdf: whether each figure is also wanted as PDF, for papers.

    Returns:
        The path of the page, ``report.md``; ``report.html``, ``effects.csv``, ``effects.tex`` and ``variants.csv``
        lie beside it.

    Raises:
        UserError: if the file is not a table, or a column, row or value is not valid.
    """
    from gan_ablate.analysis.user_table import read_table
    from gan_ablate.reporting.plots.style import FigurePath
    from gan_ablate.reporting.user_page import write_user_page

    source = str(runs) if isinstance(runs, (str, Path)) else "the table"
    frame, num_comments = read_csv(Path(runs)) if isinstance(runs, (str, Path)) else (runs, 0)
    table = read_table(
        frame,
        factors=factors,
        seed=seed,
        source=source,
        baselines=baselines,
        margin=margin,
        intervals=intervals,
        num_comments=num_comments,
    )
    _tell_left_out(table)
    found = _read_outcomes(table, outcomes)
    words = title or f"What {', '.join(factors)} change{'s' if len(factors) == 1 else ''}: {Path(source).name}"
    return write_user_page(table, found, FigurePath(Path(out), as_pdf=figures_as_pdf), title=words)


def read_csv(path: Path) -> tuple[pd.DataFrame, int]:
    """Read a table whose levels stay as they are written: ``0.50`` is no ``0.5``.

    Columns are separated by commas, semicolons or tabs. Lines that begin with ``#`` are comments.

    Returns:
        The table, and how many comments were left out.

    Raises:
        UserError: if there is no such file, or it is no table.
    """
    import pandas as pd

    # Lines end as those of files do, not at every sign that Unicode calls a break.
    lines = list(io.StringIO(_read_text(path), newline=""))
    told = re.fullmatch(r"sep=(.)\s*", lines[0]) if lines else None  # what Excel writes for itself
    lines = lines[1:] if told else lines
    delimiter = told[1] if told else _find_delimiter(lines)
    rows, comments = _split_lines(path, lines, delimiter)
    if not rows:
        raise UserError(
            f"{path}: not a CSV table: no line in it but comments; valid: a line of names, then a row per run"
        )
    names, num_comments = rows[0], len(comments)
    if comments and any(_is_number(cell) for cell in names):  # numbers name no columns: NumPy writes the names so
        first, _ = _split_lines(path, [comments[-1].lstrip("# ")], delimiter)
        if first and len(first[0]) == len(names):
            names, num_comments = first[0], num_comments - 1
            rows.insert(0, names)
    named = [place for place, name in enumerate(names) if name]
    twice = next((names[place] for i, place in enumerate(named) if names[place] in names[: named[i]]), None)
    if twice is not None:
        raise UserError(f"{path}: two columns are called {shorten(twice)}; rename one")
    for number, row in enumerate(rows[1:], 1):
        if any(row[len(names) :]):
            advice = "valid: one cell a column; quotes around what holds a comma, or semicolons between columns"
            raise UserError(f"{path}: row {number}: {len(row):,} cells for {len(names):,} columns; {advice}")
    # Only what is empty is nothing: a level may be called None.
    cells = [[row[place] if place < len(row) and row[place] else None for place in named] for row in rows[1:]]
    return pd.DataFrame(cells, columns=[names[place] for place in named], dtype=object), num_comments


def _read_text(path: Path) -> str:
    """Read a text file of UTF-8, or of UTF-16 with its mark, as Excel writes it.

    Raises:
        UserError: if there is no such file, or it is something else.
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
    """Find what separates the names of the first line that is no comment: the sign that gives most of them."""
    header = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _split_lines(path: Path, lines: Sequence[str], delimiter: str) -> tuple[list[list[str]], list[str]]:
    """Split lines into cells, one list a row, and comments; a cell in quotes may go on in the next line."""
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


def _tell_left_out(table: Table) -> None:
    """Warn the caller of rows that are no runs."""
    if table.left_out:
        warnings.warn(f"{table.source}: left out: {table.left_out}", LeftOutWarning, stacklevel=3)


def _read_outcomes(table: Table, outcomes: Sequence[str]) -> list[Outcome]:
    """Find the outcomes' columns, and put numbers into them."""
    import numpy as np

    from gan_ablate.analysis.cleaning import read_numbers
    from gan_ablate.analysis.user_table import RESERVED, parse_outcome

    if not outcomes:
        raise UserError("--outcome: what was measured? valid: COLUMN:lower or COLUMN:higher")
    found: list[Outcome] = []
    for text in outcomes:
        if text.partition(":")[0] in (*RESERVED, *table.design.factors):
            raise UserError(f"--outcome {shorten(text)}: it says which run it is; valid: a column of results")
        outcome = parse_outcome(text, table.runs, table.source)
        if outcome.name in {other.name for other in found}:
            raise UserError(f"--outcome {shorten(text)}: it is named twice; valid: once")
        found.append(outcome)
    for outcome in found:
        values = read_numbers(table.runs, outcome.name, table.source)
        is_infinite = np.isinf(values) & (table.runs["status"] == "completed").to_numpy()
        table.runs.loc[is_infinite, "status"] = "diverged"
        is_over = np.isfinite(values) & (table.runs["status"] == "completed").to_numpy()
        table.runs[outcome.name] = np.where(is_over, values, np.nan)
    return found
