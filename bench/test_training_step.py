"""What a training step costs, and what the loop that tutorials print does meanwhile: ``pytest --benchmark-only``.

pytest-benchmark times one step of ours on one thread. The table of ratios, at the end, comes from short turns;
``nox -s bench`` takes longer ones, and writes them to results/speed.md.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.contest import hold_contest
from bench.machine import threads
from bench.speed import per_sec, rates_and_ratios
from bench.subjects import SUBJECTS

WARM_UP_STEPS = 3
SMALL_STEPS = 50
LARGE_STEPS = 8
"""Fewer where a step takes a second."""

NUM_TURNS = 3
TURN_SEC = 3.0


@pytest.mark.parametrize("name", SUBJECTS)
def test_training_step(benchmark: BenchmarkFixture, name: str) -> None:
    num_steps = SMALL_STEPS if SUBJECTS[name].config().image_size < 32 else LARGE_STEPS
    trainer = SUBJECTS[name].trainer()

    with threads(1):  # as in a grid, where every run has one core
        terms = benchmark.pedantic(trainer.step, rounds=num_steps, warmup_rounds=WARM_UP_STEPS)

    assert terms.loss_d.isfinite()
    assert terms.loss_g.isfinite()


@pytest.mark.parametrize("name", SUBJECTS)
def test_against_the_plain_loop(benchmark: BenchmarkFixture, ratios: dict[str, dict[str, object]], name: str) -> None:
    contest = benchmark.pedantic(hold_contest, args=(name, NUM_TURNS, TURN_SEC), rounds=1)

    ratios[name] = rates_and_ratios(contest)
    assert all(rate > 0 for turns in contest.values() for rate in per_sec(turns))
