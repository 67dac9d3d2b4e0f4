from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gan_ablate.design.cost import estimate_run_sec, gflop_per_step
from gan_ablate.design.grid import list_presets
from gan_ablate.training.train import Trainer
from tests.configs import make_config


@pytest.mark.parametrize("preset", list_presets())
@pytest.mark.parametrize("changes", [{}, {"d_steps_per_g_step": 2}, {"generator_fakes": "fresh"}, {"batch_size": 8}])
def test_the_count_is_near_pytorchs_own(preset: str, changes: dict[str, object]) -> None:
    config = make_config(preset, **{"batch_size": 4, **changes})
    trainer = Trainer(config, torch.zeros(64, 1, config.image_size, config.image_size, dtype=torch.uint8))
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    # First layers need no gradient of their input, which the estimate does not know.
    assert gflop_per_step(config) == pytest.approx(counter.get_total_flops() / 1e9, rel=0.25)


def test_a_known_step_time_replaces_the_guess() -> None:
    config = make_config(steps=1_000)
    assert estimate_run_sec(config, 100.0) - estimate_run_sec(config, 50.0) == pytest.approx(50)


def test_more_work_takes_longer() -> None:
    assert estimate_run_sec(make_config(steps=200)) > estimate_run_sec(make_config(steps=100))
    assert estimate_run_sec(make_config(batch_size=128)) > estimate_run_sec(make_config())
