"""Observers for the tests of executors: one records what happens, one also kills what computes a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable

from gan_ablate.design.external import AnyConfig
from gan_ablate.execution.context import Progress, RunObserver
from gan_ablate.execution.records import Record


class Recorder(RunObserver):
    """Records events and notes, each with the seed of its run, the steps of progress, and what is prepared."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.prepared: list[tuple[str, int, int]] = []

    def preparing(self, what: str, done: int, total: int) -> None:
        self.prepared.append((what, done, total))

    def started(self, config: AnyConfig) -> None:
        self.events.append(f"started {config.seed}")

    def progressed(self, progress: Progress) -> None:
        self.steps.append(progress.step)

    def noted(self, config: AnyConfig, words: str) -> None:
        self.notes.append(f"{config.seed}: {words}")

    def finished(self, record: Record) -> None:
        self.events.append(f"finished {record.config.seed}")


class Killer(Recorder):
    """Calls ``kill`` with each progress until it has returned True ``left`` times."""

    def __init__(self, kill: Callable[[Progress], bool], left: int = 1) -> None:
        super().__init__()
        self._kill, self.left = kill, left

    def progressed(self, progress: Progress) -> None:
        super().progressed(progress)
        if self.left:
            self.left -= self._kill(progress)


def signal_worker_of(config: AnyConfig, number: int = signal.SIGKILL) -> Callable[[Progress], bool]:
    """Return what sends a signal to the only worker when a run progresses, once to each."""
    signalled: set[int | None] = set()

    def kill(progress: Progress) -> bool:
        workers = [worker for worker in multiprocessing.active_children() if worker.pid not in signalled]
        if progress.run_id != config.run_id or not workers:  # what is told may come from one that is gone
            return False
        (worker,) = workers
        assert worker.pid is not None
        signalled.add(worker.pid)
        os.kill(worker.pid, number)
        return True

    return kill
