"""A table of anyone's runs in, a row each; the design that it shows, and its runs as effects need them, out."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from gan_ablate.design.grid import MAX_NAME, Factor, label_levels
from gan_ablate.design.outcomes import OUTCOMES, Outcome
from gan_ablate.design.validation import choices, shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.design.grid import DesignKind
    from gan_ablate.design.planning import Intervals

STATUSES = ("completed", "diverged", "failed")
RESERVED = ("cell", "status", "collapsed", "seed", "variant", "runs")
"""Columns that tables of ours have beside the factors."""

NAMES, NAMES_WORDS = r"[\w .+@%()/-]+", f"at most {MAX_NAME} letters, digits, spaces and _ . + @ % ( ) / -"
MAX_SIZE = 1e100
"""Of a number: a figure's axis has to have room for it."""
MAX_VARIANTS = 10_000
NOTHING = ("", "nan", "none", "na", "n/a", "null")
"""What stands for a value that a run has not."""
_MARGIN = 0.1


@dataclass(frozen=True)
class TabledVariant:
    """A variant that a table has runs of.

    Attributes:
        label: words for it.
        levels: a level for every factor.
    """

    label: str
    levels: dict[str, str]


@dataclass(frozen=True)
class TabledDesign:
    """What a table of runs compares; see ``Design``.

    Attributes:
        factors: name → levels, in the order in which they come, and the baseline.
        kind: whether all combinations are there, or only single changes of the baseline.
        cells: the variants, the baseline first.
        seeds: counted from 0, in the order in which they come.
        intervals: whether the number of seeds was settled beforehand.
        log_margin: the log ratio within ± which an effect is negligible.
    """

    factors: dict[str, Factor]
    kind: DesignKind
    cells: tuple[TabledVariant, ...]
    seeds: tuple[int, ...]
    intervals: Intervals
    log_margin: float


@dataclass(frozen=True)
class Table:
    """A table of runs, read.

    Attributes:
        source: its name, for messages.
        design: what it compares.
        runs: the same rows, with a column ``cell`` and a ``status`` each; ``seed`` is counted from 0.
        given: the columns that it came with.
    """

    source: str
    design: TabledDesign
    runs: pd.DataFrame
    given: tuple[str, ...]


def read_table(
    frame: pd.DataFrame,
    *,
    factors: Sequence[str],
    seed: str,
    source: str = "the table",
    baselines: Mapping[str, str] | None = None,
    margin: float | None = None,
    intervals: Intervals = "fixed",
) -> Table:
    """Find the design in a table of runs.

    Args:
        frame: a row per run. A column ``status``, if there is one, says ``completed``, ``diverged`` or ``failed``.
        factors: columns of what was varied.
        seed: the column that says which runs share a seed, and are compared with each other.
        source: what the table is called in messages.
        baselines: factor → the level that the others are compared with; by default, that of the first row.
        margin: the relative change of a ratio within which an effect is negligible; by default 0.1.
        intervals: ``sequential`` if somebody looked, and added seeds.

    Raises:
        UserError: naming column, row and value that are not valid, and what would be.
    """
    frame = frame.set_axis(_columns(frame), axis="columns")
    _check_columns(frame, factors, seed, source)
    if not 0.001 <= (margin := _MARGIN if margin is None else margin) <= 1:
        raise UserError(f"--margin {margin:g}: valid: from 0.1 % to 100 %, or 0.001 to 1")
    if not len(frame):
        raise UserError(f"{source}: no runs in it; valid: a row per run")
    runs = frame.reset_index(drop=True).copy()
    for name in factors:
        runs[name] = [_name(value, name, row, source) for row, value in enumerate(runs[name])]
    known = _find_factors(runs, factors, baselines or {}, source)
    missing = [row for row, value in enumerate(runs[seed]) if pd.isna(value)]
    if missing:
        raise UserError(f"{source}: row {missing[0] + 1}: {seed} is empty; valid: a seed for every run")
    runs["seed"], seeds = pd.factorize(runs[seed].map(str))
    kind, cells = _find_cells(runs, known, source)
    labels = {tuple(cell.levels.values()): cell.label for cell in cells}
    runs["cell"] = [labels[levels] for levels in runs[list(factors)].itertuples(index=False, name=None)]
    twice = runs.duplicated(["cell", "seed"])
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        where = f"{runs['cell'][row]}, {seed} {seeds[runs['seed'][row]]}"
        raise UserError(f"{source}: row {row + 1}: another run of {where}; valid: one row per variant and seed")
    runs["status"] = _statuses(runs, source)
    runs["collapsed"] = None
    design = TabledDesign(known, kind, tuple(cells), tuple(range(len(seeds))), intervals, math.log1p(margin))
    return Table(source, design, runs, tuple(_columns(frame)))


