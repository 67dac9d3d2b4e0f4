"""Rows of a user's table: choose one a run where there are many, or say in what they differ."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gan_ablate.analysis.cleaning import NO_RESULT, is_missing, read_numbers
from gan_ablate.design.validation import choices, shorten
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gan_ablate.design.outcomes import Outcome

STEP_NAMES = ("step", "global_step", "train_step", "iteration", "iterations", "iter", "it", "epoch", "epochs", "kimg")
"""Names, in any case and behind any ``train/`` or ``_``, of columns that count steps; the first one there is taken."""

FEW = 12
"""The most values of a column that names what was varied, rather than what was measured."""

MAX_NAMED = 5
"""The most columns that a message names."""


def find_steps(columns: Sequence[str]) -> str | None:
    """Find the column that counts steps or epochs by its name; None where there is none."""
    short = {re.split(r"[/.]", name)[-1].lstrip("_").lower(): name for name in reversed(columns)}
    return next((short[name] for name in STEP_NAMES if name in short), None)


def choose_rows(
    runs: pd.DataFrame,
    run_columns: Sequence[str],
    outcomes: Sequence[str],
    source: str,
    *,
    step: str | None,
    best: Outcome | None,
) -> tuple[pd.DataFrame, list[str]]:
    """Choose a row for every run of a table with a row for each epoch or step: the last, or the best.

    A row without any outcome, where other things were logged, is not chosen if its run has another one. A run ended as
    its last row says.

    Args:
        runs: the rows, with a column ``status``; the index counts the table's rows from 1.
        run_columns: columns that identify a run.
        outcomes: columns of results.
        source: the table's name in messages.
        step: the column of steps; by default found by its name.
        best: the outcome that is best in the row to choose; None for the last row.

    Returns:
        A row a run, in the order of the table, and sentences on what was chosen.

    Raises:
        UserError: if there is no column of steps, or a run has two rows of one step.
    """
    names = [str(name) for name in runs.columns if name not in (*run_columns, "status")]
    if step is not None and step not in names:
        raise UserError(f"{option('step', shorten(step))}: {source} has no such column; {choices(step, names)}")
    step = find_steps(names) if step is None else step
    if step is None:
        reason = f"{source} has no column that is called step, epoch or the like"
        raise UserError(f"{option('at')}: {reason}; valid: {option('step', 'COLUMN')}, one of {', '.join(names)}")
    has_result = ~runs["status"].isin(NO_RESULT)
    groups = [runs[name] for name in run_columns]
    is_repeated = has_result.groupby(groups, sort=False).transform("any")
    kept = runs.loc[has_result | ~is_repeated].copy()
    numbers = pd.Series(read_numbers(kept, step, source), kept.index)
    if numbers.isna().any():
        raise UserError(f"{source}: row {numbers.isna().idxmax()}: {step} is empty; valid: a number in every row")
    twice = kept.assign(step_of_row=numbers).duplicated([*run_columns, "step_of_row"])
    if twice.any():
        row: Any = twice.idxmax()
        where = f"{_run_words(kept, run_columns, row)}, {step} {numbers[row]:g}"
        differing = differing_words(kept, [*run_columns, step], outcomes)
        raise UserError(f"{source}: row {row}: another row of {where}. {differing}")
    values = None if best is None else read_numbers(kept, best.name, source)
    chosen, ends = _choose(kept, run_columns, numbers, _has_outcome(kept, outcomes), values, best)
    found = kept.loc[kept.index.isin(list(chosen))].copy()
    found["status"] = [ends[chosen[row]]["status"] for row in found.index]
    return found, _describe(kept, run_columns, numbers, chosen, ends, step, best)


def _has_outcome(rows: pd.DataFrame, outcomes: Sequence[str]) -> pd.Series[bool]:
    known = [name for name in outcomes if name in rows.columns]
    return ~rows[known].map(is_missing).all(axis="columns") if known else pd.Series(True, rows.index)


def _choose(
    rows: pd.DataFrame,
    run_columns: Sequence[str],
    steps: pd.Series[float],
    has_outcome: pd.Series[bool],
    values: np.ndarray[tuple[int], np.dtype[np.float64]] | None,
    best: Outcome | None,
) -> tuple[dict[Any, int], list[dict[str, Any]]]:
    """Return the chosen row of each run → its number, and how each run ended: last step, status and number of rows."""
    by_row = None if values is None else pd.Series(values, rows.index)
    chosen: dict[Any, int] = {}
    ends: list[dict[str, Any]] = []
    for number, (_, group) in enumerate(rows.groupby(list(run_columns), sort=False)):
        of_run = steps.loc[group.index]
        last: Any = of_run.idxmax()
        candidates = of_run.loc[has_outcome.loc[group.index]] if has_outcome.loc[group.index].any() else of_run
        row = candidates.idxmax()
        if by_row is not None and best is not None:
            finite = by_row.loc[group.index].replace([np.inf, -np.inf], np.nan).dropna()
            if len(finite):
                row = finite.idxmin() if best.better == "lower" else finite.idxmax()
        chosen[row] = number
        ends.append({"row": last, "status": rows["status"][last], "num": len(candidates)})
    return chosen, ends


def _describe(
    rows: pd.DataFrame,
    run_columns: Sequence[str],
    steps: pd.Series[float],
    chosen: dict[Any, int],
    ends: Sequence[dict[str, Any]],
    step: str,
    best: Outcome | None,
) -> list[str]:
    """Say which row stands for each run, what bias a best one has, and where runs end at different steps."""
    at = {row: steps[row] for row in chosen}
    last = {row: steps[ends[number]["row"]] for row, number in chosen.items()}
    fewest, most = min(end["num"] for end in ends), max(end["num"] for end in ends)
    rows_of = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    notes = []
    if best is None:
        notes.append(f"Each run is taken at its last {step}: {_range(at.values())}")
        earlier = [row for row in chosen if at[row] < last[row]]
        if earlier:
            where = _run_words(rows, run_columns, earlier[0])
            notes.append(
                f"{len(earlier)} of {len(chosen)} runs have no result at their last {step}, and are taken earlier, "
                f"such as {where} at {step} {at[earlier[0]]:g} of {last[earlier[0]]:g}"
            )
    else:
        extreme, direction = ("lowest", "low") if best.better == "lower" else ("highest", "high")
        notes.append(
            f"Each run is taken at its {extreme} {best.name}, the best of its {rows_of} rows: "
            f"{step} {_range(at.values())}"
        )
        notes.append(
            f"A best {best.name} is biased: it is too {direction} by chance, the more so the more rows a run has and "
            "the more it oscillates. The best row scored again on new samples has no such bias"
        )
    if len(set(last.values())) > 1:
        row = min(last, key=lambda row: last[row])
        where = _run_words(rows, run_columns, row)
        notes.append(f"Runs end at different {step}: {_range(last.values())}, such as {where} at {last[row]:g}")
    return notes


def _range(values: Collection[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _run_words(rows: pd.DataFrame, run_columns: Sequence[str], row: Any) -> str:
    return ", ".join(f"{name} {shorten(str(rows[name][row]))}" for name in run_columns)


def differing_words(runs: pd.DataFrame, run_columns: Sequence[str], outcomes: Sequence[str]) -> str:
    """Say in which columns rows of one run differ, and what to do about it.

    Args:
        runs: the rows.
        run_columns: columns that identify a run.
        outcomes: columns of results, which are not named.
    """
    groups = runs.groupby(list(run_columns), sort=False)
    repeated = runs.loc[runs.duplicated(list(run_columns), keep=False)]
    others = [str(name) for name in runs.columns if name not in (*run_columns, *outcomes, "status")]
    differing = [name for name in others if (groups[name].nunique(dropna=False) > 1).any()]
    step = find_steps(differing)
    if step is not None and _is_unique(repeated, [*run_columns, step]):
        best = option("at", f"best:{outcomes[0] if outcomes else 'fid'}:lower")
        return (
            f"Rows of one run differ in {shorten(step)}; valid: {option('at', 'last')}, which takes the last row of "
            f"each run, or {best}, which takes its best"
        )
    varied = [name for name in differing if _is_varied(runs[name])]
    if varied:
        # A column that tells all rows apart alone is the likeliest to have been forgotten.
        varied.sort(key=lambda name: not _is_unique(repeated, [*run_columns, name]))
        named = ", ".join(map(shorten, varied[:MAX_NAMED])) + (" …" if len(varied) > MAX_NAMED else "")
        return (
            f"Rows of one run differ in {named}; valid: {option('factors', varied[0])} if it was varied, "
            f"{option('blocks', varied[0])} to compare within each of its values, such as data sets"
        )
    return (
        "Nothing but results tells these rows apart; valid: one row per variant and seed, a column status that says "
        f"which of them failed, or {option('paired', False)} if they are other runs"
    )


def _is_unique(rows: pd.DataFrame, names: Sequence[str]) -> bool:
    return not rows.duplicated(list(names)).any()


def _is_varied(column: pd.Series[Any]) -> bool:
    """Whether a column looks like a setting: few values, each of two rows on average."""
    values = [str(value) for value in column if not is_missing(value)]
    return 1 < len(set(values)) <= min(FEW, len(values) // 2)
