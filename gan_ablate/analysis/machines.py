"""Records in, what they were computed on and whose times compare out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gan_ablate.execution.store import Record

Machine = tuple[str | None, ...]
"""Everything that two runs must share for their times to be compared."""

UNSTEADY_SPREAD = 1.5
"""Ninetieth over tenth percentile of a run's step times above which the machine was not its own; alone it is 1.1."""

_PARTS = ("cpu", "instructions", "bfloat16", "gpu", "threads_per_run", "torch")


def machine_of(record: Record) -> Machine:
    """Return what a run was computed on: the device, then processor, GPU, threads and version."""
    return (record.device, *(record.environment.get(part) for part in _PARTS))


def name_machine(machine: Machine) -> str:
    """Name a machine to a reader: its GPU, or its processor and instructions, then threads and version."""
    device, cpu, instructions, bfloat16, gpu, threads, torch = machine
    processor = " with ".join(part for part in (cpu, instructions) if part) or "an unknown processor"
    parts = [gpu or (processor if device == "cpu" else f"an unknown {device}")]
    parts += [f"{bfloat16} bfloat16"] if bfloat16 and not gpu else []
    parts += [f"{threads} thread{'s' if threads != '1' else ''}"] if threads else []
    parts += [f"torch {torch}"] if torch else []
    return ", ".join(parts)


def is_unsteady(record: Record) -> bool:
    """Whether a run had to share the machine, to judge by the spread of its step times."""
    steps = record.throughput
    if steps is None or steps.step_ms_p90 is None or steps.step_ms_p10 is None:
        return False
    return steps.step_ms_p90 > UNSTEADY_SPREAD * steps.step_ms_p10


def find_timed_machine(records: Iterable[Record]) -> Machine | None:
    """Return the machine that most of the steady runs were computed on, the first of several; None without runs.

    Runs that failed have no times.
    """
    counts = Counter(machine_of(r) for r in records if r.status != "failed" and not is_unsteady(r))
    return max(counts, key=lambda machine: counts[machine], default=None)
