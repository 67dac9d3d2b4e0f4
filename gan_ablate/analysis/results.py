"""Everything that a report says of one grid, gathered once: its plan, its records, its table and what they come to."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gan_ablate.analysis.comparability import Comparability
from gan_ablate.analysis.courses import Course, find_unlevelled, follow_effects
from gan_ablate.analysis.curves import first_point, tabulate_curves
from gan_ablate.analysis.settling import Look, settle
from gan_ablate.analysis.summary import summarise_variants
from gan_ablate.analysis.table import Yardsticks, find_yardsticks, tabulate_runs
from gan_ablate.analysis.verdicts import Verdicts

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from gan_ablate.design.planning import Plan
    from gan_ablate.execution.store import Record, ScoringRecord, Store


@dataclass(frozen=True)
class GridResults:
    """A grid's results so far.

    Attributes:
        store: where they lie.
        plan: what was to be run.
        records: of every run that is over, with its variant's label.
        runs: the same as a tidy table, see ``tabulate_runs``.
    """

    store: Store
    plan: Plan
    records: list[tuple[str, Record]]
    runs: pd.DataFrame

    @classmethod
    def load(cls, store: Store, grid: str) -> GridResults:
        """Read a grid's records."""
        return cls.of(store, store.load_plan(grid))

    @classmethod
    def of(cls, store: Store, plan: Plan) -> GridResults:
        """Read a plan's records."""
        records = list(store.records(plan))
        return cls(store, plan, [(label, record) for _, label, record in records], tabulate_runs(plan, records))

    @property
    def name(self) -> str:
        """The plan's name: the grid's, and what sets its block apart."""
        return self.plan.name

    @property
    def folder(self) -> Path:
        """Where the grid's tables and figures belong."""
        return self.store.root / self.name

    @property
    def labels(self) -> list[str]:
        """Names of all variants, in the plan's order."""
        return [cell.label for cell in self.plan.cells]

    @property
    def scored(self) -> list[ScoringRecord]:
        """The scores of all runs that have a final one."""
        return [r.scoring for _, r in self.records if r.scoring is not None and r.scoring.final is not None]

    @functools.cached_property
    def yardsticks(self) -> Yardsticks:
        """The target FID and the moment of equal time."""
        return find_yardsticks(self.plan, self.records)

    @functools.cached_property
    def comparable(self) -> Comparability:
        """What of the runs compares with what."""
        return Comparability(self.records, self.runs)

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """FID along training, of every run as far as it came."""
        return tabulate_curves(self.records, self.comparable.untimed)

    @functools.cached_property
    def whole_curves(self) -> pd.DataFrame:
        """The same of runs that were completed, where scores compare: what is compared along training."""
        completed = self.runs.loc[self.runs["status"] == "completed", ["cell", "seed"]]
        return self.curves.merge(completed if len(self.comparable.protocols) == 1 else completed.iloc[:0])

    @functools.cached_property
    def courses(self) -> list[Course]:
        """Every effect of the design along training; none where there is a single point."""
        return follow_effects(self.plan, self.whole_curves) if self.whole_curves["step"].nunique() > 1 else []

    @functools.cached_property
    def unlevelled(self) -> dict[str, float]:
        """The variants whose FID still falls at the end, see ``find_unlevelled``."""
        return find_unlevelled(self.plan, self.whole_curves)

    @functools.cached_property
    def summary(self) -> pd.DataFrame:
        """One row per variant."""
        return summarise_variants(self.plan, self.comparable.runs, first_point(self.records))

    @functools.cached_property
    def verdicts(self) -> Verdicts:
        """The effects of the design, and what they say of the claims."""
        return Verdicts(self.plan, self.comparable.runs, first_point(self.records))

    @functools.cached_property
    def looks(self) -> tuple[Look, ...]:
        """The looks at a grid whose seeds were added one by one; none where their number was fixed beforehand."""
        is_sequential = self.plan.until_settled and self.verdicts.effects("fid")
        return settle(self.plan, self.comparable.runs).looks if is_sequential else ()

    @property
    def is_complete(self) -> bool:
        """Whether every run has a result."""
        return len(self.runs) == self.plan.num_runs and "failed" not in set(self.runs["status"])
