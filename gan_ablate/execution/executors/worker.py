"""The worker process: receive runs through a pipe, compute them, and send back their progress and results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Literal

from gan_ablate.design.external import ExternalConfig
from gan_ablate.errors import UserError, describe_out_of_memory, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.context import Progress, RunContext
    from gan_ablate.execution.records import Record

Ending = Literal["record", "busy", "stopped", "refused"]
"""How a run ended here: with a record; left to another command that has it; at a checkpoint; or for want of a disk."""


def serve(pipe: Connection, context: RunContext, core: int | None) -> None:
    """Serve runs until the parent closes the pipe, or SIGTERM stops the one under way.

    Answers to a ``("check", config)`` are ``("checked", problem or None)``, to an ``("execute", config)``
    ``("started", config)`` and ``("progress", Progress)``, unless another command has the run, and at last an ending.
    """
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    is_stopping = False

    def stop(*_: object) -> None:
        nonlocal is_stopping
        is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    prepare(1, None if core is None else [core])

    def send(kind: str, value: Any) -> None:
        try:
            pipe.send((kind, value))
        except OSError:  # the parent is gone, and with it whoever wanted this run
            os._exit(1)

    while not is_stopping:
        try:
            task, config = pipe.recv()
        except (EOFError, OSError):
            return
        if task == "check":
            send("checked", check(config, context))
        else:
            send(*compute(config, context, send, lambda: is_stopping))


def compute(
    config: AnyConfig,
    context: RunContext,
    send: Callable[[str, Any], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Ending, Record | AnyConfig | UserError]:
    """Compute a run, unless another command does or has done so.

    Args:
        config: the run.
        context: where and how.
        send: told ``"started"`` and ``"progress"``.
        should_stop: asked after every step whether to stop here.

    Returns:
        How it ended, with the record where there is one, else with the run, or with what the disk refused.
    """
    from pathlib import Path

    from gan_ablate.atomic_io import lease
    from gan_ablate.execution.checkpoint import RunStoppedError
    from gan_ablate.execution.run import execute
    from gan_ablate.execution.store import Store
    from gan_ablate.training.user_code import allow_code

    allow_code(context.folders)

    def report(progress: Progress) -> None:
        send("progress", progress)

    store = Store(Path(context.out))
    try:
        with lease(store.lease_path(config.run_id)) as is_ours:
            if not is_ours:
                return "busy", config
            known = store.load_record(config.run_id)
            if known is not None and known.status != "failed":
                return "record", known
            send("started", config)
            return "record", execute(config, context, report, should_stop)
    except RunStoppedError:
        return "stopped", config
    except OSError as refused:
        reason = f"--out {context.out}: {refused.strerror or refused}; the same command goes on"
        return "refused", UserError(describe_out_of_memory(refused) if is_out_of_memory(refused) else reason)
    except UserError as refused:
        return "refused", refused


def prepare(num_threads: int, cores: Sequence[int] | None) -> None:
    """Prepare this process for training: memory that is kept, so many threads, and these cores if any are named."""
    import torch

    from gan_ablate.training.runtime import keep_memory

    keep_memory()
    torch.set_num_threads(num_threads)
    if cores is not None:
        os.sched_setaffinity(0, cores)


def follow_parent() -> None:
    """Let this process end with the one that asked for it, also where that one is killed and cannot say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    connection.wait([parent.sentinel])
    os._exit(1)


def list_inputs(configs: Iterable[AnyConfig]) -> list[AnyConfig]:
    """Pick a run for each data set, way to score and precision, and for each variant with user code."""
    return list({(c.dataset, c.image_size, c.scoring.features, *_training_inputs(c)): c for c in configs}.values())


def _training_inputs(config: AnyConfig) -> tuple[str, ...]:
    """Name what of a run training needs: its precision, and for user code all but the seed."""
    if isinstance(config, ExternalConfig):
        return ()
    return (config.precision, config.run_id_of(0) if config.user_parts else "")


def check(config: AnyConfig, context: RunContext) -> Exception | None:
    """Load what a run needs; return what is wrong with it, or None."""
    from gan_ablate.execution.environment import check_inputs
    from gan_ablate.training.user_code import allow_code

    allow_code(context.folders)
    try:
        check_inputs(config, context)
    except UserError as problem:
        return problem
    except Exception as failure:
        if is_out_of_memory(failure):
            return UserError(f"--dataset {config.dataset}: {describe_out_of_memory(failure)}")
        # shown to the user in full: it is a defect
        return RuntimeError(traceback.format_exc())
    return None
