"""A plan whose seeds are all that may be spent in, the runs that each look needs out, one look after the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gan_ablate.analysis.comparability import Comparability
from gan_ablate.analysis.settling import Look, Settling, settle
from gan_ablate.analysis.table import tabulate_runs
from gan_ablate.errors import UserError
from gan_ablate.execution.schedule import estimate_seconds, missing_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from gan_ablate.design.configs import AnyConfig
    from gan_ablate.design.cost import Speed
    from gan_ablate.design.planning import Plan
    from gan_ablate.execution.events import RunObserver
    from gan_ablate.execution.store import Store


class GrowingGrid:
    """A grid that is added to until its questions have answers; see ``analysis.settling``.

    Args:
        plan: of one block, with all seeds that may be spent.
        store: where its runs lie.
        speed: the machine's, if it is known.
        max_hours: after so many no other seed is begun.
        on_look: called with the plan and every look, in order.

    Attributes:
        settling: how far it is, once ``next_runs`` was asked.

    Raises:
        UserError: if the runs are not scored, or were scored in different ways.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        speed: Speed | None,
        max_hours: float | None,
        on_look: Callable[[Plan, Look], None] | None,
    ) -> None:
        if plan.baseline.config.scoring.features == "none":
            dataset = plan.baseline.config.dataset
            raise UserError(f"--until settled: {dataset} is not scored; valid: with --inception-weights PATH")
        self._plan, self._store, self._speed = plan, store, speed
        self._max_hours, self._on_look, self._started_at = max_hours, on_look, time.monotonic()
        self._attempted: set[str] = set()
        self._num_told = 0
        self.settling: Settling

    def next_runs(self) -> list[AnyConfig]:
        """Take every look that the runs allow, and return what the next one needs: nothing once all is over."""
        self.settling = settle(self._plan, self._runs())
        if self._on_look is not None:
            for look in self.settling.looks[self._num_told :]:
                self._on_look(self._plan, look)
        self._num_told = len(self.settling.looks)
        if self.settling.is_over or self._is_late():
            return []
        todo = missing_runs([self.settling.plan], self._store, self._speed)
        missing = [config for config in todo if config.run_id not in self._attempted]
        self._attempted.update(config.run_id for config in missing)
        return missing

    def keep(self) -> None:
        """Let the report cover what was needed so far."""
        self._store.save_plan(self.settling.plan)
        self._store.note_seeds(self.settling.plan)

    def _runs(self) -> pd.DataFrame:
        """What is there; a run that failed is tried once, and then its seed does without."""
        records = list(self._store.records(self._plan))
        labelled = [(label, record) for _, label, record in records]
        comparable = Comparability(labelled, tabulate_runs(self._plan, records))
        if len(comparable.protocols) > 1:
            where = self._store.root
            raise UserError(f"--until settled: runs in {where} were scored in different ways; use another --out")
        runs = comparable.runs
        return runs.loc[(runs["status"] != "failed") | runs["run_id"].isin(self._attempted)]

    def _is_late(self) -> bool:
        return self._max_hours is not None and time.monotonic() - self._started_at > 3600 * self._max_hours


class GrowingGrids:
    """Several of them, whose runs are computed together; those that they share, once.

    Args:
        blocks: a plan each.
        store: as for ``GrowingGrid``, like all below.
        speed: likewise.
        max_hours: likewise.
        on_look: likewise.
        observer: told which runs are to be expected.
    """

    def __init__(
        self,
        blocks: Sequence[Plan],
        store: Store,
        speed: Speed | None,
        max_hours: float | None,
        on_look: Callable[[Plan, Look], None] | None,
        observer: RunObserver,
    ) -> None:
        self._blocks, self._store, self._speed, self._observer = blocks, store, speed, observer
        self._grids = [GrowingGrid(block, store, speed, max_hours, on_look) for block in blocks]

    @property
    def settlings(self) -> list[Settling]:
        """How far each is."""
        return [grid.settling for grid in self._grids]

    def list_runs(self) -> list[AnyConfig]:
        """Return what the next looks need; nothing once all is over."""
        runs = {config.run_id: config for grid in self._grids for config in grid.next_runs()}
        seconds = estimate_seconds(self._blocks, self._store, self._speed)
        self._observer.expect({run_id: seconds[run_id] for run_id in runs})
        return list(runs.values())

    def next_runs(self) -> list[AnyConfig]:
        """Return the same, and let the report cover what there is."""
        runs = self.list_runs()
        self.keep()
        return runs

    def keep(self) -> None:
        """Let the report cover what was needed so far."""
        for grid in self._grids:
            grid.keep()
