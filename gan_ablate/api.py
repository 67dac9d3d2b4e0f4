"""A Plan in, its missing runs computed and its table out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.analysis.table import load_results
from gan_ablate.execution.context import RunContext, check_context
from gan_ablate.execution.events import Silent
from gan_ablate.execution.executors.local import resolve_jobs, run_local
from gan_ablate.execution.schedule import missing_runs
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    import pandas as pd

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
        out: the results folder; runs that are there already are not computed again.
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
    missing = missing_runs(plan, store)
    records = run_local(missing, context, num_jobs, observer or Silent()) if missing else ()
    store.save_plan(plan)
    for _ in records:
        pass
    return load_results(out, plan.grid.name)