def parse_outcome(text: str, frame: pd.DataFrame, source: str = "the table") -> Outcome:
    """Read ``NAME``, ``NAME:lower`` or ``NAME:higher:difference``: a column, the better direction, and the scale.

    What is known of the program's own outcomes need not be said. The scale of another one is that of ratios if all its
    values are above zero, else that of differences.

    Raises:
        UserError: if there is no such column, it holds what is not a number, or the text says something else.
    """
    name, *given = text.split(":")
    if not re.fullmatch(NAMES, name) or len(name) > MAX_NAME:
        raise UserError(f"--outcome {shorten(text)}: the column has to be renamed; valid: {NAMES_WORDS}")
    advice = "valid: COLUMN:lower or COLUMN:higher, with :ratio or :difference behind it to choose the scale"
    if name not in frame.columns:
        raise UserError(f"--outcome {shorten(text)}: {source} has no such column; {choices(name, _columns(frame))}")
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
                raise UserError(f"--outcome {shorten(text)}: {shorten(repr(word))}; {advice}")
    if better is None:
        raise UserError(f"--outcome {shorten(text)}: which is better? {advice}")
    values = read_numbers(frame, name, source)
    finite = values[np.isfinite(values)]
    if (np.abs(finite) > MAX_SIZE).any():
        row = int(np.flatnonzero(np.isfinite(values) & (np.abs(values) > MAX_SIZE))[0])
        raise UserError(f"{source}: row {row + 1}, {name} = {values[row]:g}: valid: numbers up to {MAX_SIZE:g}")
    if scale == "ratio" and (finite <= 0).any():
        row = int(np.flatnonzero(np.isfinite(values) & (values <= 0))[0])
        reason = f"row {row + 1} has {values[row]:g}, and ratios need numbers above 0"
        raise UserError(f"--outcome {shorten(text)}: {reason}; valid: {name}:{better}:difference")
    if scale is None:
        scale = "ratio" if len(finite) and (finite > 0).all() else "difference"
    title = known.title if known else name.replace("_", " ")
    return Outcome(name, title, better, scale, known.definition if known else f"The column {name}.")


