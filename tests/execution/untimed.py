"""What two records of the same run share, wherever and in however many pieces it was computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gan_ablate.design.config import RunConfig
from gan_ablate.execution.context import RunContext, RunObserver
from gan_ablate.execution.executors.local import run_local
from gan_ablate.execution.records import Record
from tests.features import warm


def untimed(record: Record) -> dict[str, Any]:
    """All of a record but what the clock has said."""
    content = record.model_dump(exclude={"train_sec", "total_sec", "throughput", "environment"})
    if content["scoring"] is not None:
        for name in ("sampling_sec", "curve_sec", "curve_train_sec"):
            content["scoring"].pop(name)
        for name in ("final", "best", "floor"):
            if content["scoring"][name] is not None:
                content["scoring"][name].pop("seconds")
    return content


def untimed_by_id(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    return {record.run_id: untimed(record) for record in records}


def compute_alone(configs: Sequence[RunConfig], out: Path) -> dict[str, dict[str, Any]]:
    """What runs leave behind that are computed here, one after the other."""
    return untimed_by_id(run_local(configs, RunContext(out=str(warm(out)), data_dir="d"), 1, RunObserver()))
