"""A user's table of runs, a row each: find its design, and prepare its runs for effects."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from gan_ablate.analysis.cleaning import (
    NO_RESULT,
    drop_non_runs,
    drop_repeated,
    is_missing,
    left_out_words,
    read_decimal,
    read_statuses,
    whole_text,
)
from gan_ablate.analysis.design import Design
from gan_ablate.analysis.levels import find_level, read_levels
from gan_ablate.analysis.pairing import pair_runs
from gan_ablate.analysis.rows import choose_rows, differing_words
from gan_ablate.analysis.user_outcomes import MAX_SIZE, RESERVED, parse_outcome
from gan_ablate.design.claims import Factor, label_levels
from gan_ablate.design.grid import MAX_NAME
from gan_ablate.design.validation import choices, shorten
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from gan_ablate.design.claims import DesignKind
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.design.plan import Intervals

FACTORS, FACTORS_WORDS = r"[\w .,:+@%()/-]+", "letters, digits, spaces and _ . , : + @ % ( ) / -"
MAX_VARIANTS = 10_000
DEFAULT_SEED = "seed"
"""The column of the seed where none is named."""

MAX_BLOCKS = 20
"""The most blocks: each is compared with each other one."""

_MARGIN = 0.1


@dataclass(frozen=True)
class Table:
    """A user's table of runs, checked.

    Attributes:
        source: its name, for messages.
        design: the design of its runs.
        runs: its runs, with the columns ``variant`` and ``status``; ``seed`` counts from 0, and the index counts the
            table's rows from 1.
        left_out: the rows that are not runs, in words; empty where all are.
        pairing: how runs are compared, in a sentence.
        notes: sentences on how the table was read: which spellings of levels were merged, which row stands for a run.
        blocks: the name of each run's block, with the index of the runs; None without blocks.
    """

    source: str
    design: Design
    runs: pd.DataFrame
    left_out: str
    pairing: str
    notes: tuple[str, ...] = ()
    blocks: pd.Series[str] | None = None

    @property
    def by_block(self) -> dict[str, pd.DataFrame]:
        """The runs of each block, in the order of the table; without blocks, all runs under an empty name."""
        if self.blocks is None:
            return {"": self.runs}
        return {name: self.runs.loc[self.blocks == name] for name in dict.fromkeys(self.blocks)}


def read_table(
    frame: pd.DataFrame,
    *,
    factors: Sequence[str],
    seed: str | None = None,
    paired: bool | None = None,
    source: str = "the table",
    baselines: Mapping[str, str] | None = None,
    margin: float | None = None,
    intervals: Intervals = "fixed",
    num_comments: int = 0,
    blocks: Sequence[str] = (),
    at: str | None = None,
    step: str | None = None,
    outcomes: Sequence[str] = (),
) -> Table:
    """Find the design in a table of runs.

    Args:
        frame: a row per run, or with ``at`` a row per epoch or step of a run. A column ``status`` or ``state``, if
            there is one, says how a run ended: ``completed``, ``diverged``, ``failed``, or the words of W&B, MLflow
            and Optuna.
        factors: the columns of what was varied.
        seed: the column of the seed; by default ``seed``, where there is one.
        paired: whether runs of one seed are compared with each other. By default they are where the variants have the
            same seeds, see ``SHARED_ENOUGH``; runs of other tables are compared as independent ones.
        source: the table's name in messages.
        baselines: factor → baseline level; by default the level of the first row.
        margin: the relative change of a ratio within which an effect is negligible; by default 0.1.
        intervals: ``sequential`` if seeds were added after interim analyses.
        num_comments: number of comment lines that were left out before.
        blocks: columns, such as of data sets, within whose values runs are compared.
        at: ``last`` or ``best:COLUMN:lower``: which row of a run counts.
        step: the column of steps or epochs, for ``at``; by default found by its name.
        outcomes: the columns of results.

    Raises:
        UserError: naming the column, row and value that are not valid, and valid ones.
    """
    frame = frame.set_axis(_columns(frame), axis="columns")
    if seed is None and DEFAULT_SEED in frame.columns and DEFAULT_SEED not in {*factors, *blocks}:
        seed = DEFAULT_SEED
    seeds = [] if seed is None else [seed]
    _check_columns(frame, source, {"factors": factors, "blocks": blocks, "seed": seeds})
    _check_at(at, step, seed, source)
    if not 0.001 <= (margin := _MARGIN if margin is None else margin) <= 1:
        raise UserError(f"{option('margin', margin)}: valid: from 0.1 % to 100 %, or 0.001 to 1")
    runs, left_out = drop_non_runs(frame)
    left_out["comment{s}"] += num_comments
    best = None if at is None else _parse_at(at, runs, source)
    named = [*factors, *blocks, *seeds]
    runs["status"] = read_statuses(runs, named, source)
    # A run that crashed early may have no levels and no seed.
    is_nameless = runs["status"].isin(NO_RESULT) & runs[named].map(is_missing).any(axis="columns")
    left_out["failed run{s} without a level or a seed"] = int(is_nameless.sum())
    runs = runs.loc[~is_nameless].copy()
    notes: list[str] = []
    for name in (*factors, *blocks):
        runs[name], merged = read_levels(runs[name], name, source)
        notes += merged
    if seed is not None:
        runs["seed"] = [_seed(value, seed, row, source) for row, value in runs[seed].items()]
    run_columns = [*factors, *blocks, "seed"]
    if at is not None and len(runs):
        runs, chosen = choose_rows(runs, run_columns, outcomes, source, step=step, best=best)
        notes += chosen
    if seed is not None and paired is not False:
        runs, left_out["failed attempt{s} beside a repetition"] = drop_repeated(runs, run_columns)
    words = left_out_words(left_out)
    if not len(runs):
        raise UserError(f"{source}: no runs in it{words and f' (left out: {words})'}; valid: a row per run")
    known = _find_factors(runs, factors, baselines or {}, source)
    kind, variants = _find_variants(runs, known, source)
    labels = {tuple(levels.values()): label for label, levels in variants.items()}
    runs["variant"] = [labels[levels] for levels in runs[list(factors)].itertuples(index=False, name=None)]
    labels_of_blocks = _name_blocks(runs, blocks, source)
    if seed is not None and paired is not False:
        _check_repeated(runs, labels_of_blocks, seed, source, outcomes)
    pairing = pair_runs(runs, seed, labels_of_blocks, asked=paired, intervals=intervals, source=source)
    runs = pairing.runs
    runs["collapsed"] = _read_collapsed(runs, source)
    numbers = tuple(range(pairing.num_seeds))
    design = Design(known, kind, variants, numbers, intervals, math.log1p(margin), pairing.is_paired)
    return Table(source, design, runs, words, pairing.words, tuple(notes), labels_of_blocks)


def _check_repeated(
    runs: pd.DataFrame, blocks: pd.Series[str] | None, seed: str, source: str, outcomes: Sequence[str]
) -> None:
    of_block = runs if blocks is None else runs.assign(block=blocks)
    columns = ["variant", "seed"] if blocks is None else ["block", "variant", "seed"]
    twice = of_block.duplicated(columns)
    if twice.any():
        row: Any = twice.idxmax()
        block = "" if blocks is None else f"{blocks[row]}, "
        where = f"{block}{runs['variant'][row]}, {seed} {runs['seed'][row]}"
        raise UserError(
            f"{source}: row {row}: another run of {where}. {differing_words(of_block, columns, [*outcomes, seed])}"
        )


def _check_at(at: str | None, step: str | None, seed: str | None, source: str) -> None:
    if at is None and step is not None:
        raise UserError(
            f"{option('step', shorten(step))}: valid: with {option('at', 'last')}, or {option('at', 'best:fid:lower')}"
        )
    if at is not None and seed is None:
        reason = f"{source} has no column seed, which tells the rows of one run from those of another"
        raise UserError(f"{option('at', shorten(at))}: {reason}; valid: {option('seed')} with the name of one")


def _parse_at(at: str, runs: pd.DataFrame, source: str) -> Outcome | None:
    """Read ``last`` or ``best:COLUMN:lower``; return the outcome that is best in the row to choose, None for last."""
    kind, _, outcome = at.partition(":")
    if at == "last":
        return None
    if kind != "best" or not outcome:
        advice = "valid: last, or best with a column and what is better: best:fid:lower"
        raise UserError(f"{option('at', shorten(at))}: {advice}")
    return parse_outcome(outcome, runs, source)


def _name_blocks(runs: pd.DataFrame, blocks: Sequence[str], source: str) -> pd.Series[str] | None:
    """Name each run's block: by its value, or of several columns by their names and values."""
    if not blocks:
        return None
    named = [
        runs[name].astype(str) if len(blocks) == 1 else name.replace("_", " ") + " " + runs[name].astype(str)
        for name in blocks
    ]
    labels = named[0]
    for others in named[1:]:
        labels = labels + ", " + others
    num = labels.nunique()
    if not 2 <= num <= MAX_BLOCKS:
        has = f"one block, {shorten(labels.iloc[0])}" if num == 1 else f"{num:,} blocks"
        raise UserError(f"{option('blocks', ', '.join(blocks))}: {source} has {has}; valid: from 2 to {MAX_BLOCKS}")
    return labels