def read_numbers(frame: pd.DataFrame, name: str, source: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Read a column as numbers, NaN where a run has none.

    Raises:
        UserError: naming row and value of what is none.
    """
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
    for row, value in enumerate(frame[name]):
        if math.isnan(values[row]) and not pd.isna(value) and str(value).strip().lower() not in NOTHING:
            advice = "valid: a number, or nothing where a run has none"
            raise UserError(f"{source}: row {row + 1}, {name} = {shorten(repr(value))}: {advice}")
    return values


def _check_columns(frame: pd.DataFrame, factors: Sequence[str], seed: str, source: str) -> None:
    columns = _columns(frame)
    twice = next((name for i, name in enumerate(columns) if name in columns[:i]), None)
    if twice is not None:
        raise UserError(f"{source}: two columns are called {shorten(twice)}; rename one")
    if not factors:
        raise UserError(f"--factor: what was varied? valid: {', '.join(map(shorten, columns))}")
    for option, name in (*(("--factor", name) for name in factors), ("--seed", seed)):
        if name not in columns:
            raise UserError(f"{option} {shorten(name)}: {source} has no such column; {choices(name, columns)}")
    if len({*factors, seed}) <= len(factors):
        raise UserError(f"--factor {', '.join(factors)} and --seed {seed}: a column is named twice; valid: once each")
    for name in factors:
        is_taken = name in RESERVED or name.endswith(("_low", "_high", "_runs"))
        if is_taken or not re.fullmatch(r"[\w .,:+-]+", name) or len(name) > MAX_NAME:
            advice = (
                f"valid: letters, digits, spaces and _ . , : + -, but no {', '.join(RESERVED)}, …_low, _high, _runs"
            )
            raise UserError(f"--factor {shorten(name)}: the column has to be renamed; {advice}")


def _columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns]


def _name(value: Any, factor: str, row: int, source: str) -> str:
    """Write a level as a name: whole numbers without a point."""
    if pd.isna(value):
        raise UserError(f"{source}: row {row + 1}: {factor} is empty; valid: a level for every run")
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    name = str(int(value)) if is_whole else str(value).strip()
    if not re.fullmatch(r"[\w .,:+-]+", name) or len(name) > MAX_NAME:
        advice = f"valid: at most {MAX_NAME} letters, digits, spaces and _ . , : + -"
        raise UserError(f"{source}: row {row + 1}, {factor} = {shorten(repr(name))}: {advice}")
    return name


def _find_factors(
    runs: pd.DataFrame, names: Sequence[str], baselines: Mapping[str, str], source: str
) -> dict[str, Factor]:
    factors = {}
    for name in baselines:
        if name not in names:
            raise UserError(f"--baseline {shorten(name)}: no such --factor; {choices(name, list(names))}")
    for name in names:
        levels = list(dict.fromkeys(runs[name]))
        baseline = baselines.get(name, levels[0])
        if baseline not in levels:
            raise UserError(f"--baseline {name}={shorten(baseline)}: no such level; {choices(baseline, levels)}")
        if len(levels) < 2:
            raise UserError(f"--factor {name}: {source} has one level of it, {levels[0]}; valid: at least two")
        ordered = [baseline, *(level for level in levels if level != baseline)]
        factors[name] = Factor(baseline=baseline, levels={level: {} for level in ordered})
    return factors


def _find_cells(
    runs: pd.DataFrame, factors: Mapping[str, Factor], source: str
) -> tuple[DesignKind, list[TabledVariant]]:
    """Tell a crossed design from single changes of a baseline, and list its variants."""
    if math.prod(len(factor.levels) for factor in factors.values()) > MAX_VARIANTS:
        raise UserError(f"{source}: more than {MAX_VARIANTS:,} variants; valid: fewer factors, or fewer levels")
    present = set(runs[list(factors)].itertuples(index=False, name=None))
    crossed = list(itertools.product(*(factor.levels for factor in factors.values())))
    baseline = tuple(factor.baseline for factor in factors.values())
    single = [levels for levels in crossed if sum(a != b for a, b in zip(levels, baseline, strict=True)) <= 1]
    kind: DesignKind
    if len(present) == len(crossed):
        kind, found = "factorial", crossed
    elif present <= set(single) and baseline in present:
        kind, found = "one-at-a-time", [levels for levels in single if levels in present]
    else:
        absent = next(levels for levels in crossed if levels not in present)
        words = ", ".join(f"{name} {level}" for name, level in zip(factors, absent, strict=True))
        raise UserError(
            f"{source}: no run of {shorten(words)}; valid: every combination of levels, or the baseline and single "
            "changes of it (--baseline names it)"
        )
    cells = []
    for levels in found:
        of_cell = dict(zip(factors, levels, strict=True))
        cells.append(TabledVariant(label_levels(kind, factors, of_cell), of_cell))
    labels = [cell.label for cell in cells]
    twin = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
    if twin is not None:
        raise UserError(f"{source}: two variants are called {shorten(repr(twin))}; rename a factor or a level")
    return kind, cells


def _statuses(runs: pd.DataFrame, source: str) -> list[str]:
    if "status" not in runs:
        return ["completed"] * len(runs)
    for row, status in enumerate(runs["status"]):
        if status not in STATUSES:
            where = f"{source}: row {row + 1}, status = {shorten(repr('' if pd.isna(status) else status))}"
            raise UserError(f"{where}: {choices(str(status), list(STATUSES))}")
    return list(runs["status"])
