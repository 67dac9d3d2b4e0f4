"""The Ray executor: compute runs on the nodes of a cluster, with or without a shared results folder."""

from __future__ import annotations

import signal
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError, option
from gan_ablate.execution.executors import RunQueue
from gan_ablate.execution.executors.worker import check, compute, list_inputs, prepare
from gan_ablate.execution.store import RECORD_FILE, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.context import RunContext, RunObserver
    from gan_ablate.execution.records import Record

TICK_SEC = 0.5
"""Seconds between two calls of the observer."""

MAX_LOST = 3
"""How often Ray restarts a task whose node or process was lost."""

CALL_SEC = 10.0
"""Seconds that a cluster may take to answer."""

GRACE_SEC = 20.0
"""Seconds that tasks have to write a checkpoint when all runs stop."""


class _Mailbox:
    """Takes messages of tasks, and answers whether they stop. It lives on the driver's node: others may be lost."""

    def __init__(self) -> None:
        self._letters: list[tuple[str, Any]] = []
        self._is_stopping = False

    def tell(self, kind: str, value: Any) -> bool:
        self._letters.append((kind, value))
        return self._is_stopping

    def stop(self) -> None:
        self._is_stopping = True

    def empty(self) -> list[tuple[str, Any]]:
        letters, self._letters = self._letters, []
        return letters


def run_ray(
    configs: Sequence[AnyConfig],
    context: RunContext,
    jobs: int | None,
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None = None,
    *,
    address: str | None = None,
) -> Generator[Record]:
    """Compute runs as Ray tasks, one a run, each with a CPU or a GPU; otherwise like ``run_local``.

    A task whose node is lost restarts on another node, from its checkpoint if the nodes share the results folder. Nodes
    need this package, and the data at the same path as on this machine.

    Args:
        configs: the runs, the longest first.
        context: where and how.
        jobs: how many tasks at once; by default as many as the cluster has CPUs, or GPUs.
        observer: receives the events of runs.
        more: called for further runs whenever all have ended, until it returns none.
        address: of a cluster, as ``ray.init`` takes it; without, a cluster starts on this machine.

    Raises:
        UserError: if there is no cluster at the address, or data, extractor or device are not there.
    """
    _call(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (RayError, ConnectionError, RuntimeError, ValueError) as refused:
        reason = str(refused).strip().partition("\n")[0]
        raise UserError(f"{option('ray_address', address)}: no Ray cluster there ({reason})") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray replaces it, and ends silently
    share = {"num_cpus": 1} if context.device == "cpu" else {"num_cpus": 1, "num_gpus": 1}
    kind = "CPU" if context.device == "cpu" else "GPU"
    slots = int(ray.cluster_resources().get(kind, 0))
    if not slots:
        raise UserError(f"{option('device', context.device)}: the Ray cluster has no {kind}")
    _check(configs, context, share)
    return _serve(configs, context, jobs or slots, share, observer, more)


def _call(address: str | None) -> None:
    """Check that a cluster answers at an address: Ray itself tries for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CALL_SEC).close()
    except (OSError, OverflowError) as silent:
        raise UserError(f"{option('ray_address', address)}: no Ray cluster there ({silent})") from None


def _check(configs: Sequence[AnyConfig], context: RunContext, share: dict[str, int]) -> None:
    """Let nodes load what the runs need, once for each data set, way to score and variant with user code."""
    on_node = ray.remote(**share)(_check_on_node)
    for problem in ray.get([on_node.remote(config, context) for config in list_inputs(configs)]):
        if problem is not None:
            raise problem


def _serve(
    configs: Sequence[AnyConfig],
    context: RunContext,
    jobs: int,
    share: dict[str, int],
    observer: RunObserver,
    more: Callable[[], Sequence[AnyConfig]] | None,
) -> Generator[Record]:
    store = Store(Path(context.out))
    queue = RunQueue(configs, more, store, observer)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox).remote()
    task = ray.remote(**share, max_retries=MAX_LOST)(_compute_on_node)
    token = store.cache_dir / f".shared-{uuid.uuid4().hex}"
    write_atomically(token, "")
    running: dict[Any, AnyConfig] = {}
    try:
        while queue.has_work(is_idle=not running) or running:
            while len(running) < jobs and (run := queue.next()) is not None:
                running[task.remote(run, context, str(token), mailbox)] = run
            done, _ = ray.wait(list(running), timeout=TICK_SEC) if running else ([], [])
            if not running:
                time.sleep(TICK_SEC)
            _pass_on(mailbox, observer)
            for reference in done:
                run = running.pop(reference)
                for record in _take_in(reference, run, queue, store):
                    observer.finished(record)
                    yield record
            observer.tick()
    finally:
        token.unlink(missing_ok=True)
        if running:
            ray.get(mailbox.stop.remote())
            ray.wait(list(running), num_returns=len(running), timeout=GRACE_SEC)
            for reference in running:
                ray.cancel(reference, force=True)


def _pass_on(mailbox: Any, observer: RunObserver) -> None:
    for kind, value in ray.get(mailbox.empty.remote()):
        if kind == "started":
            observer.started(value)
        else:
            observer.progressed(value)


def _take_in(reference: Any, run: AnyConfig, queue: RunQueue, store: Store) -> Iterator[Record]:
    try:
        kind, value, files = ray.get(reference)
    except RayError as lost:
        reason = str(lost).strip().partition("\n")[0]
        queue.end_trial(run)
        yield store.save_failure(run, f"the Ray task was lost ({reason})")  # after ``MAX_LOST`` restarts
        return
    for name, content in files.items():  # of a node without the shared folder; the record comes last
        write_atomically(store.run_dir(run.run_id) / name, content)
    yield from queue.take_in(kind, value, run)


def _check_on_node(config: AnyConfig, context: RunContext) -> Exception | None:
    prepare(1, None)
    with tempfile.TemporaryDirectory() as away:
        return check(config, context.model_copy(update={"out": away}))


def _compute_on_node(
    config: AnyConfig, context: RunContext, token: str, mailbox: Any
) -> tuple[str, Any, dict[str, bytes]]:
    """Compute a run on this node.

    Returns:
        The result of ``compute``, and file name → content of what it wrote, if this node does not share the folder.
    """
    prepare(1, None)
    answers: list[Any] = []

    def send(kind: str, value: Any) -> None:
        answers.append(mailbox.tell.remote(kind, value))

    def should_stop() -> bool:
        done, answers[:] = ray.wait(answers, num_returns=len(answers), timeout=0) if answers else ([], [])
        return any(ray.get(done))

    if Path(token).exists():
        return *compute(config, context, send, should_stop), {}
    with tempfile.TemporaryDirectory() as away:
        kind, value = compute(config, context.model_copy(update={"out": away}), send, should_stop)
        folder = Store(Path(away)).run_dir(config.run_id)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lease"]
        files.sort(key=lambda path: path.name == RECORD_FILE)
        return kind, value, {str(path.relative_to(folder)): path.read_bytes() for path in files if kind == "record"}
