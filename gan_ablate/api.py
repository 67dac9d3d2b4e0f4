"""Run plans from Python: compute the runs that are missing, and return their table."""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.analysis.table import load_results
from gan_ablate.design.plan import Plan, name_blocks
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.execution.context import CHECKPOINT_SEC, RunContext, Silent, check_context
from gan_ablate.execution.executors.local import resolve_jobs, run_local
from gan_ablate.execution.progress import observing
from gan_ablate.execution.schedule import calibrate, estimate_seconds, grow_plan, missing_runs, place_plans
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    import pandas as pd

    from gan_ablate.analysis.allocation import InterimAnalysis, SequentialState
    from gan_ablate.analysis.user_table import Table
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.design.plan import Intervals
    from gan_ablate.design.resolve import SingleRun
    from gan_ablate.execution.context import RunObserver
    from gan_ablate.execution.executors import Executor
    from gan_ablate.execution.records import Record


def run_grid(
    plan: Plan,
    out: str | Path = "results",
    *,
    data_dir: str | Path = "data",
    device: str = "cpu",
    jobs: int | None = None,
    inception_weights: str | Path | None = None,
    checkpoint_sec: float = CHECKPOINT_SEC,
    keep_checkpoints: bool = False,
    executor: Executor | None = None,
    observer: RunObserver | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Compute what is missing of a plan, in worker processes, and return its table.

    A script that calls this needs the usual ``if __name__ == "__main__":``, because the workers import it.

    Args:
        plan: from ``gan_ablate.plan``.
        out: the results folder; runs that are there already are not computed again. Where the same grid was run with
            another number of seeds, its intervals become those that hold at every look.
        data_dir: where torchvision's data sets lie or are downloaded to.
        device: ``cpu``, ``cuda``, ``cuda:1``…
        jobs: how many runs at once; by default one per core, or one on a GPU, which users' scripts take by themselves.
        inception_weights: a copy of the weights for runs that are scored with Inception.
        checkpoint_sec: seconds of training between two checkpoints, from which a run that was stopped resumes.
        keep_checkpoints: keep the last checkpoint of every run, from which the same run of more steps resumes.
        executor: computes the runs, from ``choose_executor``; by default worker processes on this machine.
        observer: receives the events of runs.
        progress: whether to show the progress; by default in a terminal or a notebook, if there is no observer.

    Returns:
        One row per run, as ``load_results`` gives it; runs that failed are among them. Where the plan has several
        blocks, a first column ``block`` names them.

    Raises:
        UserError: if the data, the extractor, the device or the folder cannot be had; nothing has been computed then.
    """
    (blocks,) = run_grids(
        [plan],
        out,
        data_dir=data_dir,
        device=device,
        jobs=jobs,
        inception_weights=inception_weights,
        checkpoint_sec=checkpoint_sec,
        keep_checkpoints=keep_checkpoints,
        executor=executor,
        observer=observer,
        progress=progress,
    )
    return _load_blocks(blocks, out)


def run_grids(
    plans: Sequence[Plan],
    out: str | Path = "results",
    *,
    data_dir: str | Path = "data",
    device: str = "cpu",
    jobs: int | None = None,
    inception_weights: str | Path | None = None,
    checkpoint_sec: float = CHECKPOINT_SEC,
    keep_checkpoints: bool = False,
    executor: Executor | None = None,
    observer: RunObserver | None = None,
    progress: bool | None = None,
) -> list[list[Plan]]:
    """Compute what is missing of several plans, seed by seed over all of them; runs that they share, once.

    Args:
        plans: from ``gan_ablate.plan``, one a grid.
        out: the results folder; runs that are there already are not computed again.
        data_dir: where torchvision's data sets lie or are downloaded to.
        device: ``cpu``, ``cuda``, ``cuda:1``…
        jobs: how many runs at once; by default one per core, or one on a GPU.
        inception_weights: a copy of the weights for runs that are scored with Inception.
        checkpoint_sec: seconds of training between two checkpoints, from which a run that was stopped resumes.
        keep_checkpoints: keep the last checkpoint of every run, from which the same run of more steps resumes.
        executor: computes the runs, from ``choose_executor``; by default worker processes on this machine.
        observer: receives the events of runs.
        progress: whether to show the progress; by default in a terminal or a notebook, if there is no observer.

    Returns:
        The blocks of each plan, by whose names ``load_results`` finds their tables.

    Raises:
        UserError: as ``run_grid`` does.
    """
    num_jobs = resolve_jobs(jobs, device, plans)
    store, context = _prepare(
        _folders_of(plans), out, data_dir, device, inception_weights, checkpoint_sec, keep_checkpoints
    )
    of_plans = [[grow_plan(block, store) for block in place_plans(plan, store)] for plan in plans]
    blocks = [block for of_plan in of_plans for block in of_plan]
    with observing(plans, observer, progress, num_jobs, device) as watching:
        speed = None if isinstance(watching, Silent) else calibrate(plans, store, num_jobs, device)
        missing, seconds = missing_runs(plans, store, speed), estimate_seconds(plans, store, speed)
        watching.expect({config.run_id: seconds[config.run_id] for config in missing})
        records = _compute(executor, missing, context, jobs, num_jobs, watching)
        with closing(records):  # whatever interrupts this, runs under way stop at once, at a checkpoint
            for block in blocks:
                store.save_plan(block)
            for number, _ in enumerate(records):
                if number == 0:  # from now on there is something to look at
                    _note_seeds(blocks, store)
    _note_seeds(blocks, store)
    return of_plans


def run_single(
    single: SingleRun,
    out: str | Path = "results",
    *,
    data_dir: str | Path = "data",
    device: str = "cpu",
    inception_weights: str | Path | None = None,
    checkpoint_sec: float = CHECKPOINT_SEC,
    keep_checkpoints: bool = False,
    executor: Executor | None = None,
    observer: RunObserver | None = None,
) -> Record:
    """Compute one run that belongs to no grid, or take its record if it is there already.

    Args:
        single: from ``plan_run``.
        out: the results folder; runs that are there already are not computed again.
        data_dir: where torchvision's data sets lie or are downloaded to.
        device: ``cpu``, ``cuda``, ``cuda:1``…
        inception_weights: a copy of the weights for runs that are scored with Inception.
        checkpoint_sec: seconds of training between two checkpoints, from which a run that was stopped resumes.
        keep_checkpoints: keep the last checkpoint of every run, from which the same run of more steps resumes.
        executor: computes the runs, from ``choose_executor``; by default worker processes on this machine.
        observer: receives the events of runs.

    Raises:
        UserError: as ``run_grid`` does.
    """
    store, context = _prepare(
        single.folders, out, data_dir, device, inception_weights, checkpoint_sec, keep_checkpoints
    )
    known = store.load_record(single.config.run_id) if store.is_done(single.config.run_id) else None
    if known is not None:
        return known
    watching = observer or Silent()
    watching.expect({single.config.run_id: 1.0})
    with closing((executor or run_local)([single.config], context, 1, watching)) as records:
        (record,) = records
    return record


def run_until_settled(
    plan: Plan | Sequence[Plan],
    out: str | Path = "results",
    *,
    max_hours: float | None = None,
    data_dir: str | Path = "data",
    device: str = "cpu",
    jobs: int | None = None,
    inception_weights: str | Path | None = None,
    checkpoint_sec: float = CHECKPOINT_SEC,
    keep_checkpoints: bool = False,
    executor: Executor | None = None,
    observer: RunObserver | None = None,
    progress: bool | None = None,
    on_look: Callable[[Plan, InterimAnalysis], None] | None = None,
) -> list[SequentialState]:
    """Add seeds to a grid, one by one, until every question of it has an answer; see ``analysis.allocation``.

    Every grid, and every block of one, is settled for itself.

    Args:
        plan: from ``gan_ablate.plan``, or several; its seeds are all that may be spent.
        out: the results folder; a plan that was stopped goes on.
        max_hours: after so many no other seed is begun.
        data_dir: where torchvision's data sets lie or are downloaded to.
        device: ``cpu``, ``cuda``, ``cuda:1``…
        jobs: how many runs at once; by default one per core, or one on a GPU.
        inception_weights: a copy of the weights for runs that are scored with Inception.
        checkpoint_sec: seconds of training between two checkpoints, from which a run that was stopped resumes.
        keep_checkpoints: keep the last checkpoint of every run, from which the same run of more steps resumes.
        executor: computes the runs, from ``choose_executor``; by default worker processes on this machine.
        observer: receives the events of runs.
        progress: whether to show the progress; by default in a terminal or a notebook, if there is no observer.
        on_look: called with every look and its block's plan, in order, those at seeds that were there already among
            them.

    Returns:
        How far each block came.

    Raises:
        UserError: as ``run_grid`` does, and if the runs are not scored.
    """
    from gan_ablate.analysis.allocation import Allocation  # pandas: a second that other commands need not pay

    plans = [plan] if isinstance(plan, Plan) else plan
    num_jobs = resolve_jobs(jobs, device, plans)
    store, context = _prepare(
        _folders_of(plans), out, data_dir, device, inception_weights, checkpoint_sec, keep_checkpoints
    )
    blocks = [block for one in plans for block in place_plans(one, store)]
    with observing(plans, observer, progress, num_jobs, device) as watching:
        speed = None if isinstance(watching, Silent) else calibrate(blocks, store, num_jobs, device)
        allocation = Allocation(blocks, store, speed, max_hours, on_look, watching)
        first = allocation.list_runs()
        num_jobs = min(num_jobs, max(len(first), sum(len(one.variants) for one in plans)))
        records = _compute(executor, first, context, jobs, num_jobs, watching, allocation.next_runs)
        with closing(records):
            allocation.keep()  # now that all that the runs need is there
            for _ in records:
                pass
    return allocation.states


def _compute_nothing() -> Generator[Record]:
    yield from ()


def _compute(
    executor: Executor | None,
    configs: Sequence[AnyConfig],
    context: RunContext,
    jobs: int | None,
    num_jobs: int,
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None = None,
) -> Generator[Record]:
    """Start the executor if any run is missing; the number of jobs is known for this machine only."""
    if not configs:
        return _compute_nothing()
    if executor is None:
        return run_local(configs, context, num_jobs, observer, more)
    return executor(configs, context, jobs, observer, more)


def _note_seeds(blocks: Sequence[Plan], store: Store) -> None:
    for block in blocks:
        store.note_seeds(block)


def _load_blocks(blocks: Sequence[Plan], out: str | Path) -> pd.DataFrame:
    tables = [load_results(out, block.name) for block in blocks]
    if len(tables) == 1:
        return tables[0]
    import pandas as pd  # a second that other commands need not pay

    for table, words in zip(tables, name_blocks(blocks), strict=True):
        table.insert(0, "block", words)
    return pd.concat([table.astype(object) for table in tables], ignore_index=True).infer_objects()


def _folders_of(plans: Sequence[Plan]) -> dict[str, str]:
    return {name: place for plan in plans for name, place in plan.folders.items()}


def _prepare(
    folders: dict[str, str],
    out: str | Path,
    data_dir: str | Path,
    device: str,
    inception_weights: str | Path | None,
    checkpoint_sec: float,
    keeps_checkpoints: bool,
) -> tuple[Store, RunContext]:
    check_context(device, inception_weights, checkpoint_sec)
    store = Store(Path(out))
    store.check_writable()
    context = RunContext(
        out=str(out),
        data_dir=str(data_dir),
        device=device,
        inception_weights=None if inception_weights is None else str(inception_weights),
        folders=folders,
        checkpoint_sec=checkpoint_sec,
        keeps_checkpoints=keeps_checkpoints,
    )
    return store, context


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
    from gan_ablate.analysis.cleaning import read_csv
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
