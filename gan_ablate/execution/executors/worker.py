"""The worker process: start it, receive tasks through a pipe, run, check or measure, and send back the results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
import threading
import time
import traceback
from contextlib import chdir, suppress
from multiprocessing import forkserver, resource_tracker, spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never

from gan_ablate.design.external import ExternalConfig
from gan_ablate.errors import UserError, describe_out_of_memory, is_out_of_memory, option
from gan_ablate.execution.executors.gpus import show_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    import torch

    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.context import Progress, RunContext
    from gan_ablate.execution.records import Record

# Workers are forked from a server that has imported PyTorch and torchmetrics, which takes seconds, but has run nothing:
# a fork of this process would inherit threads and CUDA in an undefined state. The server is our own. The one that
# ``multiprocessing`` keeps for the whole process belongs to the caller, with its own list of imports.
_HAS_FORK_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT: Any = multiprocessing.get_context("forkserver" if _HAS_FORK_SERVER else "spawn")
_SERVER = forkserver.ForkServer()
_SERVER.set_forkserver_preload(["gan_ablate.execution.executors.preload"])

Task = Literal["run", "check", "measure", "measure_extractor"]
"""What a worker is asked to do."""

Ending = Literal["record", "busy", "stopped", "refused"]
"""How a run ends: with a record; computed by another command; stopped at a checkpoint; refused by the disk."""

StepTimes = tuple[float, float]
"""Milliseconds of a training step, and to sample an image."""

NUM_EXTRACTED = 8
"""Images of each batch that a large extractor is timed with: Inception takes two seconds for them on a core."""

NUM_SAMPLED = 128
"""Images that are sampled to time it."""

WARM_UP_STEPS, MIN_TIMED_STEPS, MIN_TIMED_SEC = 2, 4, 0.4
"""Steps that are not timed, then at least so many timed ones, and more until so many seconds are over."""


_STARTING = threading.Lock()


def start_process(target: Callable[..., object], *args: object) -> BaseProcess:
    """Start a process that has imported PyTorch; the caller's fork server and start method stay as they are.

    It does not import the caller's script, which would do its work again.

    Raises:
        UserError: in a daemonic process, such as a worker that imports the caller's script as a grid's module.
    """
    if multiprocessing.current_process().daemon:
        raise UserError(
            "a daemonic process cannot start workers; where a grid names this file as its module, "
            'put what it does behind if __name__ == "__main__":'
        )
    process: BaseProcess = _CONTEXT.Process(target=target, args=args, daemon=True)
    with _STARTING:
        is_open = multiprocessing.get_start_method(allow_none=True) is None
        connect, prepare_data = forkserver.connect_to_new_process, spawn.get_preparation_data
        thread = threading.get_ident()

        # Other threads may start processes of their own meanwhile.
        def connect_to_ours(fds: Sequence[int]) -> tuple[int, int]:
            return (_SERVER.connect_to_new_process if threading.get_ident() == thread else connect)(fds)

        def leave_script_out(name: str) -> dict[str, Any]:
            is_ours = threading.get_ident() == thread
            told = prepare_data(name)
            return {key: value for key, value in told.items() if not (is_ours and key.startswith("init_main"))}

        try:
            if _HAS_FORK_SERVER:
                _start_server()
                forkserver.connect_to_new_process = connect_to_ours
            spawn.get_preparation_data = leave_script_out
            process.start()
        finally:
            forkserver.connect_to_new_process, spawn.get_preparation_data = connect, prepare_data
            if is_open:  # to start a process chooses for the whole program
                multiprocessing.set_start_method(None, force=True)
    return process


def _start_server() -> None:
    """Start the process that workers are forked from. It ignores Ctrl-C, which would kill it while it imports."""
    # It starts as `python -c` does, which imports from the current folder first: there, a user's queue.py would be
    # taken for the standard library's. Workers go back to this folder.
    with chdir(Path(sys.base_prefix)):
        resource_tracker.ensure_running()  # otherwise ``ensure_running`` starts it, and unblocks the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            _SERVER.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_server() -> None:
    """Kill the process that workers are forked from; it may still be importing. The next worker starts another."""
    pid = getattr(_SERVER, "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def serve(pipe: Connection, context: RunContext, core: int | None, gpu: str | None = None) -> None:
    """Serve tasks until the parent closes the pipe, or SIGTERM stops the run under way.

    A task is ``(name, config)``. Answers to ``run`` are ``("started", config)`` and ``("progress", Progress)``, unless
    another command computes the run, and at last an ``Ending``. The answer to ``check`` is ``("checked", problem or
    None)``, to ``measure`` ``("measured", StepTimes or None)``, or the classifier's time where ``config`` is None, to
    ``measure_extractor`` ``("measured", milliseconds or None)``.
    """
    if gpu is not None:  # which the worker, and scripts that it starts, see as cuda:0
        show_one(gpu)
        context = context.model_copy(update={"device": "cuda"})
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
        except OSError:  # the parent is gone
            os._exit(1)

    while not is_stopping:
        task: Task
        try:
            task, config = pipe.recv()
        except (EOFError, OSError):
            return
        match task:
            case "run":
                send(*compute(config, context, send, lambda: is_stopping))
            case "check":
                send("checked", check(config, context))
            case "measure":
                send("measured", measure_classifier() if config is None else measure(config, context))
            case "measure_extractor":
                send("measured", measure_extractor(config, context))
            case _:
                assert_never(task)


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
        send: receives ``"started"`` and ``"progress"``.
        should_stop: asked after every step whether to stop here.

    Returns:
        How the run ended, and the record, the run itself, or the error of the disk.
    """
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
        reason = f"{option('out', context.out)}: {refused.strerror or refused}; the same command goes on"
        return "refused", UserError(describe_out_of_memory(refused) if is_out_of_memory(refused) else reason)
    except UserError as refused:
        return "refused", refused


