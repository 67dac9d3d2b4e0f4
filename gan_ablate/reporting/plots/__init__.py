"""Figures, and the pool of processes that draws them: one message each, a variant looks the same in all of them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_HELPER = "from gan_ablate.reporting.plots import serve; serve()"

MAX_PROCESSES = 8
"""The most processes that draw: each takes seconds to import matplotlib, and 150 MB."""


class FigurePool:
    """Draws figures in this process and in others, in the order in which they were submitted.

    The other processes draw while this one estimates effects. At the end this one draws, too. A figure has the same
    bytes wherever it is drawn.

    Args:
        num_processes: this one included.
        progress: called in this thread with the path of each figure that is drawn.
    """

    def __init__(self, num_processes: int = 1, progress: Callable[[Path], None] | None = None) -> None:
        self._progress = progress
        self._tasks: deque[tuple[Path, bytes]] = deque()
        self._drawn: deque[Path] = deque()
        self._errors: list[BaseException] = []
        self._added = threading.Condition()
        self._is_closed = False
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        for _ in range(min(num_processes, MAX_PROCESSES) - 1):
            with suppress(OSError):  # without a helper this process draws all
                self._start_helper()

    def submit(self, path: Path, plot: Callable[..., object], *arguments: object, **options: object) -> None:
        """Draw a figure, now or later.

        Args:
            path: of the figure, for the progress.
            plot: a function of a module.
            arguments: of the function.
            options: of the function.
        """
        if not self._helpers:
            plot(*arguments, **options)
            self._drawn.append(path)
        else:
            with self._added:
                self._tasks.append((path, pickle.dumps((plot, arguments, options))))
                self._added.notify()
        self._tell()

    def finish(self) -> None:
        """Draw what is left, and wait for the other processes.

        Raises:
            UserError: if a figure's data cannot be read.
        """
        while not self._errors:
            try:
                path, task = self._tasks.popleft()
            except IndexError:
                break
            _draw(task)
            self._drawn.append(path)
            self._tell()
        with self._added:
            self._is_closed = True
            self._added.notify_all()
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.2)
                self._tell()
        if self._errors:
            raise self._errors[0]
        if self._tasks:  # of a process that died
            self._helpers = []
            self.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            with self._added:
                self._is_closed = True
                self._tasks.clear()
                self._added.notify_all()
            for helper in self._helpers:
                helper.kill()
                helper.wait()
            for thread in self._threads:
                thread.join()

    def _tell(self) -> None:
        while self._drawn:
            path = self._drawn.popleft()
            if self._progress is not None:
                self._progress(path)

    def _start_helper(self) -> None:
        # Not by ``multiprocessing``, which imports the caller's script anew. Ctrl-C reaches this process alone.
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        helper = subprocess.Popen(
            [sys.executable, "-c", _HELPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )
        self._helpers.append(helper)
        self._threads.append(threading.Thread(target=self._feed, args=(helper,), daemon=True))
        self._threads[-1].start()

    def _feed(self, helper: subprocess.Popen[bytes]) -> None:
        """Give figures to a process until none is left. A figure whose process dies goes back to the others."""
        assert helper.stdin is not None
        assert helper.stdout is not None
        with helper.stdin, helper.stdout:
            while True:
                with self._added:
                    self._added.wait_for(lambda: self._tasks or self._is_closed)
                    if self._errors or not self._tasks:
                        return
                    path, task = self._tasks.popleft()
                try:
                    pickle.dump(task, helper.stdin)
                    helper.stdin.flush()
                    error = pickle.load(helper.stdout)
                except (OSError, EOFError, pickle.UnpicklingError):
                    with suppress(OSError):
                        helper.stdin.close()
                    self._tasks.appendleft((path, task))
                    return
                if error is None:
                    self._drawn.append(path)
                else:
                    self._errors.append(error)


def serve() -> None:
    """Draw the figures that standard input brings, and answer each with None or its error."""
    answers: Any = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    tasks = sys.stdin.buffer
    while True:
        try:
            task = pickle.load(tasks)
        except EOFError:
            return
        try:
            _draw(task)
        except Exception as error:  # the other process raises it
            answer = pickle.dumps(error)
        else:
            answer = pickle.dumps(None)
        answers.write(answer)
        answers.flush()


def _draw(task: bytes) -> None:
    plot, arguments, options = pickle.loads(task)
    plot(*arguments, **options)
