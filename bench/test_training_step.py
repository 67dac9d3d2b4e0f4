"""What a training step costs, and what the loop that tutorials print does meanwhile: ``pytest --benchmark-only``.

pytest-benchmark times one step of ours on one thread. The table of ratios, at the end, comes from short turns;
``nox -s bench`` takes longer ones, and writes them to results/speed.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.contest import hold_contest
from bench.speed import per_sec, ratio_text
from bench.subjects import SUBJECTS
from gan_ablate.data import load_dataset
from gan_ablate.train import Trainer

WARM_UP_STEPS = 3
SMALL_STEPS = 50
LARGE_STEPS = 8
"""Fewer where a step takes a second."""

NUM_TURNS = 3
TURN_SEC = 3.0


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a grid, where every run has one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", SUBJECTS)
def test_training_step(benchmark: BenchmarkFixture, one_thread: None, name: str) -> None:
    config = SUBJECTS[name].config()
    trainer = Trainer(config, load_dataset(config.dataset, config.image_size, Path()).images)
    num_steps = SMALL_STEPS if config.image_size < 32 else LARGE_STEPS

    terms = benchmark.pedantic(trainer.step, rounds=num_steps, warmup_rounds=WARM_UP_STEPS)

    assert terms.loss_d.isfinite()
    assert terms.loss_g.isfinite()


@pytest.mark.parametrize("name", SUBJECTS)
def test_against_the_plain_loop(benchmark: BenchmarkFixture, ratios: dict[str, dict[str, object]], name: str) -> None:
    contest = benchmark.pedantic(hold_contest, args=(name, NUM_TURNS, TURN_SEC), rounds=1)

    ratios[name] = {
        **{f"{side}, it/s": median(per_sec(turns)) for side, turns in contest.items()},
        "ours per core / plain": ratio_text(contest["ours per core"], contest["plain"]),
        "ours / plain": ratio_text(contest["ours"], contest["plain"]),
        "the step alone": ratio_text(contest["ours per core"], contest["plain per core"]),
    }
    assert all(rate > 0 for turns in contest.values() for rate in per_sec(turns))
