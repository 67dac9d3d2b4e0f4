"""Runs that wait, in order; those that another command has come back after a while, those that were lost, once."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gan_ablate.design.config import RunConfig
    from gan_ablate.execution.events import RunObserver
    from gan_ablate.execution.store import Record

MAX_ATTEMPTS = 2
"""How often a run is begun, or gone on with, before a worker's death is taken for its own fault."""

ASK_AGAIN_SEC = 2.0
"""After so long it is asked again for a run that another command was computing."""

_OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError", "AcceleratorError")


class RunQueue:
    """What is still to be computed.

    Args:
        configs: in the order in which they are to be begun.
    """

    def __init__(self, configs: Iterable[RunConfig]) -> None:
        self._pending = deque(configs)
        self._elsewhere: list[tuple[float, RunConfig]] = []
        self._attempts: Counter[str] = Counter()
        self._told: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, nor is computed by another command."""
        return not self._pending and not self._elsewhere

    def extend(self, configs: Iterable[RunConfig]) -> None:
        """Add runs at the end."""
        self._pending.extend(configs)

    def next(self) -> RunConfig | None:
        """Return the next run, or None where none is to be begun now."""
        now = time.monotonic()
        self._pending.extend(config for at, config in self._elsewhere if at <= now)
        self._elsewhere = [(at, config) for at, config in self._elsewhere if at > now]
        return self._pending.popleft() if self._pending else None

    def may_retry(self, config: RunConfig) -> bool:
        """Take back a run whose worker died, unless that has happened too often."""
        self._attempts[config.run_id] += 1
        if self._attempts[config.run_id] >= MAX_ATTEMPTS:
            return False
        self._pending.appendleft(config)
        return True

    def take_in(self, kind: str, value: Any, run: RunConfig, observer: RunObserver) -> Iterator[Record]:
        """Take in how a run ended, as ``worker.compute`` tells it, and give its record if that is the last word.

        Raises:
            UserError: if the disk takes no more.
        """
        if kind == "refused":
            raise value
        if kind == "busy":
            if run.run_id not in self._told:
                self._told.add(run.run_id)
                observer.noted(run, "another command computes it; waits for its record")
            self._elsewhere.append((time.monotonic() + ASK_AGAIN_SEC, run))
        elif kind == "stopped":  # somebody else stopped whoever computed it
            self.extend([run])
        elif value.status == "failed" and value.message.startswith(_OUT_OF_MEMORY) and self.may_retry(run):
            observer.noted(run, f"{value.message}; it is tried once more")
        else:
            yield value
