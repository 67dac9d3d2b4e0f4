"""The index of runs: whether each has finished and how long its steps took, without reading every record.

The records are the truth. An entry counts only as long as its record's file has the size and the time that it had when
it was read; deleting the index costs as long as reading them all once.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gan_ablate.atomic_io import check_seal, seal_json, write_atomically
from gan_ablate.execution.store import RECORD_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gan_ablate.execution.store import Status, Store

INDEX_FILE = "index.json"
"""In the cache."""

LAYOUT = 1
"""Raised when entries are written otherwise than before."""


@dataclass(frozen=True)
class Summary:
    """What an index knows of a run that is over.

    Attributes:
        status: how it ended.
        step_ms: median milliseconds of a step, or None where none was timed.
    """

    status: Status
    step_ms: float | None


def record_stamp(store: Store, run_id: str) -> tuple[int, int] | None:
    """Return the nanoseconds and the bytes of a run's record file, or None where the run is not over."""
    # Not by pathlib: there may be a hundred thousand of them.
    for path in (f"{store.root}/runs/{run_id}/{RECORD_FILE}", f"{store.root}/records/{run_id}.json.gz"):
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116
            return status.st_mtime_ns, status.st_size
    return None


def summarise_runs(store: Store, run_ids: Iterable[str]) -> dict[str, Summary]:
    """Look up runs, and read the records of those that the index does not know.

    Args:
        store: where they lie.
        run_ids: whatever runs; those that are not over are left out.

    Raises:
        UserError: if a record has to be read and cannot be.
    """
    path = store.cache_dir / INDEX_FILE
    known, found = _load(path), dict[str, Summary]()
    is_new = False
    for run_id in run_ids:
        stamp = record_stamp(store, run_id)
        if stamp is None:
            continue
        entry = known.get(run_id)
        if entry is None or entry[:2] != list(stamp):
            record = store.load_record(run_id)
            if record is None:
                continue
            entry = [*stamp, record.status, None if record.throughput is None else record.throughput.step_ms_median]
            known[run_id], is_new = entry, True
        found[run_id] = Summary(entry[2], entry[3])
    if is_new:
        with suppress(OSError):  # a cache that cannot be written is read from the records again
            write_atomically(path, seal_json(json.dumps({"layout": LAYOUT, "runs": known})))
    return found


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = path.read_bytes()
        check_seal(content, is_due=True)
        index = json.loads(content)
    except (OSError, ValueError):
        return {}
    return dict(index["runs"]) if index.get("layout") == LAYOUT else {}


def check_index(path: Path) -> None:
    """Check an index against its checksum.

    Raises:
        ValueError: if it is not what was written.
    """
    try:
        check_seal(path.read_bytes(), is_due=True)
    except ValueError as broken:
        raise ValueError(f"{path}: {broken}; it will be made anew") from None
