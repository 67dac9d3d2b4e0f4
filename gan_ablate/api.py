"""A Plan in, its missing runs computed and its table out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.config import RunContext
from gan_ablate.cost import estimate_run_sec
from gan_ablate.events import Silent
from gan_ablate.executors.local import resolve_jobs, run_local
from gan_ablate.store import Store
from gan_ablate.table import load_results

if TYPE_CHECKING:
    import pandas as pd

    from gan_ablate.config import RunConfig
    from gan_ablate.events import RunObserver
    from gan_ablate.planning import Plan


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


def missing_runs(plan: Plan, store: Store) -> list[RunConfig]:
    """List the runs of a plan that have no result yet, those that take longest first."""
    configs = [config for _, config in plan.runs if not store.is_done(config.run_id)]
    seconds = estimate_seconds(plan, store)
    return sorted(configs, key=lambda config: -seconds[config.run_id])


def estimate_seconds(plan: Plan, store: Store) -> dict[str, float]:
    """Estimate the seconds of every run of a plan, from the runs of the same variant where there are any."""
    seconds = {}
    for cell in plan.cells:
        configs = [cell.with_seed(seed) for seed in plan.seeds]
        records = [store.load_record(config.run_id) for config in configs]
        known = [r.throughput.step_ms_median for r in records if r is not None and r.throughput is not None]
        step_ms = sorted(known)[len(known) // 2] if known else None
        seconds.update({config.run_id: estimate_run_sec(config, step_ms) for config in configs})
    return seconds