def _check_columns(frame: pd.DataFrame, source: str, named: Mapping[str, Sequence[str]]) -> None:
    columns = _columns(frame)
    twice = next((name for i, name in enumerate(columns) if name in columns[:i]), None)
    if twice is not None:
        raise UserError(f"{source}: two columns are called {shorten(twice)}; rename one")
    if not named["factors"]:
        raise UserError(f"{option('factors')}: what was varied? valid: {', '.join(map(shorten, columns))}")
    for parameter, name in ((parameter, name) for parameter, of_kind in named.items() for name in of_kind):
        if name not in columns:
            near = next((column for column in columns if re.split(r"[/.]|^params_", column)[-1] == name), name)
            raise UserError(
                f"{option(parameter, shorten(name))}: {source} has no such column; {choices(near, columns)}"
            )
    if sum(map(len, named.values())) > len({name for of_kind in named.values() for name in of_kind}):
        given = ", ".join(option(parameter, ", ".join(of_kind)) for parameter, of_kind in named.items() if of_kind)
        raise UserError(f"{given}: a column is named twice; valid: once each")
    for name in named["factors"]:
        is_taken = name in (*RESERVED, *(["block"] if named["blocks"] else [])) or name.endswith(
            ("_low", "_high", "_runs")
        )
        if is_taken or not re.fullmatch(FACTORS, name) or len(name) > MAX_NAME:
            advice = f"valid: {FACTORS_WORDS}, but no {', '.join(RESERVED)}, …_low, _high, _runs"
            raise UserError(f"{option('factors', shorten(name))}: the column has to be renamed; {advice}")


