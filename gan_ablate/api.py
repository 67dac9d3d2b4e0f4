"""Run plans from Python: compute the runs that are missing, and return their table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.analysis.table import load_results
from gan_ablate.design.plan import Plan, name_blocks
from gan_ablate.execution.context import CHECKPOINT_SEC, RunContext, Silent, check_context
from gan_ablate.execution.executors.local import resolve_jobs, run_local
from gan_ablate.execution.progress import observing
from gan_ablate.execution.schedule import calibrate, estimate_seconds, grow_plan, missing_runs, place_plans
from gan_ablate.execution.store import Record, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import pandas as pd

    from gan_ablate.analysis.allocation import Look, Settling
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.resolve import SingleRun
    from gan_ablate.execution.context import RunObserver
    from gan_ablate.execution.executors import Executor


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
    on_look: Callable[[Plan, Look], None] | None = None,
) -> list[Settling]:
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
        num_jobs = min(num_jobs, max(len(first), sum(len(one.cells) for one in plans)))
        records = _compute(executor, first, context, jobs, num_jobs, watching, allocation.next_runs)
        with closing(records):
            allocation.keep()  # now that all that the runs need is there
            for _ in records:
                pass
    return allocation.settlings


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
