"""Anyone's runs, a table with a row each, in; effects, verdicts and a page out. No run of ours is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gan_ablate.analysis.outcomes import Outcome
    from gan_ablate.analysis.tabled import Table
    from gan_ablate.design.planning import Intervals

MAX_TABLE_BYTES = 1_000_000_000


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
    """Estimate what each level changes of an outcome, from a table of runs: ours or anyone's.

    Args:
        frame: a row per run, as ``load_results`` gives it or likewise: a column per factor, one for the seed, one for
            the outcome, missing where a run has none. With a column ``status``, runs that are ``diverged`` are told.
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
    from gan_ablate.analysis.tabled import read_table
    from gan_ablate.analysis.verdicts import tabulate_effects

    table = read_table(frame, factors=factors, seed=seed, baselines=baselines, margin=margin, intervals=intervals)
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
    """Judge a table of anyone's runs: write a page with effects, verdicts and figures.

    Args:
        runs: the path of a CSV file, or a table as for ``estimate_effects``.
        factors: as for ``estimate_effects``, like ``seed``, ``baselines``, ``margin`` and ``intervals``.
        seed: likewise.
        outcomes: one or several, each as for ``estimate_effects``.
        baselines: likewise.
        margin: likewise.
        intervals: likewise.
        out: the folder to write to.
        title: of the page; by default made of the file's name.
        figures_as_pdf: whether each figure is also wanted as PDF, for papers.

    Returns:
        The path of the page, ``report.md``; ``report.html``, ``effects.csv``, ``effects.tex`` and ``variants.csv``
        lie beside it.

    Raises:
        UserError: if the file is not a table, or a column, row or value is not valid.
    """
    from gan_ablate.analysis.tabled import read_table
    from gan_ablate.reporting.plots.style import FigurePath
    from gan_ablate.reporting.user_page import write_user_page

    source = str(runs) if isinstance(runs, (str, Path)) else "the table"
    frame = read_csv(Path(runs)) if isinstance(runs, (str, Path)) else runs
    table = read_table(
        frame, factors=factors, seed=seed, source=source, baselines=baselines, margin=margin, intervals=intervals
    )
    found = _read_outcomes(table, outcomes)
    words = title or f"What {', '.join(factors)} change{'s' if len(factors) == 1 else ''}: {Path(source).name}"
    return write_user_page(table, found, FigurePath(Path(out), as_pdf=figures_as_pdf), title=words)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table whose levels stay as they are written: ``0.50`` is no ``0.5``.

    Raises:
        UserError: if there is no such file, or it is no table.
    """
    import pandas as pd

    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes; valid: at most {MAX_TABLE_BYTES:,}")
        # Its first row is no header to pandas, which would rename columns of the same name.
        # Only what is empty is nothing: a level may be called None.
        whole: pd.DataFrame = pd.read_csv(
            path,
            dtype=str,
            header=None,
            encoding="utf-8-sig",
            skipinitialspace=True,
            keep_default_na=False,
            na_values=[""],
        )
        whole = whole.dropna(axis="columns", how="all")  # what spreadsheets write behind the last column
    except OSError as unreadable:
        raise UserError(f"{path}: {unreadable.strerror or unreadable}") from None
    except (ValueError, pd.errors.ParserError) as broken:  # an empty file, other bytes than UTF-8, ragged rows
        raise UserError(f"{path}: not a CSV table: {shorten(str(broken).strip())}") from None
    names = [str(name).strip() for name in whole.iloc[0]]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UserError(f"{path}: two columns are called {shorten(twice)}; rename one")
    return whole.iloc[1:].set_axis(names, axis="columns").reset_index(drop=True)


def _read_outcomes(table: Table, outcomes: Sequence[str]) -> list[Outcome]:
    """Find the outcomes' columns, and put numbers into them."""
    import numpy as np

    from gan_ablate.analysis.tabled import RESERVED, parse_outcome, read_numbers

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
    has_status = "status" in table.given
    for outcome in found:
        values = read_numbers(table.runs, outcome.name, table.source)
        if not has_status:  # what is infinite has diverged
            table.runs.loc[np.isinf(values), "status"] = "diverged"
        is_over = np.isfinite(values) & (table.runs["status"] == "completed").to_numpy()
        table.runs[outcome.name] = np.where(is_over, values, np.nan)
    return found
