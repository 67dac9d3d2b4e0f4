"""The local executor: compute runs in worker processes on this machine, one run a worker at a time."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import time
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, context, forkserver, reduction, resource_tracker, spawn, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_ablate.errors import UserError, describe_exit
from gan_ablate.execution.executors import RunQueue
from gan_ablate.execution.executors.worker import list_inputs, serve
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.context import RunContext, RunObserver
    from gan_ablate.execution.records import Record

# Workers are forked from a server that has imported PyTorch and torchmetrics, which takes seconds, but has run nothing:
# a fork of this process would inherit threads and CUDA in an undefined state. The server is our own. The one that
# ``multiprocessing`` keeps for the whole process belongs to the caller, with what it is to import.
_HAS_FORK_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
_SERVER = forkserver.ForkServer()
_SERVER.set_forkserver_preload(["gan_ablate.execution.run"])


@contextmanager
def _start_method_left_open() -> Iterator[None]:
    """Leave it to the caller to choose how its processes start: to start one fixes that for the whole program."""
    is_open = multiprocessing.get_start_method(allow_none=True) is None
    try:
        yield
    finally:
        if is_open:
            multiprocessing.set_start_method(None, force=True)


if sys.platform == "win32":
    MULTIPROCESSING: Any = multiprocessing.get_context("spawn")
else:
    from multiprocessing import popen_forkserver

    def _close_all(*descriptors: int) -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    class _Launch(popen_forkserver.Popen):
        """Starts a process as its base class does, from our server."""

        _fds: list[int]

        def _launch(self, process_obj: BaseProcess) -> None:
            content = io.BytesIO()
            with _start_method_left_open():
                context.set_spawning_popen(self)
                try:
                    reduction.dump(spawn.get_preparation_data(process_obj.name), content)
                    reduction.dump(process_obj, content)
                finally:
                    context.set_spawning_popen(None)
                self.sentinel, pipe = _SERVER.connect_to_new_process(self._fds)
            self.finalizer = util.Finalize(self, _close_all, (os.dup(pipe), self.sentinel))
            with os.fdopen(pipe, "wb") as file:
                file.write(content.getbuffer())
            self.pid = forkserver.read_signed(self.sentinel)

    class _Process(context.ForkServerProcess):
        @staticmethod
        def _Popen(process_obj: BaseProcess) -> _Launch:  # noqa: N802 (its base class calls it so)
            return _Launch(process_obj)

    class _Context(context.ForkServerContext):
        Process = _Process

    MULTIPROCESSING = _Context()

TICK_SEC = 0.25
"""How often the observer is called while nothing happens."""

GRACE_SEC = 5.0
"""How long workers have to write a checkpoint when all is to stop: a step and a file; scoring may take longer."""


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    core: int | None
    run: AnyConfig | None = None
    is_leaving: bool = False


def resolve_jobs(jobs: int | None, device: str, plans: Sequence[Plan] = ()) -> int:
    """Return how many runs go on at once: by default one per core that this process may use, or one on a GPU.

    Users' scripts take a GPU by themselves where there is one, whatever ``device`` says.
    """
    if jobs is not None:
        return jobs
    if device != "cpu" or (has_gpu() and any(plan.grid.external is not None for plan in plans)):
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
    """Compute runs in worker processes, in the order given; the iterator gives each record as it comes.

    The first worker checks that data, extractor and device are there before any run starts. A worker serves many runs.
    One that dies is replaced; its run is tried once more, from its checkpoint, and then recorded as failed. A run that
    another command computes is left to it, and its record taken. Closing the iterator stops all runs at checkpoints.

    Args:
        configs: the runs, those that take longest first.
        context: where and how.
        jobs: how many workers, each with one thread.
        observer: receives the events of runs.
        more: asked for further runs whenever all have ended, until there are none.

    Raises:
        UserError: if data, extractor or device cannot be had; no run has started then. Or if the disk takes no more.
    """
    cores = _cores_of_workers(context, min(jobs, len(configs)) if more is None else jobs)
    first = _start_worker(context, cores[0])
    try:
        _check_first(first, configs)
    except BaseException:
        _stop([first])
        raise
    return _serve(first, configs, context, cores, observer, more)


def _list_cores() -> list[int]:
    """Cores that this process may use; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _cores_of_workers(context: RunContext, num_workers: int) -> Sequence[int | None]:
    """Give each worker a core of its own where the runs fill the machine; fewer leave it to the system to place them.

    Two commands that run at the same time, a worker each, would otherwise meet on the first core.
    """
    cores = _list_cores()
    return cores if context.device == "cpu" and num_workers == len(cores) else [None] * num_workers


