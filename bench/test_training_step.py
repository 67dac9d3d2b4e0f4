"""What a training step of every preset costs, at its own batch size, on one thread: ``pytest --benchmark-only``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from gan_ablate.config import RunConfig
from gan_ablate.data import load_dataset
from gan_ablate.grid import list_presets, load_preset
from gan_ablate.train import Trainer
from gan_ablate.validation import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

WARM_UP_STEPS = 10
MEASURED_STEPS = 50


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a grid, where every run has one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("preset", list_presets())
def test_training_step(benchmark: BenchmarkFixture, one_thread: None, preset: str) -> None:
    data = {**load_preset(preset, "bench"), "steps": 1, "seed": 0, "scoring": {"features": "none"}}
    config = validate(RunConfig, data, preset)
    images = load_dataset("mnist-10k", config.image_size, Path()).images
    trainer = Trainer(config, images)

    terms = benchmark.pedantic(trainer.step, rounds=MEASURED_STEPS, warmup_rounds=WARM_UP_STEPS)

    assert terms.loss_d.isfinite()
    assert terms.loss_g.isfinite()