def _columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns]


def _seed(value: Any, column: str, row: Hashable, source: str) -> str:
    """Turn a seed into text: ``1``, ``01``, ``1.0`` and ``1e0`` are the same seed."""
    if is_missing(value):
        advice = "valid: a seed for every run, or nothing at all in the row"
        raise UserError(f"{source}: row {row}: {column} is empty; {advice}")
    text = whole_text(value)
    number = read_decimal(text)
    if number is None or abs(number) >= MAX_SIZE or number != number.to_integral_value():
        return text
    return str(int(number))


def _read_collapsed(runs: pd.DataFrame, source: str) -> pd.Series[Any]:
    """Read the column ``collapsed``, if there is one: ``True``, ``False``, 1 or 0, or nothing where it is not known."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    found: dict[Hashable, bool | None] = {}
    for row, value in (runs["collapsed"] if "collapsed" in runs else pd.Series(None, runs.index)).items():
        word = "" if is_missing(value) else whole_text(value).lower()
        if word and word not in known:
            where = f"{source}: row {row}, collapsed = {shorten(repr(word))}"
            raise UserError(f"{where}: valid: true, false, or nothing where it is not known")
        found[row] = known.get(word)
    return pd.Series(found, dtype=object)


def _find_factors(
    runs: pd.DataFrame, names: Sequence[str], baselines: Mapping[str, str], source: str
) -> dict[str, Factor]:
    factors = {}
    for name in baselines:
        if name not in names:
            raise UserError(
                f"{option('baselines', shorten(name))}: no such {option('factors')}; {choices(name, list(names))}"
            )
    for name in names:
        levels = list(dict.fromkeys(runs[name]))
        wanted = baselines.get(name, levels[0])
        baseline = find_level(wanted, levels)
        if baseline is None:
            raise UserError(
                f"{option('baselines', f'{name}={shorten(wanted)}')}: no such level; {choices(wanted, levels)}"
            )
        if len(levels) < 2:
            raise UserError(
                f"{option('factors', name)}: {source} has one level of it, {levels[0]}; valid: at least two"
            )
        ordered = [baseline, *(level for level in levels if level != baseline)]
        factors[name] = Factor(baseline=baseline, levels={level: {} for level in ordered})
    return factors


def _find_variants(
    runs: pd.DataFrame, factors: Mapping[str, Factor], source: str
) -> tuple[DesignKind, dict[str, dict[str, str]]]:
    """Tell a factorial design from single changes of a baseline, and list its variants: label → levels."""
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
            f"changes of it ({option('baselines')} names it)"
        )
    variants: dict[str, dict[str, str]] = {}
    for levels in found:
        of_variant = dict(zip(factors, levels, strict=True))
        label = label_levels(kind, factors, of_variant)
        if label in variants:
            raise UserError(f"{source}: two variants are called {shorten(repr(label))}; rename a factor or a level")
        variants[label] = of_variant
    return kind, variants
