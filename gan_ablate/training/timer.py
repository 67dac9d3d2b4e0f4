"""The timer: measure the time of each training step, and peak memory."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from gan_ablate.training.device import release_memory
from gan_ablate.training.throughput import Throughput

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_WARM_UP_STEPS = 20
"""The first steps allocate memory, choose kernels and fill caches; they are not what a step costs."""


class StepTimer:
    """A context manager around each step; on a GPU it records events, so that nothing waits for the device.

    Attributes:
        peak_memory_bytes: largest so far; what happens in a pause is left out.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Seconds on the CPU, events on a GPU.
        self._starts: list[Any] = []
        self._ends: list[Any] = []
        self._earlier_ms: list[float] = []
        self.peak_memory_bytes = 0
        _reset_peak_memory(device)

    def restore(self, times_ms: list[float], peak_memory_bytes: int) -> None:
        """Count what was measured before this process took over."""
        self._earlier_ms, self.peak_memory_bytes = list(times_ms), peak_memory_bytes

    def __enter__(self) -> Self:
        self._starts.append(self._now())
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.append(self._now())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of the peak memory: it is not training."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, _peak_memory_bytes(self._device))
        try:
            yield
        finally:
            _reset_peak_memory(self._device)

    def summarise(self, images_per_step: float) -> Throughput | None:
        """Return the percentiles, or None where no step was timed.

        Args:
            images_per_step: real images in one G step's D steps.
        """
        times_ms = self.times_ms()
        if not times_ms:
            return None
        timed = times_ms[min(MAX_WARM_UP_STEPS, len(times_ms) // 4) :]
        p10, median, p90 = (float(value) for value in np.percentile(timed, (10, 50, 90)))
        return Throughput(
            step_ms_median=median,
            step_ms_p10=p10,
            step_ms_p90=p90,
            steps_per_sec=1e3 / median,
            images_per_sec=1e3 / median * images_per_step,
            num_timed_steps=len(timed),
            peak_memory_bytes=self.peak_memory_bytes or _peak_memory_bytes(self._device),
        )

    def total_sec(self) -> float:
        """Seconds spent in steps so far, warm-up included."""
        return sum(self.times_ms()) / 1e3

    def times_ms(self) -> list[float]:
        """Milliseconds of every step so far, in order, warm-up included."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            times = [start.elapsed_time(end) for start, end in zip(self._starts, self._ends, strict=True)]
        else:
            times = [(end - start) * 1e3 for start, end in zip(self._starts, self._ends, strict=True)]
        return self._earlier_ms + times

    def _now(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # A worker's second run must not inherit what the first one freed, nor its peak: proc(5), 5 resets the peak
        # resident set size. Where a sandbox forbids it, the peak is that of the whole process.
        release_memory()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", "ascii")


def _peak_memory_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far, or since the system was asked to forget it; 0 where it is silent."""
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text("ascii").splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        return 0  # not measured
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