def prepare(num_threads: int, cores: Sequence[int] | None) -> None:
    """Prepare this process for training.

    Args:
        num_threads: of PyTorch.
        cores: that the process may use; None leaves all of them.
    """
    import torch

    from gan_ablate.training.runtime import keep_memory

    keep_memory()
    torch.set_num_threads(num_threads)
    if cores is not None:
        os.sched_setaffinity(0, cores)


def list_inputs(configs: Iterable[AnyConfig]) -> list[AnyConfig]:
    """Pick a run for each data set, way to score and precision, and for each variant with user code."""
    return list({(c.dataset, c.image_size, c.scoring.features, *_training_inputs(c)): c for c in configs}.values())


def _training_inputs(config: AnyConfig) -> tuple[str, ...]:
    """Name what of a run training needs: its precision, and for user code all but the seed."""
    if isinstance(config, ExternalConfig):
        return ()
    return (config.precision, config.holdout, config.fit, config.run_id_of(0) if config.user_parts else "")


def needs_nothing(config: AnyConfig, device: str) -> bool:
    """Whether a run needs only the package and a CPU: then no check can fail."""
    is_plain = isinstance(config, ExternalConfig) or (config.precision == "fp32" and not config.user_parts)
    is_shipped = config.scoring.features in ("digits", "fashion", "none")
    return is_plain and device == "cpu" and config.dataset == "mnist-10k" and is_shipped


def check(config: AnyConfig, context: RunContext) -> Exception | None:
    """Load what a run needs, and return the problem if there is one."""
    from gan_ablate.execution.environment import check_inputs
    from gan_ablate.training.user_code import allow_code

    allow_code(context.folders)
    try:
        check_inputs(config, context)
    except UserError as problem:
        return problem
    except Exception as failure:
        if is_out_of_memory(failure):
            return UserError(f"{option('dataset', config.dataset)}: {describe_out_of_memory(failure)}")
        # A defect: the user sees it in full.
        return RuntimeError(traceback.format_exc())
    return None


def measure(config: RunConfig, context: RunContext) -> StepTimes | None:
    """Return the times of a run's steps, in the median, and of its sampling; None where a step fails.

    The run itself says why it fails.
    """
    import torch

    from gan_ablate.scoring.scorer import scoring_latents
    from gan_ablate.training.loop import NUM_EAGER_STEPS, choose_step
    from gan_ablate.training.runtime import check_precision, find_device, reproducible_float32
    from gan_ablate.training.trainer import Trainer
    from gan_ablate.training.user_code import allow_code

    allow_code(context.folders)
    times: list[float] = []
    try:
        device = find_device(context.device)
        check_precision(config.precision, device)
        # A GPU is timed over several steps, as it works while the processor goes on; its first ones are no graphs.
        num_warm_up, num_batches, num_at_once = WARM_UP_STEPS, 2, 1
        if device.type == "cuda":
            num_warm_up, num_batches, num_at_once = WARM_UP_STEPS + NUM_EAGER_STEPS, 100, 10
        shape = (num_batches * config.batch_size, config.num_channels, config.image_size, config.image_size)
        images = torch.randint(256, shape, dtype=torch.uint8).to(device)
        labels = torch.arange(len(images), device=device) % config.num_classes if config.num_classes else None
        with reproducible_float32():
            trainer = Trainer(config, images, labels)
            take_step = choose_step(trainer)
            _time(take_step, device, num_warm_up)
            while len(times) < MIN_TIMED_STEPS or sum(times) * num_at_once < MIN_TIMED_SEC:
                times.append(_time(take_step, device, num_at_once))
            z = scoring_latents(config, NUM_SAMPLED, labels)[0].to(device)
            generator = trainer.generator.eval()
            with torch.no_grad():
                sample_sec = min(_time(lambda: generator(z), device) for _ in range(2))
    except Exception:  # mostly of memory, or of user code
        return None
    return statistics.median(times) * 1e3, sample_sec / NUM_SAMPLED * 1e3


def measure_classifier() -> float:
    """Return the milliseconds of an image in the digits' classifier."""
    import torch

    from gan_ablate.scoring.extractors import build_extractor

    cpu = torch.device("cpu")
    extractor = build_extractor("digits", cpu)
    images = torch.zeros(512, 1, 28, 28, dtype=torch.uint8)
    extractor(images)
    return _time(lambda: extractor(images), cpu) / len(images) * 1e3


def measure_extractor(config: RunConfig, context: RunContext) -> float | None:
    """Return the milliseconds of an image in a run's extractor, Inception or a user's; None where it fails.

    Inception is timed by an untrained network of the same layers (torchvision's), so it needs no weights.
    """
    import torch

    from gan_ablate.scoring.extractors import build_extractor, build_untrained_inception
    from gan_ablate.training.user_code import allow_code

    allow_code(context.folders)
    features = config.scoring.features
    assert features != "none"
    shape = (NUM_EXTRACTED, config.num_channels, config.image_size, config.image_size)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")
    try:
        if features == "inception":
            extractor = build_untrained_inception(cpu)
        else:
            extractor = build_extractor(features, cpu, images=images)
        extractor(images[:2])
        return min(_time(lambda: extractor(images), cpu) for _ in range(2)) / NUM_EXTRACTED * 1e3
    except Exception:  # the run itself says why it fails
        return None


def _time(call: Callable[[], object], device: torch.device, num: int = 1) -> float:
    """Return the seconds of a call, the mean over some in a row; a GPU is waited for at their end."""
    import torch

    started = time.perf_counter()
    for _ in range(num):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / num
