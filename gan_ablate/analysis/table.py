"""A grid's records in, one tidy table out: a row per run, with what its curves and history come to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_ablate.analysis.comparability import find_timed_machine, is_unsteady, machine_of
from gan_ablate.analysis.outcomes import first_reached, oscillation, summarise_history, value_at
from gan_ablate.design.grid import RESULT_COLUMNS
from gan_ablate.execution.store import Record, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from gan_ablate.design.planning import Plan


PROBE_LABELS = 1_000
"""Labelled images of the probe that decides: few enough that features matter, and enough to choose a penalty."""


def load_results(out: str | Path, grid: str) -> pd.DataFrame:
    """Read the runs of a grid as a tidy table.

    Args:
        out: the results folder.
        grid: the grid's name.

    Returns:
        One row per run that is over: a column per factor, ``cell``, ``seed``, ``status``, the scores, the costs.
        Scores are missing where a run diverged, failed or was not scored.

    Raises:
        UserError: if that grid was never run into this folder.
    """
    store = Store(Path(out))
    plan = store.load_plan(grid)
    return tabulate_runs(plan, list(store.records(plan)))


def tabulate_runs(plan: Plan, records: Sequence[tuple[dict[str, str], str, Record]]) -> pd.DataFrame:
    """Tabulate a plan's runs, from their levels, labels and records; see ``load_results``."""
    import pandas as pd  # a second that plan, list and status need not pay

    yardsticks = find_yardsticks(plan, [(label, record) for _, label, record in records])
    rows = [_row(levels, label, record, yardsticks) for levels, label, record in records]
    return pd.DataFrame(rows, columns=[*plan.grid.factors, *RESULT_COLUMNS])


@dataclass(frozen=True)
class Yardsticks:
    """What a grid's runs are measured by, taken from the grid itself; None where it has no curves yet.

    Attributes:
        target_fid: whose reaching is timed: the baseline's geometric mean half-way through its training.
        equal_sec: when all are compared: mean training seconds of the fastest variant, of its runs that had the machine
            to themselves, on ``find_timed_machine``.
    """

    target_fid: float | None
    equal_sec: float | None


def find_yardsticks(plan: Plan, records: Sequence[tuple[str, Record]]) -> Yardsticks:
    """Find a grid's yardsticks.

    Args:
        plan: whose baseline.
        records: of the plan's runs, with their cells' labels.
    """
    log_middles: list[float] = []
    seconds: dict[str, list[float]] = {}
    machine = find_timed_machine(record for _, record in records)
    for label, record in records:
        scoring = record.scoring
        if scoring is None or record.status != "completed" or not scoring.curve_steps:
            continue
        if machine_of(record) == machine and not is_unsteady(record):
            seconds.setdefault(label, []).append(scoring.curve_train_sec[-1])
        if label == plan.baseline.label:
            middle = min(scoring.curve_steps, key=lambda step: (abs(2 * step - record.config.steps), step))
            log_middles.append(math.log(scoring.curve_fid[scoring.curve_steps.index(middle)]))
    return Yardsticks(
        target_fid=math.exp(sum(log_middles) / len(log_middles)) if log_middles else None,
        equal_sec=min((sum(of_cell) / len(of_cell) for of_cell in seconds.values()), default=None),
    )


def _row(levels: dict[str, str], label: str, record: Record, yardsticks: Yardsticks) -> dict[str, Any]:
    """Flatten a record; what it does not have is None."""
    scoring, throughput = record.scoring, record.throughput
    final = scoring.final if scoring else None
    row: dict[str, Any] = {
        **levels,
        "cell": label,
        "seed": record.config.seed,
        "run_id": record.run_id,
        "status": record.status,
        "steps": record.config.steps,
        "train_sec": record.train_sec,
        "total_sec": record.total_sec,
        "diverged_at": record.diverged_at,
    }
    if record.status == "completed":  # a run that was cut short has no last half, and no time at which it was done
        row |= summarise_history(record.history)
    if final is not None:
        row |= final.as_row()
        row["collapsed"] = final.is_collapsed
    if scoring is not None:
        row |= {
            "fid_batch_stats": scoring.fid_batch_stats,
            "fid_ema": scoring.fid_ema,
            "fid_floor": scoring.floor.fid,
            "kid_floor": scoring.floor.kid,
            "extractor": scoring.extractor_sha256[:12],
            "scoring_sec": final.seconds if final else None,
            "best_curve_fid": min(scoring.curve_fid, default=None),
        }
    if scoring is not None and record.status == "completed":
        row["oscillation"] = oscillation(scoring.curve_steps, scoring.curve_fid)
        if yardsticks.target_fid is not None:
            reached = first_reached(yardsticks.target_fid, scoring.curve_steps, scoring.curve_fid)
            row["fid_reached"] = reached is not None
            row["steps_to_fid"] = record.config.steps if reached is None else reached
            row["sec_to_fid"] = first_reached(yardsticks.target_fid, scoring.curve_train_sec, scoring.curve_fid)
        if yardsticks.equal_sec is not None:
            row["fid_equal_time"] = value_at(yardsticks.equal_sec, scoring.curve_train_sec, scoring.curve_fid)
    if scoring is not None and scoring.representation is not None:
        learnt = scoring.representation
        row["probe_gain"] = learnt.probe_gain(PROBE_LABELS)
        row["arithmetic_gain"] = learnt.arithmetic_gain
        row["filter_gain"] = learnt.filter_gain
    if throughput is not None:
        row |= throughput.model_dump()
        row["peak_memory_mib"] = throughput.peak_memory_bytes / 2**20
    return row
