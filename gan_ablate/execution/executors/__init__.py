"""Executors: the queue of runs that they share, and the import of those that need a cluster's package."""

from __future__ import annotations

import functools
import re
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Protocol

from gan_ablate.design.external import ExternalConfig
from gan_ablate.errors import OUT_OF_MEMORY, UserError, option

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.context import Compute, RunContext, RunObserver
    from gan_ablate.execution.records import Record
    from gan_ablate.execution.store import Store


class Executor(Protocol):
    """A function that computes runs, in about the order given; closing what it returns stops all of them."""

    def __call__(
        self,
        configs: Sequence[AnyConfig],
        context: RunContext,
        jobs: int | None,
        observer: RunObserver,
        more: Callable[[], Sequence[AnyConfig]] | None = None,
        /,
    ) -> Generator[Record]:
        """See ``executors.local.run_local``."""


def load_executor(compute: Compute) -> Executor:
    """Import the executor of a cluster.

    Raises:
        UserError: if the package that it needs is not installed.
    """
    try:
        if compute.executor == "ray":
            from gan_ablate.execution.executors.ray import run_ray

            return functools.partial(run_ray, address=compute.ray_address)
        from gan_ablate.execution.executors.slurm import run_slurm

        return functools.partial(run_slurm, settings=compute.slurm)
    except ModuleNotFoundError as missing:
        name = compute.executor
        raise UserError(
            f"{option('executor', name)}: needs the package {missing.name}; valid: pip install 'gan-ablate[{name}]'"
        ) from None


MAX_ATTEMPTS = 2
"""How often a run is started before the loss of its process counts as its own failure."""

ASK_AGAIN_SEC = 2.0
"""Seconds after which a run that another command was computing is tried again."""

_WORTH_A_RETRY = (OUT_OF_MEMORY, "AcceleratorError")
"""The beginnings of messages of runs that may succeed when fewer runs share the machine."""


def is_worth_a_retry(record: Record) -> bool:
    """Whether a run failed for want of memory, or with its GPU, and may succeed later or elsewhere."""
    return record.status == "failed" and record.message.startswith(_WORTH_A_RETRY)


_SHARED_FAULT = re.compile(
    "cannot be started|unrecognized arguments|arguments are required|expected one argument|invalid choice|"
    "no such option|can't open file|no such file|FileNotFoundError|no module named|ImportError|SyntaxError|"
    "IndentationError|URLError|HTTPError|name resolution|not known|network is unreachable|cannot be sampled|valid: ",
    re.IGNORECASE,
)
"""What the message of a script's run says of a fault that every run of the grid has."""


class RunQueue:
    """The runs that wait to be computed, those of other commands and those to be tried again among them.

    The first run of a user's script is computed alone: the others start when it has ended.

    Args:
        configs: the runs, in the order in which they start.
        more: returns further runs; called whenever all have ended, until it returns none.
        store: records the failure of a run that is given up.
        observer: is notified when a run waits for another command, or is tried again.
    """

    def __init__(
        self,
        configs: Iterable[AnyConfig],
        more: Callable[[], Sequence[AnyConfig]] | None,
        store: Store,
        observer: RunObserver,
    ) -> None:
        self._pending = deque(configs)
        self._more, self._store, self._observer = more, store, observer
        self._busy: list[tuple[float, AnyConfig]] = []
        self._attempts: Counter[str] = Counter()
        self._announced: set[str] = set()
        self._trials = {"": ""}  # a script's grid → the id of its first run, empty once that has ended

    def has_work(self, *, is_idle: bool) -> bool:
        """Whether there are runs to compute, now or later; fetches more runs where all have ended.

        Args:
            is_idle: whether no run is under way.
        """
        if self._more is not None and is_idle and not self._pending and not self._busy:
            self._pending.extend(self._more())
        may_come = self._more is not None and not is_idle
        return bool(self._pending or self._busy) or may_come

    def next(self, accepts: Callable[[AnyConfig], bool] = lambda _: True) -> AnyConfig | None:
        """Return the next run that is accepted, or None where no run can start now."""
        now = time.monotonic()
        self._pending.extend(config for at, config in self._busy if at <= now)
        self._busy = [(at, config) for at, config in self._busy if at > now]
        for number, run in enumerate(self._pending):
            if accepts(run) and self._trials.setdefault(_name_grid(run), run.run_id) in ("", run.run_id):
                del self._pending[number]
                return run
        return None

    def put_back(self, run: AnyConfig) -> None:
        """Put a run that did not start, or that another process stopped, behind all others."""
        if self._trials.get(_name_grid(run)) == run.run_id:
            del self._trials[_name_grid(run)]
        self._pending.append(run)

    def end_trial(self, run: AnyConfig) -> bool:
        """Let the other runs of a script start, as its first one has ended; return whether this run was the first."""
        is_first = self._trials.get(_name_grid(run)) == run.run_id
        if is_first:
            self._trials[_name_grid(run)] = ""
        return is_first

    def take_in(self, kind: str, value: Any, run: AnyConfig) -> Iterator[Record]:
        """Handle the end of a run: yield its record, or queue it again.

        Args:
            kind: how it ended, from ``worker.compute``.
            value: its record, or the error for ``"refused"``.
            run: its configuration.

        Raises:
            UserError: if the disk is full, or if a script's first run failed as all others would.
        """
        if kind == "refused":
            raise value
        if kind == "busy":
            self.end_trial(run)
            if run.run_id not in self._announced:
                self._announced.add(run.run_id)
                self._observer.noted(run, "another command computes it; waits for its record")
            self._busy.append((time.monotonic() + ASK_AGAIN_SEC, run))
        elif kind == "stopped":
            self.put_back(run)
        else:
            if is_worth_a_retry(value) and self._is_retried(run, value.message):
                return
            is_first = self.end_trial(run)
            yield value
            if is_first and value.status == "failed" and _SHARED_FAULT.search(value.message):
                what = "the first run failed, and the others would fail alike, so they were not started"
                where = self._store.run_dir(run.run_id)
                raise UserError(f"{_name_grid(run)}: {what}: {value.message}; in {where}")

    def give_up(self, run: AnyConfig, reason: str) -> Iterator[Record]:
        """Queue a run whose process was lost once more; the next time, record its failure and yield the record."""
        if not self._is_retried(run, reason):
            self.end_trial(run)
            yield self._store.save_failure(run, reason)

    def _is_retried(self, run: AnyConfig, reason: str) -> bool:
        self._attempts[run.run_id] += 1
        if self._attempts[run.run_id] >= MAX_ATTEMPTS:
            return False
        self._pending.appendleft(run)
        self._observer.noted(run, f"{reason}; it is tried once more")
        return True


def _name_grid(run: AnyConfig) -> str:
    """Return the name of the grid whose script a run is of; empty for other runs, none of which is tried alone."""
    return run.code.rpartition("@")[0] if isinstance(run, ExternalConfig) else ""
