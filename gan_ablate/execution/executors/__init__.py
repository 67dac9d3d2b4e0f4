"""Executors: compute runs in local worker processes, on a Ray cluster or with Slurm."""

from __future__ import annotations

import functools
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gan_ablate.errors import OUT_OF_MEMORY, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.context import RunContext, RunObserver
    from gan_ablate.execution.records import Record
    from gan_ablate.execution.store import Store


ExecutorName = Literal["local", "ray", "slurm"]


class Executor(Protocol):
    """Computes runs, in about the order given; to close the returned generator stops all of them."""

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


def check_settings(name: ExecutorName, ray_address: str | None, slurm: Mapping[str, str] | None) -> None:
    """Refuse settings of another executor.

    Raises:
        UserError: if there are some.
    """
    if ray_address is not None and name != "ray":
        raise UserError(f"--ray-address {ray_address}: valid: with --executor ray")
    if slurm and name != "slurm":
        raise UserError(f"--slurm {next(iter(slurm))}: valid: with --executor slurm")


def choose_executor(
    name: ExecutorName, *, ray_address: str | None = None, slurm: Mapping[str, str] | None = None
) -> Executor | None:
    """Return an executor by its name; None stands for this machine.

    Args:
        name: of the executor.
        ray_address: of a Ray cluster; without, one is started on this machine.
        slurm: settings of sbatch.

    Raises:
        UserError: if a package is missing, or a setting belongs to another executor.
    """
    check_settings(name, ray_address, slurm)
    if name == "local":
        return None
    try:
        if name == "ray":
            from gan_ablate.execution.executors.ray import run_ray

            return functools.partial(run_ray, address=ray_address)
        from gan_ablate.execution.executors.slurm import run_slurm

        return functools.partial(run_slurm, settings=slurm)
    except ModuleNotFoundError as missing:
        raise UserError(
            f"--executor {name}: needs the package {missing.name}; valid: pip install 'gan-ablate[{name}]'"
        ) from None


MAX_ATTEMPTS = 2
"""How often a run is begun or resumed before it counts as failed because its worker died."""

ASK_AGAIN_SEC = 2.0
"""Seconds between two attempts at a run that another command computes."""

_WORTH_A_RETRY = (OUT_OF_MEMORY, "AcceleratorError")
"""Beginnings of the messages of runs that may succeed when fewer runs go on at once."""


class RunQueue:
    """The runs that are still to be computed; it decides which of them are tried again.

    Args:
        configs: the runs, in the order in which they begin.
        more: called for further runs whenever all have ended, until it returns none.
        store: receives the records of runs that are given up.
        observer: receives notes on runs that wait or are tried again.
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
        self._computed_by_others: list[tuple[float, AnyConfig]] = []
        self._attempts: Counter[str] = Counter()
        self._noted: set[str] = set()

    def has_work(self, *, is_idle: bool) -> bool:
        """Whether a run is pending, is computed by another command, or may still come; asks for more when idle.

        Args:
            is_idle: whether no run is under way.
        """
        if self._more is not None and is_idle and not self._pending and not self._computed_by_others:
            self._pending.extend(self._more())
        may_come = self._more is not None and not is_idle
        return bool(self._pending or self._computed_by_others) or may_come

    def next(self) -> AnyConfig | None:
        """Return the next run, or None if none can begin now."""
        now = time.monotonic()
        self._pending.extend(config for at, config in self._computed_by_others if at <= now)
        self._computed_by_others = [(at, config) for at, config in self._computed_by_others if at > now]
        return self._pending.popleft() if self._pending else None

    def put_back(self, run: AnyConfig) -> None:
        """Append a run that did not begin, or that another process stopped."""
        self._pending.append(run)

    def take_in(self, kind: str, value: Any, run: AnyConfig) -> Iterator[Record]:
        """Handle the end of a run, as ``worker.compute`` returns it; yield its record if the run is not tried again.

        Raises:
            UserError: if the disk refused to write.
        """
        if kind == "refused":
            raise value
        if kind == "busy":
            if run.run_id not in self._noted:
                self._noted.add(run.run_id)
                self._observer.noted(run, "another command computes it; waits for its record")
            self._computed_by_others.append((time.monotonic() + ASK_AGAIN_SEC, run))
        elif kind == "stopped":
            self.put_back(run)
        else:
            is_short = value.status == "failed" and value.message.startswith(_WORTH_A_RETRY)
            if not (is_short and self._is_retried(run, value.message)):
                yield value

    def give_up(self, run: AnyConfig, reason: str) -> Iterator[Record]:
        """Try a run again whose process was lost, once; after that, save its failure and yield the record."""
        if not self._is_retried(run, reason):
            yield self._store.save_failure(run, reason)

    def _is_retried(self, run: AnyConfig, reason: str) -> bool:
        self._attempts[run.run_id] += 1
        if self._attempts[run.run_id] >= MAX_ATTEMPTS:
            return False
        self._pending.appendleft(run)
        self._observer.noted(run, f"{reason}; it is tried once more")
        return True
