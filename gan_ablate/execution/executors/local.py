"""The local executor: compute runs in worker processes on this machine, one run a worker at a time."""

from __future__ import annotations

import functools
import multiprocessing
import os
import statistics
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gan_ablate.errors import UserError, describe_exit, option
from gan_ablate.execution.executors import RunQueue, is_worth_a_retry
from gan_ablate.execution.executors.gpus import Assignment, choose_gpus
from gan_ablate.execution.executors.worker import kill_server, list_inputs, serve, start_process
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.context import RunContext, RunObserver
    from gan_ablate.execution.executors.worker import StepTimes
    from gan_ablate.execution.records import Record

TICK_SEC = 0.25
"""How often the observer is called while nothing happens."""

GRACE_SEC = 5.0
"""Seconds that workers have to finish a step and write a checkpoint when all runs stop; scoring may take longer."""


_STARTING = "Starting a worker process"


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    core: int | None
    gpu: str | None
    run: AnyConfig | None = None
    is_leaving: bool = False


def resolve_jobs(jobs: int | None, device: str, plans: Sequence[Plan] = ()) -> int:
    """Return how many runs go on at once: by default one per core that this process may use, or one per GPU.

    Args:
        jobs: as asked for, or None.
        device: of the runs.
        plans: of the runs. Users' scripts take a GPU where there is one, whatever ``device`` says.
    """
    if jobs is not None:
        return jobs
    if device != "cpu":
        return max(1, len(choose_gpus(device)))
    if has_gpu() and any(plan.grid.external is not None for plan in plans):
        return 1
    return len(_list_cores()) or os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether a script would find a GPU here: of NVIDIA or AMD, and not hidden from it."""
    hidden = ("", "-1", "NoDevFiles")
    if any(os.environ.get(name, "0") in hidden for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def run_local(
    configs: Sequence[AnyConfig],
    context: RunContext,
    jobs: int,
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None = None,
) -> Generator[Record]:
    """Compute runs in worker processes, in the order given, and yield each record when its run ends.

    The first worker checks that data, extractor and device are there before any run starts. A worker serves many runs.
    A worker that dies is replaced; its run is resumed once, and fails the second time. With several GPUs, each worker
    sees one, as its first, and a run that one lost is resumed on another. For a run that another command
    computes, the executor waits and takes its record. To close the generator stops all runs at checkpoints.

    Args:
        configs: the runs, the longest first.
        context: where and how.
        jobs: how many workers, each with one thread.
        observer: receives the events of runs.
        more: called for further runs whenever all have ended, until it returns none.

    Raises:
        UserError: if data, extractor or device are not there, before any run starts; or if the disk refuses to write.
    """
    cores = _cores_of_workers(context, min(jobs, len(configs)) if more is None else jobs)
    gpus = Assignment(choose_gpus(context.device))
    observer.preparing(_STARTING, 0, 1)
    first = _start_first(context, cores[0], gpus.of_worker(0))
    try:
        _check_first(first, configs, observer)
    except BaseException:
        _stop([first])
        raise
    return _serve(first, configs, context, cores, gpus, observer, more)


def check_local(configs: Sequence[AnyConfig], context: RunContext, observer: RunObserver) -> None:
    """Check that all is there that ``run_local`` needs, and compute nothing.

    Args:
        configs: the runs.
        context: where and how they would be computed.
        observer: is told what is loaded.

    Raises:
        UserError: if data, extractor or device are not there.
    """
    observer.preparing(_STARTING, 0, 1)
    worker = _start_first(context, gpu=Assignment(choose_gpus(context.device)).of_worker(0))
    try:
        _check_first(worker, configs, observer)
    finally:
        _stop([worker], grace_sec=0)


def _list_cores() -> list[int]:
    """Return the cores that this process may use; none where the system does not name them."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _cores_of_workers(context: RunContext, num_workers: int) -> Sequence[int | None]:
    """Pin each worker to a core where the workers fill the machine; the system places fewer workers.

    Two commands at the same time, with a worker each, would otherwise meet on the first core.
    """
    cores = _list_cores()
    return cores if context.device == "cpu" and num_workers == len(cores) else [None] * num_workers


