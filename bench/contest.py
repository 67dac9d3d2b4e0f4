"""Times the plain loop with all cores against the grid's way, in turns."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import torch

from bench.plain import write_mnist
from bench.subjects import SUBJECTS, Step, as_in_a_run
from gan_ablate.execution.executors.worker import prepare
from gan_ablate.training.trainer import peak_memory_bytes

WARM_UP_STEPS = 3

_Task = tuple[Callable[..., None], str, list[int]]
"""What a process serves, the subject's name, and the cores that are its own."""


@dataclass(frozen=True)
class Turn:
    """What one process did in one turn.

    Attributes:
        steps_per_sec: iterations per second.
        page_faults_per_step: pages that the kernel had to hand out.
        peak_memory_bytes: of the process so far.
    """

    steps_per_sec: float
    page_faults_per_step: float
    peak_memory_bytes: int


Side = Literal["plain", "plain per core", "ours", "ours per core"]


def hold_contest(name: str, num_turns: int, turn_sec: float, precision: str = "fp32") -> dict[Side, list[list[Turn]]]:
    """Let four sides take turns, in another order every time.

    The plain loop and the package's step, both in one process with all cores, and both as the grid does it: as many
    processes as cores, each with one thread on a core of its own.

    Args:
        name: of the subject.
        num_turns: of each side.
        turn_sec: what a turn lasts.
        precision: of ours; the plain loop computes in float32.

    Returns:
        For each side and turn, what each of its processes did.
    """
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        write_mnist(Path(root))
        theirs, ours = partial(_serve_plain, root=root), partial(_serve_ours, precision=precision)
        tasks: dict[Side, list[_Task]] = {
            "plain": [(theirs, name, cores)],
            "plain per core": [(theirs, name, [core]) for core in cores],
            "ours": [(ours, name, cores)],
            "ours per core": [(ours, name, [core]) for core in cores],
        }
        turns: dict[Side, list[list[Turn]]] = {side: [] for side in tasks}
        pipes = {side: stack.enter_context(_processes(of_side)) for side, of_side in tasks.items()}
        for turn in range(num_turns):
            for side in random.Random(turn).sample(list(tasks), len(tasks)):
                turns[side].append(_take_turn(pipes[side], turn_sec))
    return turns


def _take_turn(pipes: list[Connection], turn_sec: float) -> list[Turn]:
    start = time.monotonic() + 0.05  # all of a side start and end together
    for pipe in pipes:
        pipe.send((start, start + turn_sec))
    return [pipe.recv() for pipe in pipes]


@contextmanager
def _processes(tasks: list[_Task]) -> Iterator[list[Connection]]:
    """Start a process for each task; leave when all are warm, and end them afterwards."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for target, *arguments in tasks:
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=target, args=(theirs, *arguments), daemon=True)
            process.start()
            theirs.close()  # so that a process that dies ends the wait for it
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            assert pipe.recv() == "warm"
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve_plain(pipe: Connection, name: str, cores: list[int], *, root: str) -> None:
    torch.set_num_threads(len(cores))
    os.sched_setaffinity(0, cores)
    torch.manual_seed(0)
    _serve(pipe, SUBJECTS[name].plain_step(Path(root)))


def _serve_ours(pipe: Connection, name: str, cores: list[int], *, precision: str) -> None:
    prepare(len(cores), cores)
    trainer = SUBJECTS[name].trainer(precision=precision)
    _serve(pipe, as_in_a_run(trainer, trainer.step))


def _serve(pipe: Connection, step: Step) -> None:
    for _ in range(WARM_UP_STEPS):
        step()
    pipe.send("warm")
    while True:
        start, end = pipe.recv()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        time.sleep(max(0.0, start - time.monotonic()))
        now, num_steps = time.monotonic(), 0.0
        while now < end:
            before = now
            step()
            now = time.monotonic()
            # Of the step that outlasts the turn, the part inside it.
            num_steps += min(1.0, (end - before) / (now - before))
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        pipe.send(Turn(num_steps / (end - start), faults / max(num_steps, 1), peak_memory_bytes()))
