"""Throughput: the cost of a training step, as the timer measures it and as records keep it."""

from __future__ import annotations

from gan_ablate.design.validation import Model


class Throughput(Model):
    """What a training step costs, warm-up, measurements and scoring excluded.

    Attributes:
        step_ms_median: milliseconds of one G step with its D steps.
        step_ms_p10: the tenth percentile.
        step_ms_p90: the ninetieth percentile.
        steps_per_sec: 1000 / ``step_ms_median``.
        images_per_sec: real images that D sees per second.
        num_timed_steps: how many steps the percentiles rest on.
        peak_memory_bytes: of the process while it trained, or on a GPU of its tensors; 0 where the system does not say.

    Of a user's script whose log has no steps, only the last two are known.
    """

    step_ms_median: float | None = None
    step_ms_p10: float | None = None
    step_ms_p90: float | None = None
    steps_per_sec: float | None = None
    images_per_sec: float | None = None
    num_timed_steps: int
    peak_memory_bytes: int
