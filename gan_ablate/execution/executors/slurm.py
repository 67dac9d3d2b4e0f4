"""The Slurm executor: compute runs as jobs of an array, through submitit, on one shared file system."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit

from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError, option
from gan_ablate.execution.context import Progress
from gan_ablate.execution.executors import RunQueue
from gan_ablate.execution.executors.worker import compute, prepare
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.context import RunContext, RunObserver
    from gan_ablate.execution.records import Record

TICK_SEC = 1.0
"""Seconds between two looks at the jobs; submitit asks Slurm more rarely."""

TIMEOUT_MIN = 24 * 60
"""Minutes that a job may take by default."""

_GPU_SETTINGS = frozenset({"gres", "gpus_per_node", "gpus_per_task", "num_gpus"})
"""Settings with which the user asks for GPUs; submitit refuses two of them."""

PROGRESS_FILE = "progress.json"
"""The progress of a run, in its folder while it is computed, for the display."""


class _Job:
    """A job's work. submitit saves it in a file; Slurm restarts it after preemption or a timeout."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def __call__(self, config: AnyConfig) -> tuple[str, Any]:
        prepare(1, None)
        path = Store(Path(self._context.out)).run_dir(config.run_id) / PROGRESS_FILE

        def send(kind: str, value: Any) -> None:
            if kind == "progress":
                write_atomically(path, json.dumps(asdict(value)))

        try:
            return compute(config, self._context, send)
        finally:
            path.unlink(missing_ok=True)

    def checkpoint(self, config: AnyConfig) -> Any:
        """Submit the same job again: the run resumes from its last checkpoint."""
        return submitit.helpers.DelayedSubmission(self, config)


def run_slurm(
    configs: Sequence[AnyConfig],
    context: RunContext,
    jobs: int | None,
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None = None,
    *,
    settings: Mapping[str, str] | None = None,
    cluster: str = "slurm",
) -> Generator[Record]:
    """Compute runs as jobs of an array, one a run; otherwise like ``run_local``.

    The results folder has to be on a file system that all nodes share; its ``slurm/`` takes the jobs' logs. A job that
    is preempted or runs out of time is queued again and resumes from its checkpoint. When this command stops, jobs are
    cancelled.

    Args:
        configs: the runs, the longest first.
        context: where and how.
        jobs: how many at once; by default as many as Slurm allows.
        observer: receives the events of runs.
        more: called for further runs whenever all have ended, until it returns none.
        settings: of sbatch, such as ``{"partition": "gpu", "time": "120"}``.
        cluster: ``"slurm"``; ``"local"`` for processes on this machine instead.

    Raises:
        UserError: if this machine has no Slurm, or a setting is unknown.
    """
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError(f"{option('executor', 'slurm')}: no sbatch on this machine; valid: local, ray")
    logging.getLogger("submitit").setLevel(logging.ERROR)  # without accounting it warns every few seconds
    executor = submitit.AutoExecutor(folder=Path(context.out) / "slurm" / "%j", cluster=cluster)
    parameters: dict[str, Any] = {"timeout_min": TIMEOUT_MIN, "cpus_per_task": 1, "name": "gan-ablate"}
    if cluster == "slurm":
        parameters |= {"slurm_array_parallelism": jobs or 1_000, "slurm_signal_delay_s": 60}
    names = {*(settings or {})}
    if context.device != "cpu" and not names & _GPU_SETTINGS:
        parameters["gpus_per_node"] = 1
    parameters |= {f"slurm_{name}": value for name, value in (settings or {}).items()}
    if "slurm_time" in parameters:
        del parameters["timeout_min"]
    try:
        executor.update_parameters(**parameters)
    except (NameError, TypeError, ValueError, AssertionError) as wrong:
        reason = str(wrong).strip().partition("\n")[0]
        raise UserError(f"{option('slurm')}: {reason}") from None
    return _serve(configs, context, executor, jobs, observer, more)


def _serve(
    configs: Sequence[AnyConfig],
    context: RunContext,
    executor: Any,
    jobs: int | None,
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None,
) -> Generator[Record]:
    store, job = Store(Path(context.out)), _Job(context)
    queue = RunQueue(configs, more, store, observer)
    running: dict[str, tuple[Any, AnyConfig]] = {}
    started: set[str] = set()
    try:
        while queue.has_work(is_idle=not running) or running:
            ready: list[AnyConfig] = []
            while (jobs is None or len(running) + len(ready) < jobs) and (run := queue.next()) is not None:
                ready.append(run)
            if ready:
                submitted = executor.map_array(job, ready)
                running |= {run.run_id: (of_run, run) for of_run, run in zip(submitted, ready, strict=True)}
            time.sleep(TICK_SEC)
            for run_id, (of_run, run) in list(running.items()):
                _show_progress(store, run, started, observer)
                if of_run.done():
                    del running[run_id]
                    started.discard(run_id)
                    for record in _take_in(of_run, run, queue, store):
                        observer.finished(record)
                        yield record
            observer.tick()
    finally:
        for of_run, _ in running.values():
            of_run.cancel(check=False)


def _show_progress(store: Store, run: AnyConfig, started: set[str], observer: RunObserver) -> None:
    try:
        progress = Progress(**json.loads((store.run_dir(run.run_id) / PROGRESS_FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return
    if run.run_id not in started:
        started.add(run.run_id)
        observer.started(run)
    observer.progressed(progress)


def _take_in(of_run: Any, run: AnyConfig, queue: RunQueue, store: Store) -> Iterator[Record]:
    problem = of_run.exception()
    if problem is None:
        kind, value = of_run.result()
        yield from queue.take_in(kind, value, run)
        return
    reason = str(problem).strip().partition("\n")[0]
    words = f"job {of_run.job_id} ended without a result ({of_run.state}: {reason})"
    known = store.load_record(run.run_id)
    if known is not None and known.status != "failed":  # it was lost after all was written
        queue.end_trial(run)
        yield known
    else:
        yield from queue.give_up(run, words)
