"""A Plan in, its missing runs computed and its table out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.analysis.table import load_results
from gan_ablate.errors import UserError
from gan_ablate.execution.context import RunContext, check_context
from gan_ablate.execution.events import Silent
from gan_ablate.execution.executors.local import resolve_jobs, run_local
from gan_ablate.execution.schedule import estimate_seconds, grow_plan, missing_runs
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from gan_ablate.analysis.settling import Look, Settling
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.planning import Plan
    from gan_ablate.execution.events import RunObserver


def run_grid(
    plan: Plan,
    out: str | Path = "results",
    *,
    data_dir: str | Path = "data",
    device: str = "cpu",
    jobs: int | None = None,
    inception_weights: str | Path | None = None,
    observer: RunObserver | None = None,
) -> pd.DataFrame:
    """Compute what is missing of a plan, in worker processes, and return its table.

    A script that calls this needs the usual ``if __name__ == "__main__":``, because the workers import it.

    Args:
        plan: from ``gan_ablate.plan``.
        out: the results folder; runs that are there already are not computed again. Where the same grid was run with
            another number of seeds, its intervals become those that hold at every look.
        data_dir: where torchvision's data sets lie or are downloaded to.
        device: ``cpu``, ``cuda``, ``cuda:1``…
        jobs: how many runs at once; by default one per core, or one on a GPU.
        inception_weights: a copy of the weights for runs that are scored with Inception.
        observer: told of the progress.

    Returns:
        One row per run, as ``load_results`` gives it; runs that failed are among them.

    Raises:
        UserError: if the data, the extractor, the device or the folder cannot be had; nothing has been computed then.
    """
    num_jobs, store, context = _prepare(plan, out, data_dir, device, jobs, inception_weights)
    observer = observer or Silent()
    plan = grow_plan(plan, store)
    missing, seconds = missing_runs(plan, store), estimate_seconds(plan, store)
    observer.expect({config.run_id: seconds[config.run_id] for config in missing})
    records = run_local(missing, context, num_jobs, observer) if missing else ()
    store.save_plan(plan)
    is_first = True
    for _ in records:
        if is_first:  # from here on there is something to look at
            store.note_seeds(plan)
        is_first = False
    if is_first:
        store.note_seeds(plan)
    return load_results(out, plan.grid.name)


def run_until_settled(
    plan: Plan,
    out: str | Path = "results",
    *,
    max_hours: float | None = None,
    data_dir: str | Path = "data",
    device: str = "cpu",
    jobs: int | None = None,
    inception_weights: str | Path | None = None,
    observer: RunObserver | None = None,
    on_look: Callable[[Look], None] | None = None,
) -> Settling:
    """Add seeds to a grid, one by one, until every question of it has an answer; see ``analysis.settling``.

    Args:
        plan: from ``gan_ablate.plan``; its seeds are all that may be spent.
        out: the results folder; a plan that was stopped goes on.
        max_hours: after so many no other seed is begun.
        data_dir: as for ``run_grid``, like all below.
        device: likewise.
        jobs: likewise.
        inception_weights: likewise.
        observer: likewise.
        on_look: called with every look, in order, those at seeds that were there already among them.

    Raises:
        UserError: as ``run_grid`` does, and if the runs are not scored.
    """
    from gan_ablate.analysis.results import GridResults  # pandas: a second that other commands need not pay
    from gan_ablate.analysis.settling import settle

    if plan.baseline.config.scoring.features == "none":
        raise UserError(
            f"--until settled: {plan.baseline.config.dataset} is not scored; valid: with --inception-weights PATH"
        )
    num_jobs, store, context = _prepare(plan, out, data_dir, device, jobs, inception_weights)
    observer, started_at = observer or Silent(), time.monotonic()
    attempted: set[str] = set()
    settling: Settling | None = None

    def next_runs() -> list[RunConfig]:
        """Take every look that the runs allow; what failed is tried once."""
        nonlocal settling
        num_told = 0 if settling is None else len(settling.looks)
        comparable = GridResults.of(store, plan).comparable
        if len(comparable.protocols) > 1:
            raise UserError(f"--until settled: runs in {out} were scored in different ways; use another --out")
        runs = comparable.runs
        is_beginning = settling is None
        settling = settle(plan, runs.loc[(runs["status"] != "failed") | runs["run_id"].isin(attempted)])
        if not is_beginning:
            keep(settling.plan)
        if on_look is not None:
            for look in settling.looks[num_told:]:
                on_look(look)
        if settling.is_over or (max_hours is not None and time.monotonic() - started_at > 3600 * max_hours):
            return []
        missing = [config for config in missing_runs(settling.plan, store) if config.run_id not in attempted]
        attempted.update(config.run_id for config in missing)
        seconds = estimate_seconds(settling.plan, store)
        observer.expect({config.run_id: seconds[config.run_id] for config in missing})
        return missing

    def keep(now: Plan) -> None:
        store.save_plan(now)
        store.note_seeds(now)

    first = next_runs()
    num_jobs = min(num_jobs, max(len(first), len(plan.cells)))
    records = run_local(first, context, num_jobs, observer, next_runs) if first else ()
    assert settling is not None
    keep(settling.plan)  # all that the runs need is there
    for _ in records:
        pass
    return settling


def _prepare(
    plan: Plan,
    out: str | Path,
    data_dir: str | Path,
    device: str,
    jobs: int | None,
    inception_weights: str | Path | None,
) -> tuple[int, Store, RunContext]:
    check_context(device, inception_weights)
    num_jobs = resolve_jobs(jobs, device)
    store = Store(Path(out))
    store.check_writable()
    context = RunContext(
        out=str(out),
        data_dir=str(data_dir),
        device=device,
        inception_weights=None if inception_weights is None else str(inception_weights),
        folders=plan.folders,
    )
    return num_jobs, store, context
