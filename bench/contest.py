"""Time the plain loop and the package's step in turns, each with all cores and with one core a process."""

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
"""The function that a process runs, the name of its subject, and its cores."""


@dataclass(frozen=True)
class Turn:
    """The measurements of one process in one turn.

    Attributes:
        steps_per_sec: iterations per second.
        page_faults_per_step: minor page faults.
        peak_memory_bytes: of the process since its start.
    """

    steps_per_sec: float
    page_faults_per_step: float
    peak_memory_bytes: int


Side = Literal["plain", "plain per core", "ours", "ours per core"]


def hold_contest(name: str, num_turns: int, turn_sec: float, precision: str = "fp32") -> dict[Side, list[list[Turn]]]:
    """Let four sides take turns in random order.

    The plain loop and the package's step each run in one process with all cores, and, as in a grid, in one process for
    each core with one thread.

    Args:
        name: of the subject.
        num_turns: of each side.
        turn_sec: the length of a turn.
        precision: of the package's step; the plain loop computes in float32.

    Returns:
        For each side, a list of turns, each with the measurements of its processes.
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
    """Start a process for each task, yield their pipes when all are warm, and end them afterwards."""
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
            # A step that ends after the turn counts with the part of it inside the turn.
            num_steps += min(1.0, (end - before) / (now - before))
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        pipe.send(Turn(num_steps / (end - start), faults / max(num_steps, 1), peak_memory_bytes()))
