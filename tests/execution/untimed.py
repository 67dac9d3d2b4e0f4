"""What two records of the same run share, wherever and in however many pieces it was computed."""

from __future__ import annotations

from typing import Any

from gan_ablate.execution.store import Record


def untimed(record: Record) -> dict[str, Any]:
    """All of a record but what the clock has said."""
    content = record.model_dump(exclude={"train_sec", "total_sec", "throughput", "environment"})
    if content["scoring"] is not None:
        for name in ("sampling_sec", "curve_sec", "curve_train_sec"):
            content["scoring"].pop(name)
        for name in ("final", "floor"):
            if content["scoring"][name] is not None:
                content["scoring"][name].pop("seconds")
    return content
