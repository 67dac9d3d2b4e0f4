"""Comparability: which of a grid's scores were made in one way, and which times were measured on one machine."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gan_ablate.design.outcomes import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from gan_ablate.execution.records import Record


Machine = tuple[str | None, ...]
"""What two runs must share so that their times compare."""

UNSTEADY_SPREAD = 1.5
"""Ninetieth over tenth percentile of a run's step times above which it shared the machine; alone it is 1.1."""

_PARTS = ("cpu", "instructions", "bfloat16", "gpu", "threads_per_run", "torch")


def machine_of(record: Record) -> Machine:
    """Return the machine of a run: its device, then ``_PARTS`` of its environment."""
    return (record.device, *(record.environment.get(part) for part in _PARTS))


def name_machine(machine: Machine) -> str:
    """Describe a machine in words: its GPU, or its processor and instructions, then threads and version."""
    device, cpu, instructions, bfloat16, gpu, threads, torch = machine
    processor = " with ".join(part for part in (cpu, instructions) if part) or "an unknown processor"
    parts = [gpu or (processor if device == "cpu" else f"an unknown {device}")]
    parts += [f"{bfloat16} bfloat16"] if bfloat16 and not gpu else []
    parts += [f"{threads} thread{'s' if threads != '1' else ''}"] if threads else []
    parts += [f"torch {torch}"] if torch else []
    return ", ".join(parts)


def is_unsteady(record: Record) -> bool:
    """Whether the spread of a run's step times shows that it shared the machine."""
    steps = record.throughput
    if steps is None or steps.step_ms_p90 is None or steps.step_ms_p10 is None:
        return False
    return steps.step_ms_p90 > UNSTEADY_SPREAD * steps.step_ms_p10


def find_timed_machine(records: Iterable[Record]) -> Machine | None:
    """Return the machine of most steady runs, the first of several; None without runs. Failed runs have no times."""
    counts = Counter(machine_of(r) for r in records if r.status != "failed" and not is_unsteady(r))
    return max(counts, key=lambda machine: counts[machine], default=None)


_FROM_TRAINING = ("grad_norm_g", "grad_norm_d", "accuracy_d", "confidence_d", "step_ms_median")
"""Outcomes that do not depend on the extractor."""

_OTHER_TIMES = (
    "step_ms_p10", "step_ms_p90", "steps_per_sec", "images_per_sec", "train_sec", "scoring_sec", "total_sec",
)  # fmt: skip


@dataclass(frozen=True)
class Comparability:
    """Which scores and times of a grid's runs compare.

    Attributes:
        records: (variant's label, record) of every run that is over.
        all_runs: the same as a tidy table, from ``load_results``.
    """

    records: list[tuple[str, Record]]
    all_runs: pd.DataFrame

    @property
    def protocols(self) -> set[tuple[object, ...]]:
        """The ways in which runs were scored; scores compare only where there is a single one."""
        return {_protocol(r) for _, r in self.records if r.scoring is not None and r.scoring.final is not None}

    @property
    def machines(self) -> set[Machine]:
        """The machines that runs were computed on; times compare only within one."""
        return {machine_of(record) for _, record in self.records if record.status != "failed"}

    @functools.cached_property
    def timed_machine(self) -> Machine | None:
        """The machine whose times are shown."""
        return find_timed_machine(record for _, record in self.records)

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """The table without values that do not compare.

        All scores are missing where runs were scored in different ways. A run's times are missing where it was computed
        on another machine than ``timed_machine``, or shared the machine.
        """
        runs = self.all_runs.copy()
        times = [*(name for name, outcome in OUTCOMES.items() if outcome.is_timed), *_OTHER_TIMES]
        if len(self.protocols) > 1:
            scores = [name for name in OUTCOMES if name not in _FROM_TRAINING]
            runs[[*scores, "fid_sampling_error", "best_curve_fid"]] = np.nan
            runs["collapsed"] = None
        runs.loc[runs["run_id"].isin(self.untimed), times] = np.nan
        runs.loc[runs["run_id"].isin(self.elsewhere), "peak_memory_mib"] = np.nan
        return runs

    @functools.cached_property
    def unsteady(self) -> set[str]:
        """Ids of the runs that shared the machine."""
        return {record.run_id for _, record in self.records if is_unsteady(record)}

    @functools.cached_property
    def untimed(self) -> set[str]:
        """Ids of the runs whose times do not compare with those of the others."""
        return self.unsteady | self.elsewhere

    @functools.cached_property
    def elsewhere(self) -> set[str]:
        """Ids of the runs that were computed on another machine than ``timed_machine``."""
        if self.timed_machine is None:
            return set()
        finished = (record for _, record in self.records if record.status != "failed")
        return {record.run_id for record in finished if machine_of(record) != self.timed_machine}


def _protocol(record: Record) -> tuple[object, ...]:
    """Return what two scores must share so that they compare."""
    scoring = record.scoring
    if scoring is None or scoring.final is None:
        return ()
    counts = scoring.final.num_samples, scoring.num_reference, scoring.curve_samples
    return record.dataset_sha256, scoring.extractor, scoring.extractor_sha256, scoring.resolution, *counts
