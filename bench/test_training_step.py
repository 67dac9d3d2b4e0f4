"""Time a training step and the loop that tutorials print, a group for each preset: ``pytest --benchmark-only``.

Both run on one thread, as in a grid, where every run has a core. ``nox -s bench`` lets them take turns for longer.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.machine import threads
from bench.plain import write_mnist
from bench.subjects import MODELS, SUBJECTS, Step

MAX_SEC = 7.0
"""What all steps of one benchmark may take, if more than one."""

MIN_STEPS, MAX_STEPS = 1, 50


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits as files that torchvision reads."""
    root = tmp_path_factory.mktemp("digits")
    write_mnist(root)
    return root


@pytest.mark.parametrize("name", MODELS)
def test_our_step(benchmark: BenchmarkFixture, name: str) -> None:
    time_steps(benchmark, name, MODELS[name].trainer().step)


@pytest.mark.parametrize("name", [name for name in MODELS if name in SUBJECTS])
def test_the_tutorials_loop(benchmark: BenchmarkFixture, name: str, digits: Path) -> None:
    time_steps(benchmark, name, SUBJECTS[name].plain_step(digits))


def time_steps(benchmark: BenchmarkFixture, name: str, step: Step) -> None:
    benchmark.group = name
    torch.manual_seed(0)
    with threads(1):
        step()
        started = time.perf_counter()
        step()
        num_steps = round(MAX_SEC / (time.perf_counter() - started))
        num_steps = max(MIN_STEPS, min(MAX_STEPS, num_steps))
        benchmark.pedantic(step, rounds=num_steps, warmup_rounds=1 + num_steps // 10)
    assert benchmark.stats is not None
    assert benchmark.stats.stats.median > 0
