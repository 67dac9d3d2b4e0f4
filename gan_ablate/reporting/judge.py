"""Tables of anyone's runs: ``estimate_effects`` as a table, ``judge`` as a page."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Required, TypedDict, Unpack

from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gan_ablate.analysis.user_table import Table
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.design.plan import Intervals


class TableWarning(UserWarning):
    """A table was not read as it is written: spellings of one level were merged, or a row of each run was chosen."""


class LeftOutWarning(TableWarning):
    """Rows of a table are no runs, and were left out."""


class TableDesign(TypedDict, total=False):
    """How a table of runs is read: the keywords that ``estimate_effects`` and ``judge`` share.

    Attributes:
        factors: the columns of what was varied. Either the table has every combination of levels, or a baseline and
            single changes of it.
        seed: the column of the seed; by default ``"seed"``, where there is one.
        paired: whether runs of one seed are compared with each other. By default they are where 85 % of the runs have
            a seed that every variant has. Runs of other tables are compared as independent ones, by Welch's t test.
        baselines: factor → the level that others are compared with; by default that of the first row.
        margin: the relative change below which a ratio does not matter; by default 0.1.
        intervals: ``"fixed"``, the default, or ``"sequential"`` if seeds were added after looking at the results.
        blocks: columns within whose values runs are compared, such as the data set: never across. Whether an effect
            differs between blocks is tested.
        at: for tables with a row per epoch or step: ``"last"`` takes the last row of each run, ``"best:fid:lower"`` its
            best, which is biased.
        step: the column of steps or epochs, for ``at``; by default found by its name.
    """

    factors: Required[Sequence[str]]
    seed: str | None
    paired: bool | None
    baselines: Mapping[str, str] | None
    margin: float | None
    intervals: Intervals
    blocks: Sequence[str]
    at: str | None
    step: str | None


def estimate_effects(
    runs: str | Path | pd.DataFrame,
    *,
    outcome: str = "fid",
    short: bool = False,
    simple_effects: bool = False,
    **design: Unpack[TableDesign],
) -> pd.DataFrame:
    """Estimate what each level changes of an outcome, from a table of runs.

    >>> import pandas as pd
    >>> from gan_ablate import estimate_effects
    >>> fid = [20.0, 10.2, 22.0, 10.9, 21.0, 10.4]
    >>> runs = pd.DataFrame({"lr": ["1e-4", "2e-4"] * 3, "seed": [0, 0, 1, 1, 2, 2], "fid": fid})
    >>> effects = estimate_effects(runs, factors=["lr"])
    >>> effects[["effect", "decision", "num_seeds"]].to_dict("records")
    [{'effect': 'lr 2e-4', 'decision': 'lower', 'num_seeds': 3}]

    Args:
        runs: a table, or the path of a CSV file, with a row per run and columns for the factors, the seed and the
            outcome, which is missing where a run has none. A column ``status`` or ``state`` says how a run ended:
            ``completed``, ``diverged``, ``failed``, or as W&B, MLflow and Optuna say it. The last numbers of runs that
            failed or had not finished are no results. A column ``collapsed`` (true or false) says which runs collapsed.
            Rows that are no runs are left out, with a ``LeftOutWarning``. Spellings of one level, such as ``On`` and
            ``on``, or ``2e-4`` and ``0.0002``, are merged, with a ``TableWarning``.
        outcome: a column, and what is better: ``"fid:lower"``, ``"accuracy:higher"``; with ``:ratio`` or
            ``:difference`` behind it, how it is compared: by default as ratios if all values are above zero. Outcomes
            of this program, such as ``"fid"``, need only their name.
        short: whether to return only the columns that one reads first, with adjusted intervals.
        simple_effects: whether to add each level's effect at every combination of the other factors' levels, which the
            column ``within`` names. They are a family of their own. With blocks there are none.
        **design: how the table is read, see ``TableDesign``: at least ``factors``.

    Returns:
        One row per effect, main effects first, then interactions: ``effect``, ``decision`` (``lower``, ``higher``,
        ``negligible`` or ``inconclusive``), ``basis`` (``mean``, or ``median`` by signs where runs diverged or some
        collapsed), ``percent_change`` with its intervals, ``value``, ``low`` and ``high`` (log
        ratios, or differences), ``adjusted_low``, ``adjusted_high``, ``p_holm``, ``num_seeds``, ``needed_seeds`` and
        others. With blocks, a first column ``block`` names the block, or ``all`` for the mean of blocks that do not
        differ; where ``against`` names another block, the row is the difference of the effect between the two.

    Raises:
        UserError: naming column, row and value that are not valid.
    """
    from gan_ablate.analysis.families import estimate_effects as estimate
    from gan_ablate.analysis.families import estimate_simple_effects
    from gan_ablate.analysis.pooling import compare_table, tabulate_blocks
    from gan_ablate.analysis.table import tabulate_effects

    table, outcomes = _read_runs(runs, [outcome], design)
    (one,) = outcomes
    if table.blocks is not None:
        if simple_effects:
            raise UserError(f"{option('simple_effects', True)}: valid: without {option('blocks')}")
        effects = tabulate_blocks(compare_table(table, one))
    else:
        estimated = estimate(table.design, table.runs, one)
        if simple_effects:
            estimated += estimate_simple_effects(table.design, table.runs, one)
        effects = tabulate_effects(estimated)
    if not short:
        return effects
    change = ["value", "adjusted_low", "adjusted_high"]
    if one.scale == "ratio":
        change = ["percent_change", "percent_change_adjusted_low", "percent_change_adjusted_high"]
    place = (["block", "against"] if table.blocks is not None else []) + ["effect"] + ["within"] * simple_effects
    return effects[[*place, "decision", *change, "p_holm", "num_seeds", "needed_seeds"]]


def judge(
    runs: str | Path | pd.DataFrame,
    *,
    outcomes: Sequence[str] = ("fid",),
    out: str | Path = "judged",
    title: str = "",
    figures_as_pdf: bool = False,
    **design: Unpack[TableDesign],
) -> Path:
    """Write a page with the effects, verdicts and figures of a table of runs.

    >>> import pandas as pd
    >>> from gan_ablate import judge
    >>> fid = [20.0, 10.2, 22.0, 10.9, 21.0, 10.4]
    >>> runs = pd.DataFrame({"lr": ["1e-4", "2e-4"] * 3, "seed": [0, 0, 1, 1, 2, 2], "fid": fid})
    >>> judge(runs, factors=["lr"], out="judged").as_posix()
    'judged/report.md'

    Args:
        runs: a table, or the path of a CSV file, with a row per run and columns for factors, seed and outcomes; see
            ``estimate_effects``.
        outcomes: columns, each with what is better: ``"fid:lower"``, ``"accuracy:higher"``.
        out: the folder to write to.
        title: the page's title; by default made of the file's name.
        figures_as_pdf: whether every figure is drawn as PDF for papers, and nothing else is written: 3.25 inches wide
            for a column, or 6.75 where there are several panels, with text of 7 and 8 points.
        **design: how the table is read, see ``TableDesign``: at least ``factors``.

    Returns:
        The path of the page, ``report.md``; ``report.html``, ``effects.csv``, ``effects.tex`` and ``variants.csv``
        lie beside it.

    Raises:
        UserError: if the file is not a table, or a column, row or value is not valid.
    """
    from gan_ablate.reporting.plots.style import FigurePath
    from gan_ablate.reporting.user_page import write_user_page

    table, found = _read_runs(runs, outcomes, design)
    factors = design["factors"]
    words = title or f"What {', '.join(factors)} change{'s' if len(factors) == 1 else ''}: {Path(table.source).name}"
    return write_user_page(table, found, FigurePath(Path(out), as_pdf=figures_as_pdf), title=words)


def _read_runs(
    runs: str | Path | pd.DataFrame, outcomes: Sequence[str], design: TableDesign
) -> tuple[Table, list[Outcome]]:
    """Read a table of runs and find its outcomes; warn the caller's caller of rows that are no runs."""
    from gan_ablate.analysis.cleaning import read_csv
    from gan_ablate.analysis.user_outcomes import read_outcomes
    from gan_ablate.analysis.user_table import read_table

    names = [text.partition(":")[0] for text in outcomes]
    if isinstance(runs, (str, Path)):
        frame, num_comments = read_csv(Path(runs))
        table = read_table(frame, source=str(runs), num_comments=num_comments, outcomes=names, **design)
    else:
        table = read_table(runs, outcomes=names, **design)
    for note in table.notes:
        warnings.warn(f"{table.source}: {note}", TableWarning, stacklevel=3)
    if table.left_out:
        warnings.warn(f"{table.source}: left out: {table.left_out}", LeftOutWarning, stacklevel=3)
    return table, read_outcomes(outcomes, table.runs, table.design.factors, table.source)
