from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from gan_ablate.training import timer
from gan_ablate.training.timer import StepTimer


def timer_with(monkeypatch: pytest.MonkeyPatch, times_ms: list[float]) -> StepTimer:
    timer = StepTimer(torch.device("cpu"))
    monkeypatch.setattr(timer, "times_ms", lambda: times_ms)
    return timer


def test_percentiles_leave_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = [float(ms) for ms in range(1, 102)]
    summary = timer_with(monkeypatch, [1e6] * timer.MAX_WARM_UP_STEPS + steady).summarise(images_per_step=64)
    assert summary is not None
    assert (summary.step_ms_p10, summary.step_ms_median, summary.step_ms_p90) == (11, 51, 91)
    assert summary.steps_per_sec == pytest.approx(1000 / 51)
    assert summary.images_per_sec == pytest.approx(64_000 / 51)
    assert summary.num_timed_steps == 101


def test_a_short_run_gives_up_a_quarter_as_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = timer_with(monkeypatch, [9.0, 1.0, 1.0, 1.0]).summarise(1)
    assert summary is not None
    assert summary.num_timed_steps == 3
    assert summary.step_ms_p90 == 1.0


def test_only_what_is_inside_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 1.02, 5.0, 5.01])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timer = StepTimer(torch.device("cpu"))
    with timer:
        pass
    with timer:
        pass
    assert timer.times_ms() == pytest.approx([20, 10])
    assert timer.total_sec() == pytest.approx(0.03)


def test_no_step_has_no_summary() -> None:
    assert StepTimer(torch.device("cpu")).summarise(1) is None


def peak_bytes(*, inside_mb: int = 0, paused_mb: int = 0) -> int:
    timer = StepTimer(torch.device("cpu"))
    with timer:
        np.ones(inside_mb * 125_000).sum()
    with timer.paused():
        np.ones(paused_mb * 125_000).sum()
    summary = timer.summarise(1)
    assert summary is not None
    return summary.peak_memory_bytes


def test_peak_memory_is_this_runs_own_and_only_its_trainings() -> None:
    large = peak_bytes(inside_mb=400)
    assert large - peak_bytes() > 300_000_000
    assert large - peak_bytes(paused_mb=400) > 300_000_000
