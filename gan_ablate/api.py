"""The public functions that run: plans, grids until they are settled, one run, and scores of finished runs anew."""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gan_ablate.analysis.table import load_results
from gan_ablate.design.grid import list_grids as list_shipped
from gan_ablate.design.plan import Plan, name_blocks
from gan_ablate.errors import UserError, option
from gan_ablate.execution.context import Compute, RunContext, RunObserver
from gan_ablate.execution.executors import load_executor
from gan_ablate.execution.executors.local import check_local, resolve_jobs, run_local
from gan_ablate.execution.executors.worker import needs_nothing
from gan_ablate.execution.forecast import advise_precision, calibrate, estimate_seconds, missing_runs
from gan_ablate.execution.progress import open_display
from gan_ablate.execution.schedule import find_missing_ids, find_trained, grow_plan, place_plans
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    import pandas as pd

    from gan_ablate.analysis.allocation import SequentialState
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.resolve import SingleRun
    from gan_ablate.execution.executors import Executor
    from gan_ablate.execution.forecast import Speed
    from gan_ablate.execution.records import Record


def run_grid(
    plan: Plan,
    out: str | Path = "results",
    compute: Compute = Compute(),
    *,
    observer: RunObserver | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Compute the missing runs of a plan, and return its table.

    >>> from gan_ablate import Compute, load_grid, plan, run_grid
    >>> planned = plan(load_grid("beta1"), budget="smoke", seeds=1, steps=5, base="mlp")
    >>> runs = run_grid(planned, "results", Compute(jobs=1))
    >>> list(runs["status"])
    ['completed', 'completed', 'completed']

    Args:
        plan: from ``gan_ablate.plan``.
        out: the results folder. Runs that it has are not computed again. Where it has the same grid with another
            number of seeds, the plan's intervals become those that hold at every look.
        compute: where and how the runs are computed.
        observer: is notified of what happens to the runs.
        progress: whether to show a progress display; by default in a terminal or a notebook. An observer replaces it.

    Returns:
        One row per run, as ``load_results`` gives it; runs that failed are among them. Where the plan has several
        blocks, a first column ``block`` names them.

    Raises:
        UserError: if the data, the extractor, the device or the folder cannot be used; nothing has been computed then.
    """
    (blocks,) = run_grids([plan], out, compute, observer=observer, progress=progress)
    tables = [load_results(out, block.name) for block in blocks]
    if len(tables) == 1:
        return tables[0]
    import pandas as pd  # a second that other commands need not pay

    names = name_blocks(blocks)
    for table, words in zip(tables, names, strict=True):
        table.insert(0, "block", pd.Series(pd.Categorical([words] * len(table), names), table.index))
    return pd.concat(tables, ignore_index=True)


def list_grids(out: str | Path | None = None) -> list[str]:
    """List the names of the grids in a results folder, for ``load_results``; without a folder, of the shipped grids.

    >>> from gan_ablate import list_grids, load_grid, plan, run_grid
    >>> runs = run_grid(plan(load_grid("beta1"), budget="smoke", seeds=1, steps=5), "results")
    >>> list_grids("results")
    ['beta1']
    >>> "dropout" in list_grids()
    True

    Args:
        out: the results folder.
    """
    return list_shipped() if out is None else Store(Path(out)).list_plans()


def run_grids(
    plans: Sequence[Plan],
    out: str | Path = "results",
    compute: Compute = Compute(),
    *,
    observer: RunObserver | None = None,
    progress: bool | None = None,
) -> list[list[Plan]]:
    """Compute the missing runs of several plans, seed by seed over all of them; runs that they share, once.

    >>> from gan_ablate import load_grid, load_results, plan, run_grids
    >>> grids = [load_grid("beta1"), load_grid("learning_rate")]
    >>> plans = [plan(grid, budget="smoke", seeds=1, steps=5, base="mlp") for grid in grids]
    >>> of_plans = run_grids(plans, "results")
    >>> [len(load_results("results", block.name)) for blocks in of_plans for block in blocks]
    [3, 2]

    Args:
        plans: from ``gan_ablate.plan``, one a grid.
        out: the results folder. Runs that it has are not computed again.
        compute: where and how the runs are computed.
        observer: is notified of what happens to the runs.
        progress: whether to show a progress display; by default in a terminal or a notebook. An observer replaces it.

    Returns:
        The blocks of each plan, by whose names ``load_results`` finds their tables.

    Raises:
        UserError: if the data, the extractor, the device or the folder cannot be used; nothing has been computed then.
    """
    work = _prepare(plans, out, compute)
    with _open_observer(observer, plans, progress, work) as display:
        of_plans = [[grow_plan(block, work.store) for block in place_plans(plan, work.store)] for plan in plans]
        blocks = [block for of_plan in of_plans for block in of_plan]
        speed = _calibrate(plans, work, compute, display)
        missing = missing_runs(plans, work.store, speed)
        seconds = estimate_seconds(plans, work.store, speed)
        observer = RunObserver() if display is None else display
        observer.expect({config.run_id: seconds[config.run_id] for config in missing})
        with closing(_start(work, missing, observer)) as records:  # on an interrupt, runs stop at a checkpoint
            for block in blocks:
                work.store.save_plan(block)
            for number, _ in enumerate(records):
                if number == 0:  # from now on there are results that a user may have seen
                    _note_seeds(blocks, work.store)
    _note_seeds(blocks, work.store)
    return of_plans


def rescore(
    plan: Plan | Sequence[Plan],
    out: str | Path = "results",
    compute: Compute = Compute(),
    *,
    observer: RunObserver | None = None,
    progress: bool | None = None,
) -> list[Plan]:
    """Score finished runs in another way, without training again: their kept generators are sampled.

    A run that is missing is recorded if a finished run differs from it in its scoring alone. FID along training is
    taken from the finished run where it would be measured in the same way, and left out otherwise. A run of a user's
    script is read from what the script left, also where its log or its samples are read in another way.

    >>> from gan_ablate import load_grid, plan, rescore, run_grid
    >>> settings = {"budget": "smoke", "seeds": 1, "steps": 5, "base": "mlp"}
    >>> runs = run_grid(plan(load_grid("beta1"), **settings), "results")
    >>> more = plan(load_grid("beta1"), **settings, overrides=["scoring.num_samples=1500"])
    >>> [block.name for block in rescore(more, "results")]
    ['beta1@mlp']

    Args:
        plan: from ``gan_ablate.plan``, or several, with another extractor or number of images.
        out: the results folder that holds the finished runs.
        compute: where and how they are scored.
        observer: is notified of what happens to the runs.
        progress: whether to show a progress display; by default in a terminal or a notebook. An observer replaces it.

    Returns:
        The blocks of the plans, by whose names ``load_results`` finds their tables.

    Raises:
        UserError: if no finished run has kept a generator that a missing run needs, or as ``run_grids``.
    """
    plans = [plan] if isinstance(plan, Plan) else plan
    work = _prepare(plans, out, compute)
    trained = check_rescoring(plans, work.store, compute)
    work = work._replace(context=work.context.model_copy(update={"trained": trained}))
    with _open_observer(observer, plans, progress, work) as display:
        blocks = [grow_plan(block, work.store) for one in plans for block in place_plans(one, work.store)]
        missing = [config for config in missing_runs(plans, work.store) if config.run_id in trained]
        observer = RunObserver() if display is None else display
        observer.expect({config.run_id: 1.0 for config in missing})
        with closing(_start(work, missing, observer)) as records:
            for block in blocks:
                work.store.save_plan(block)
            for _ in records:
                pass
    _note_seeds(blocks, work.store)
    return blocks


def check_rescoring(plans: Sequence[Plan], store: Store, compute: Compute) -> dict[str, str]:
    """Return ``find_trained`` of plans.

    Raises:
        UserError: if the plans cannot be had without training.
    """
    if compute.executor == "ray":
        raise UserError(f"{option('executor', 'ray')}: its nodes may not see the generators; valid: local, slurm")
    for variant in (variant for plan in plans for variant in plan.variants):
        scoring = variant.config.scoring
        if scoring.features == "none":
            raise UserError(
                f"{variant.config.dataset}: nothing to score with; valid: {option('features', 'inception')}"
            )
        if getattr(scoring, "representation", False):
            advice = "it needs the discriminator, which no run keeps; valid: scoring.representation = false"
            raise UserError(f"scoring.representation = true: {advice}")
    trained = find_trained(plans, store)
    missing = find_missing_ids(plans, store)
    if missing and not trained:
        kept = "no finished run has kept a generator of these runs (runs/*/generator.safetensors)"
        if all(plan.grid.external is not None for plan in plans):
            kept = "no script has left what these runs can be read from (runs/*/trained-*.json)"
        is_archive = not (store.root / "runs").is_dir() and (store.root / "records").is_dir()
        reason = "it is an archive, which has records without generators" if is_archive else kept
        if any(getattr(variant.config.scoring, "keep_best", False) for plan in plans for variant in plan.variants):
            reason += ", or its best weights by a curve with the same extractor and numbers (scoring.keep_best)"
        raise UserError(f"{option('out', store.root)}: {reason}; valid: gan-ablate run, which trains them")
    return trained


def check_plans(
    plans: Sequence[Plan], out: str | Path, compute: Compute, observer: RunObserver, *, until_settled: bool = False
) -> None:
    """Check what ``run_grids`` or ``run_until_settled`` would check before the first run, and compute nothing.

    Args:
        plans: from ``gan_ablate.plan``.
        out: the results folder.
        compute: where and how the runs would be computed. The nodes of a cluster check their data themselves.
        observer: is told what is loaded.
        until_settled: whether seeds would be added until every question has an answer.

    Raises:
        UserError: if the data, the extractor, the device or the folder cannot be used.
    """
    work = _prepare(plans, out, compute)
    if until_settled:
        from gan_ablate.analysis.allocation import Allocation  # pandas: a second that other commands need not pay

        Allocation([block for plan in plans for block in plan.blocks], work.store, None, None, RunObserver())
    missing = missing_runs(plans, work.store)
    if missing and work.cluster is None and not all(needs_nothing(config, compute.device) for config in missing):
        check_local(missing, work.context, observer)


def run_single(
    single: SingleRun,
    out: str | Path = "results",
    compute: Compute = Compute(),
    *,
    observer: RunObserver | None = None,
) -> Record:
    """Compute one run that belongs to no grid, or return its record if the results folder has it.

    Args:
        single: from ``plan_run``.
        out: the results folder.
        compute: where and how the run is computed.
        observer: is notified of what happens to the run.

    Raises:
        UserError: if the data, the extractor, the device or the folder cannot be used.
    """
    work = _prepare([single], out, compute)
    known = work.store.load_record(single.config.run_id)
    if known is not None and known.status != "failed":
        return known
    observer = RunObserver() if observer is None else observer
    observer.expect({single.config.run_id: 1.0})
    with closing(_start(work._replace(num_jobs=1), [single.config], observer)) as records:
        (record,) = records
    return record


def run_until_settled(
    plan: Plan | Sequence[Plan],
    out: str | Path = "results",
    compute: Compute = Compute(),
    *,
    max_hours: float | None = None,
    observer: RunObserver | None = None,
    progress: bool | None = None,
) -> list[SequentialState]:
    """Add seeds to a grid, one by one, until every question of it has an answer; see ``analysis.allocation``.

    Every grid, and every block of one, is settled for itself.

    >>> from gan_ablate import load_grid, plan, run_until_settled
    >>> planned = plan(load_grid("beta1"), budget="smoke", seeds=2, steps=5, base="mlp")
    >>> (state,) = run_until_settled(planned, "results")
    >>> state.is_over
    True

    Args:
        plan: from ``gan_ablate.plan``, or several; its seeds are all that may be spent.
        out: the results folder. Runs that it has are not computed again.
        compute: where and how the runs are computed.
        max_hours: the number of hours after which no other seed is started.
        observer: is notified of what happens to the runs, and of each interim analysis.
        progress: whether to show a progress display; by default in a terminal or a notebook. An observer replaces it.

    Returns:
        How far each block came.

    Raises:
        UserError: if the data, the extractor, the device or the folder cannot be used, or the runs are not scored.
    """
    from gan_ablate.analysis.allocation import Allocation  # pandas: a second that other commands need not pay

    plans = [plan] if isinstance(plan, Plan) else plan
    work = _prepare(plans, out, compute)
    with _open_observer(observer, plans, progress, work) as display:
        blocks = [block for one in plans for block in place_plans(one, work.store)]
        speed = _calibrate(blocks, work, compute, display)
        observer = RunObserver() if display is None else display
        allocation = Allocation(blocks, work.store, speed, max_hours, observer)
        first = allocation.list_runs()
        num_jobs = min(work.num_jobs, max(len(first), sum(len(one.variants) for one in plans)))
        with closing(_start(work._replace(num_jobs=num_jobs), first, observer, allocation.next_runs)) as records:
            allocation.keep()  # now that all that the runs need is there
            for _ in records:
                pass
    return allocation.states


class _Work(NamedTuple):
    """What computing runs takes.

    Attributes:
        store: the results folder.
        context: where and how the runs are computed.
        cluster: computes them, or None where worker processes on this machine do.
        num_jobs: how many of these there are.
    """

    store: Store
    context: RunContext
    cluster: Executor | None
    num_jobs: int


def _prepare(plans: Sequence[Plan | SingleRun], out: str | Path, compute: Compute) -> _Work:
    store = Store(Path(out))
    store.check_writable()
    folders = {name: path for plan in plans for name, path in plan.folders.items()}
    context = RunContext(**{**dict(compute), "out": out, "folders": folders})
    cluster = None if compute.executor == "local" else load_executor(compute)
    of_grids = [plan for plan in plans if isinstance(plan, Plan)]
    return _Work(store, context, cluster, resolve_jobs(compute.jobs, compute.device, of_grids))


def _open_observer(
    observer: RunObserver | None, plans: Sequence[Plan], progress: bool | None, work: _Work
) -> AbstractContextManager[RunObserver | None]:
    """Return what shows the runs' progress: the caller's observer, or else a display, or None without either."""
    if observer is not None:
        return nullcontext(observer)
    return open_display(plans, progress, work.num_jobs, work.context.device)


def _calibrate(plans: Sequence[Plan], work: _Work, compute: Compute, observer: RunObserver | None) -> Speed | None:
    """Time the runs' steps for an observer, and tell it what would save time."""
    if observer is None:
        return None
    speed = calibrate(plans, work.store, work.num_jobs, compute.device, observer)
    is_here = work.cluster is None
    if is_here and (notes := advise_precision(plans, work.store, speed, work.num_jobs, compute.device, observer)):
        observer.advised(notes)
    return speed


def _start(
    work: _Work,
    configs: Sequence[AnyConfig],
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None = None,
) -> Generator[Record]:
    """Start to compute runs, if there are any."""
    if not configs:
        nothing: tuple[Record, ...] = ()
        return (record for record in nothing)
    if work.cluster is None:
        return run_local(configs, work.context, work.num_jobs, observer, more)
    return work.cluster(configs, work.context, work.context.jobs, observer, more)


def _note_seeds(blocks: Sequence[Plan], store: Store) -> None:
    for block in blocks:
        store.note_seeds(block)