def _serve(
    first: _Worker,
    configs: Sequence[AnyConfig],
    context: RunContext,
    cores: Sequence[int | None],
    gpus: Assignment,
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None,
) -> Generator[Record]:
    queue = RunQueue(configs, more, Store(Path(context.out)), observer)
    workers = [first]
    try:
        workers += [_start_worker(context, core, gpus.of_worker(i)) for i, core in enumerate(cores[1:], 1)]
        while workers:
            for worker in list(workers):
                for record in _receive(worker, workers, queue, context, gpus, observer):
                    observer.finished(record)
                    yield record
            is_idle = all(worker.run is None for worker in workers)
            # A run that a GPU loses needs a worker of another one.
            has_work = queue.has_work(is_idle=is_idle) or (gpus.are_several and not is_idle)
            served = {worker.gpu for worker in workers}
            for worker in [worker for worker in workers if worker.run is None and not worker.is_leaving]:
                is_given_up = gpus.is_given_up(worker.gpu, served)
                run = None if is_given_up else queue.next(functools.partial(gpus.accepts, worker.gpu, served=served))
                if run is not None:
                    _give(worker, run, queue)
                elif is_given_up or not has_work:
                    _stop([worker])
                    workers.remove(worker)
            connection.wait([worker.pipe for worker in workers], TICK_SEC)
            observer.tick()
    finally:
        _stop(workers)


def _give(worker: _Worker, run: AnyConfig, queue: RunQueue) -> None:
    """Let a worker compute a run, or put the run back where the worker is gone."""
    try:
        worker.pipe.send(("run", run))
        worker.run = run
    except OSError:  # ``_receive`` replaces it
        worker.is_leaving = True
        queue.put_back(run)


def _check_first(worker: _Worker, configs: Sequence[AnyConfig], observer: RunObserver) -> None:
    """Let a worker load what the runs need, once for each data set, way to score and variant with user code."""
    inputs = list_inputs(configs)
    for number, config in enumerate(inputs):
        observer.preparing(f"Loading {config.dataset.partition('@')[0]}", number, len(inputs))
        worker.pipe.send(("check", config))
        try:
            _, problem = worker.pipe.recv()
        except EOFError:
            worker.process.join()
            reason = describe_exit(worker.process.exitcode)
            raise UserError(
                f"{option('dataset', config.dataset)}: the process that loaded it died ({reason})"
            ) from None
        if isinstance(problem, Exception):
            raise problem


def _receive(
    worker: _Worker,
    workers: list[_Worker],
    queue: RunQueue,
    context: RunContext,
    gpus: Assignment,
    observer: RunObserver,
) -> Iterator[Record]:
    """Handle all messages of a worker; replace a worker that died."""
    try:
        while worker.pipe.poll():
            kind, value = worker.pipe.recv()
            if kind == "progress":
                observer.progressed(value)
            elif kind == "started":
                observer.started(value)
            else:
                run, worker.run = worker.run, None
                assert run is not None
                worker.is_leaving = kind == "stopped"  # by another process: its end is no crash
                if kind == "record" and is_worth_a_retry(value):
                    gpus.lost(worker.gpu, run)
                elif kind == "record" and value.status != "failed":
                    gpus.finished(worker.gpu)
                yield from queue.take_in(kind, value, run)
    except (EOFError, ConnectionResetError):
        worker.process.join()
        workers.remove(worker)
        workers.append(_start_worker(context, worker.core, worker.gpu))
        if worker.run is not None:
            gpus.lost(worker.gpu, worker.run)
            yield from queue.give_up(worker.run, f"the worker process died ({describe_exit(worker.process.exitcode)})")


def _start_first(context: RunContext, core: int | None = None, gpu: str | None = None) -> _Worker:
    """Start the first worker; kill the server on an interrupt, as it may still be importing."""
    try:
        return _start_worker(context, core, gpu)
    except KeyboardInterrupt:
        kill_server()
        raise


def _start_worker(context: RunContext, core: int | None = None, gpu: str | None = None) -> _Worker:
    ours, theirs = multiprocessing.Pipe()
    process = start_process(serve, theirs, context, core, gpu)
    theirs.close()
    return _Worker(process, ours, core, gpu)


