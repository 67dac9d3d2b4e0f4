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
    """Computes runs, in about the order given; closing what it returns stops all of them."""

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
        name: which.
        ray_address: of a Ray cluster, instead of one that is started here.
        slurm: settings of sbatch.

    Raises:
        UserError: if the package that it needs is not there, or a setting belongs to another one.
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
"""How often a run is begun, or gone on with, before a worker's death is taken for its own fault."""

ASK_AGAIN_SEC = 2.0
"""After so long it is asked again for a run that another command was computing."""

_WORTH_A_RETRY = (OUT_OF_MEMORY, "AcceleratorError")
"""How messages begin of runs that may succeed when less goes on beside them."""


class RunQueue:
    """The runs that are still to be computed, and what happens to those that were not.

    Args:
        configs: in the order in which they are to be begun.
        more: asked for further runs whenever all have ended, until there are none.
        store: where a run that is given up is recorded.
        observer: receives runs that are put off or tried again.
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
        self._elsewhere: list[tuple[float, AnyConfig]] = []
        self._attempts: Counter[str] = Counter()
        self._told: set[str] = set()

    def has_work(self, *, is_idle: bool) -> bool:
        """Whether a run waits, is computed by another command, or may still come; asks for more where all have ended.

        Args:
            is_idle: whether no run is under way.
        """
        if self._more is not None and is_idle and not self._pending and not self._elsewhere:
            self._pending.extend(self._more())
        may_come = self._more is not None and not is_idle
        return bool(self._pending or self._elsewhere) or may_come

    def next(self) -> AnyConfig | None:
        """Return the next run, or None where none is to be begun now."""
        now = time.monotonic()
        self._pending.extend(config for at, config in self._elsewhere if at <= now)
        self._elsewhere = [(at, config) for at, config in self._elsewhere if at > now]
        return self._pending.popleft() if self._pending else None

    def put_back(self, run: AnyConfig) -> None:
        """Take back a run that was not begun, or was stopped by another process, behind all others."""
        self._pending.append(run)

    def take_in(self, kind: str, value: Any, run: AnyConfig) -> Iterator[Record]:
        """Take in how a run ended, as ``worker.compute`` tells it, and give its record if that is the last word.

        Raises:
            UserError: if the disk takes no more.
        """
        if kind == "refused":
            raise value
        if kind == "busy":
            if run.run_id not in self._told:
                self._told.add(run.run_id)
                self._observer.noted(run, "another command computes it; waits for its record")
            self._elsewhere.append((time.monotonic() + ASK_AGAIN_SEC, run))
        elif kind == "stopped":
            self.put_back(run)
        else:
            is_short = value.status == "failed" and value.message.startswith(_WORTH_A_RETRY)
            if not (is_short and self._is_retried(run, value.message)):
                yield value

    def give_up(self, run: AnyConfig, reason: str) -> Iterator[Record]:
        """Take back a run whose process was lost, once; after that, record its failure and give the record."""
        if not self._is_retried(run, reason):
            yield self._store.save_failure(run, reason)

    def _is_retried(self, run: AnyConfig, reason: str) -> bool:
        self._attempts[run.run_id] += 1
        if self._attempts[run.run_id] >= MAX_ATTEMPTS:
            return False
        self._pending.appendleft(run)
        self._observer.noted(run, f"{reason}; it is tried once more")
        return True
