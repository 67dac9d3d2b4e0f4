from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gan_ablate.design.config import RunConfig
from gan_ablate.design.cost import Speed, estimate_run_sec, estimate_total_sec, gflop_per_step, step_key
from gan_ablate.design.grid import list_presets
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config, shipped_variants


@pytest.mark.parametrize("preset", list_presets())
@pytest.mark.parametrize("changes", [{}, {"d_steps_per_g_step": 2}, {"generator_fakes": "fresh"}, {"batch_size": 8}])
def test_the_count_is_near_pytorchs_own(preset: str, changes: dict[str, object]) -> None:
    config = make_config(preset, **{"batch_size": 4, **changes})
    assert gflop_per_step(config) == pytest.approx(count_gflop(config), rel=0.25)


@pytest.mark.parametrize("config", shipped_variants().values(), ids=shipped_variants())
def test_the_count_of_every_shipped_level_is_near_pytorchs_own(config: RunConfig) -> None:
    config = config.model_copy(update={"batch_size": 4})
    assert gflop_per_step(config) == pytest.approx(count_gflop(config), rel=0.3)


def test_the_count_has_minibatch_stds_layer_of_an_mlp() -> None:
    part = {"kind": "mlp", "hidden_sizes": [512, 256]}
    with_it, without = (
        gflop_per_step(make_config("mlp", discriminator={**part, "minibatch_std": is_on})) for is_on in (True, False)
    )
    # Forward and backward of real and fake images are six passes, and two more in G's step.
    assert with_it - without == pytest.approx(2e-9 * 64 * 8 * 256**2)


def test_the_count_has_the_second_backward_pass_of_an_accumulated_gradient() -> None:
    own, accumulated = (make_config(batch_size=4, generator_gradient=gradient) for gradient in ("own", "accumulated"))
    more = gflop_per_step(accumulated) - gflop_per_step(own)
    assert more == pytest.approx(count_gflop(accumulated) - count_gflop(own), rel=0.1)


class OneModule:
    """Counts for no module apart: PyTorch's tracker of modules fails where gradients are taken in a step."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...


def count_gflop(config: RunConfig) -> float:
    """Let PyTorch count a step, on average over those of one D step.

    First layers need no gradient of their input, which the estimate does not know.
    """
    shape = (64, 1, config.image_size, config.image_size)
    trainer = Trainer(config, torch.zeros(shape, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64))
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = OneModule()  # type: ignore[assignment]
    with counter:
        for _ in range(config.g_steps_per_d_step):
            trainer.step()
    return counter.get_total_flops() / 1e9 / config.g_steps_per_d_step


def test_a_known_step_time_replaces_the_guess() -> None:
    config = make_config(steps=1_000, scoring={"features": "none"})
    slow, fast = (estimate_run_sec(config, Speed({step_key(config): ms})) for ms in (100.0, 50.0))
    assert slow - fast == pytest.approx(50)
    assert estimate_run_sec(make_config(seed=7, steps=1_000, scoring={"features": "none"}), Speed()) != slow
    another_seed = make_config(seed=7, steps=1_000, scoring={"features": "none"})
    assert estimate_run_sec(another_seed, Speed({step_key(config): 100.0})) == slow


def test_more_work_takes_longer() -> None:
    assert estimate_run_sec(make_config(steps=200), Speed()) > estimate_run_sec(make_config(steps=100), Speed())
    assert estimate_run_sec(make_config(batch_size=128), Speed()) > estimate_run_sec(make_config(), Speed())
    more_images = make_config(scoring={"features": "digits", "num_samples": 20_000})
    assert estimate_run_sec(more_images, Speed()) > estimate_run_sec(make_config(), Speed())
    learnt = make_config(scoring={"features": "digits", "representation": True})
    assert (
        estimate_run_sec(learnt, Speed()) > estimate_run_sec(make_config(scoring={"features": "digits"}), Speed()) + 9
    )
    assert step_key(make_config(batch_size=128)) != step_key(make_config())


def test_a_grid_takes_its_start_the_worker_that_ends_last_and_the_report() -> None:
    speed = Speed(start_sec=3.0)
    report_sec = estimate_total_sec([], 2, 4, speed)
    with_one = estimate_total_sec([40.0], 2, 4, speed)
    assert with_one > 3 + 40 + report_sec
    assert estimate_total_sec([40.0, 30.0, 20.0], 2, 4, speed) == pytest.approx(with_one + 10)
    assert estimate_total_sec([40.0, 30.0, 20.0], 1, 4, speed) == pytest.approx(with_one + 50)
    assert estimate_total_sec([], 2, 8, speed) > report_sec > 0