class Measured(NamedTuple):
    """What was timed on this machine.

    Attributes:
        start_sec: seconds until a worker is ready.
        classifier_ms: milliseconds of an image in the digits' classifier.
        steps: key → the times of a run, None where its steps failed, without the runs that were not over in time.
        extractor_ms: key → milliseconds of an image in an extractor, without those that failed or took too long.
    """

    start_sec: float
    classifier_ms: float
    steps: Mapping[str, StepTimes | None]
    extractor_ms: dict[str, float] = {}


def measure_steps(
    configs: Mapping[str, RunConfig],
    extractors: Mapping[str, RunConfig],
    context: RunContext,
    num_jobs: int,
    max_sec: float,
    observer: RunObserver,
) -> Measured:
    """Time training steps in worker processes, as many at once as there will be runs, and large extractors before.

    Args:
        configs: key → a run to time, in the order in which they are timed.
        extractors: key → a run whose extractor is timed.
        context: of the runs.
        num_jobs: how many at once.
        max_sec: after so many seconds, the start of the workers included, measuring ends; an extractor has as many.
        observer: is told how many runs are timed.

    Raises:
        EOFError, OSError: if a worker dies, or none is ready in time.
    """
    started_at = time.perf_counter()
    observer.preparing(_MEASURING, 0, len(configs))
    gpus = Assignment(choose_gpus(context.device))
    workers = [_start_first(context, gpu=gpus.of_worker(0))]
    try:
        workers[0].pipe.send(("measure", None))
        if not workers[0].pipe.poll(max_sec):
            raise TimeoutError
        _, classifier_ms = workers[0].pipe.recv()
        start_sec, extractor_ms = time.perf_counter() - started_at, dict[str, float]()
        num_workers = num_jobs if extractors else min(num_jobs, len(configs))
        workers += [_start_worker(context, gpu=gpus.of_worker(i)) for i in range(1, num_workers)]
        for key, config in extractors.items():
            observer.preparing("Timing the extractor on this machine", 0, 1)
            measured, is_over = _measure_extractor(workers, config, time.perf_counter() + max_sec)
            if measured is not None:
                extractor_ms[key] = measured
            if not is_over:  # other workers take the places of those that are still at it
                _stop(workers, grace_sec=0)
                workers = [_start_worker(context, gpu=gpus.of_worker(i)) for i in range(num_workers)]
        deadline = time.perf_counter() - start_sec + max_sec
        return Measured(start_sec, classifier_ms, _measure_on(workers, configs, deadline, observer), extractor_ms)
    finally:
        _stop(workers, grace_sec=0)


def _measure_extractor(workers: Sequence[_Worker], config: RunConfig, deadline: float) -> tuple[float | None, bool]:
    """Time an extractor in all workers at once; return the mean milliseconds of an image, and whether all are done."""
    times: list[float | None] = []
    for worker in workers:
        worker.pipe.send(("measure_extractor", config))
    for worker in workers:
        if not worker.pipe.poll(max(0.0, deadline - time.perf_counter())):
            return None, False
        times.append(worker.pipe.recv()[1])
    found = [ms for ms in times if ms is not None]
    return (statistics.fmean(found) if len(found) == len(workers) else None), True


_MEASURING = "Timing some steps of every variant on this machine"


def _measure_on(
    workers: Sequence[_Worker], configs: Mapping[str, RunConfig], deadline: float, observer: RunObserver
) -> dict[str, StepTimes | None]:
    pending = deque(configs.items())
    idle: list[Any] = [worker.pipe for worker in workers]
    busy: dict[Any, str] = {}
    times: dict[str, StepTimes | None] = {}
    while True:
        left_sec = deadline - time.perf_counter()
        while idle and pending and left_sec > 0:
            pipe, (key, config) = idle.pop(), pending.popleft()
            pipe.send(("measure", config))
            busy[pipe] = key
        if not busy or left_sec <= 0:
            return times
        for pipe in connection.wait(list(busy), left_sec):
            idle.append(pipe)
            _, times[busy.pop(pipe)] = idle[-1].recv()
            observer.preparing(_MEASURING, len(times), len(configs))


def _stop(workers: Sequence[_Worker], grace_sec: float = GRACE_SEC) -> None:
    """Stop workers; those with a run write a checkpoint. Kill those that take too long, or all on an interrupt."""
    try:
        for worker in workers:
            if worker.run is None:
                worker.pipe.close()  # which ends a worker's work
            else:
                worker.process.terminate()
        deadline = time.monotonic() + grace_sec
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()