def _serve(
    first: _Worker,
    configs: Sequence[AnyConfig],
    context: RunContext,
    cores: Sequence[int | None],
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None,
) -> Generator[Record]:
    queue = RunQueue(configs, more, Store(Path(context.out)), observer)
    workers = [first]
    try:
        workers += [_start_worker(context, core) for core in cores[1:]]
        while workers:
            for worker in list(workers):
                for record in _receive(worker, workers, queue, context, observer):
                    observer.finished(record)
                    yield record
            has_work = queue.has_work(is_idle=all(worker.run is None for worker in workers))
            for worker in [worker for worker in workers if worker.run is None and not worker.is_leaving]:
                run = queue.next()
                if run is not None:
                    _give(worker, run, queue)
                elif not has_work:
                    _stop([worker])
                    workers.remove(worker)
            connection.wait([worker.pipe for worker in workers], TICK_SEC)
            observer.tick()
    finally:
        _stop(workers)


def _give(worker: _Worker, run: AnyConfig, queue: RunQueue) -> None:
    """Let a worker compute a run; one that is just gone is found out when it is listened to."""
    try:
        worker.pipe.send(("execute", run))
        worker.run = run
    except OSError:
        worker.is_leaving = True
        queue.put_back(run)


def _check_first(worker: _Worker, configs: Sequence[AnyConfig]) -> None:
    """Let a worker load what the runs need, once for each data set and way to score."""
    for config in list_inputs(configs):
        worker.pipe.send(("check", config))
        try:
            _, problem = worker.pipe.recv()
        except EOFError:
            worker.process.join()
            reason = describe_exit(worker.process.exitcode)
            raise UserError(f"--dataset {config.dataset}: the process that loaded it died ({reason})") from None
        if isinstance(problem, Exception):
            raise problem


def _receive(
    worker: _Worker, workers: list[_Worker], queue: RunQueue, context: RunContext, observer: RunObserver
) -> Iterator[Record]:
    """Take in all that a worker has sent; replace it if it died."""
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
                worker.is_leaving = kind == "stopped"  # another process has stopped it: its end is no crash
                yield from queue.take_in(kind, value, run)
    except (EOFError, ConnectionResetError):
        worker.process.join()
        workers.remove(worker)
        workers.append(_start_worker(context, worker.core))
        if worker.run is not None:
            yield from queue.give_up(worker.run, f"the worker process died ({describe_exit(worker.process.exitcode)})")


def start_server() -> None:
    """Start the process that workers are forked from, deaf to Ctrl-C: it would die of it while it imports."""
    if not _HAS_FORK_SERVER:
        return
    # They start as `python -c` does, which imports from the current folder first: there, a user's queue.py would be
    # taken for the standard library's. Workers go back to this folder.
    with chdir(Path(sys.base_prefix)), _start_method_left_open():
        resource_tracker.ensure_running()  # on its way it would unblock what is blocked here
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            _SERVER.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_server() -> None:
    """Kill the process that workers are forked from: it may still be importing. Another is started when needed."""
    pid = getattr(_SERVER, "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _start_worker(context: RunContext, core: int | None) -> _Worker:
    start_server()
    ours, theirs = MULTIPROCESSING.Pipe()
    process = MULTIPROCESSING.Process(target=serve, args=(theirs, context, core), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, core)


def _stop(workers: Sequence[_Worker]) -> None:
    """Stop workers; those with a run write a checkpoint. Kill those that take too long, or all on an interrupt."""
    try:
        for worker in workers:
            if worker.run is None:
                worker.pipe.close()  # what a worker takes for the end of its work
            else:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE_SEC
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()
