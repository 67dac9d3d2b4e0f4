from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from gan_ablate.training import trainer as timer
from gan_ablate.training.trainer import StepTimer, Trainer, capture_state, restore_state
from tests.configs import make_config, make_images


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


def test_peak_memory_is_that_of_this_runs_training() -> None:
    large = peak_bytes(inside_mb=400)
    assert large - peak_bytes() > 300_000_000
    assert large - peak_bytes(paused_mb=400) > 300_000_000


NUM_IMAGES = 40
SMALL: dict[str, Any] = {
    "generator": {"kind": "dcgan", "base_channels": 4},
    "discriminator": {"kind": "dcgan", "base_channels": 4, "norm": "none"},
    "batch_size": 6,
}
MECHANISMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch norm": {"discriminator": {"kind": "dcgan", "base_channels": 4}},
    "dropout": {"discriminator": {"kind": "dcgan", "base_channels": 4, "dropout": 0.3}},
    "spectral norm": {"discriminator": {"kind": "dcgan", "base_channels": 4, "spectral_norm": True}},
    "average": {"ema_decay": 0.9},
    "several D steps": {"d_steps_per_g_step": 3, "generator_fakes": "fresh"},
    "D rests": {"g_steps_per_d_step": 3},
    "G first": {"update_order": "generator_first"},
    "classes": {"conditional": True, "num_classes": 10},
    "augmentation": {"augmentation": ["colour", "translation", "cutout"]},
    "gradient penalty": {"penalty": "gradient"},
    "weight clipping": {"loss": {"kind": "wasserstein", "weight_clip": 0.01}},
    "mode seeking": {"mode_seeking_weight": 1.0},
    "bf16": {"precision": "bf16"},
    "accumulated gradient": {"generator_gradient": "accumulated"},
    "RMSProp": {"optimizer_g": {"kind": "rmsprop", "momentum": 0.5}, "optimizer_d": "rmsprop"},
    "AdamW": {"optimizer_g": "adamw", "optimizer_d": "adamw"},
    "SGD": {"optimizer_g": {"kind": "sgd", "momentum": 0.9, "nesterov": True}, "optimizer_d": "sgd"},
    "schedule": {"lr_schedule": "cosine", "lr_warmup_steps": 8, "steps": 20},
    "clipped gradients": {"clip_grad_norm_g": 0.01, "clip_grad_norm_d": 0.01, "g_steps_per_d_step": 3},
    "lazy penalty": {"penalty": {"kind": "r1", "every": 3}},
    "average with ramp-up": {"ema_decay": 0.9, "ema_rampup": 0.5, "ema_buffers": "copied"},
    "instance norm": {"discriminator": {"kind": "dcgan", "base_channels": 4, "norm": "instance"}},
    "attention": {"generator": {"kind": "dcgan", "base_channels": 8, "attention": 14}},
}


def make_trainer(changes: dict[str, Any]) -> Trainer:
    config = make_config(**{**SMALL, **changes})
    return Trainer(config, make_images(config, NUM_IMAGES), torch.arange(NUM_IMAGES) % 10)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_training_that_goes_on_takes_the_same_steps(mechanism: str) -> None:
    whole, changes = make_trainer(MECHANISMS[mechanism]), MECHANISMS[mechanism]
    for _ in range(7):  # 42 images: into the second epoch
        whole.step()
    state = capture_state(whole)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    ends = [whole.step() for _ in range(2)]
    rows = [whole.measure(1, ends[-1])]
    end = capture_state(whole)
    torch.rand(11)
    resumed = make_trainer(changes)
    restore_state(resumed, state)
    again = [resumed.step() for _ in range(2)]
    rows.append(resumed.measure(1, again[-1]))
    assert all(torch.equal(a, b) for a, b in zip(ends[0], again[0], strict=True))
    assert rows[0] == rows[1]
    assert capture_state(resumed).keys() == end.keys()
    assert all(torch.equal(value, end[name]) for name, value in capture_state(resumed).items())
    assert all(torch.equal(state[name], value) for name, value in kept.items())  # neither training wrote into it


def test_a_state_lacks_nothing_that_a_step_changes() -> None:
    """Every tensor of a fresh trainer that another state would set is set: none keeps what it began with."""
    one, other = make_trainer({"ema_decay": 0.9}), make_trainer({"ema_decay": 0.9, "seed": 1})
    one.step()
    other.step()
    restore_state(other, capture_state(one))
    mine, theirs = capture_state(one), capture_state(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_a_state_of_other_networks_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        restore_state(make_trainer({"latent_dim": 7}), capture_state(make_trainer({})))


def test_a_state_from_which_something_is_missing_is_refused() -> None:
    state = capture_state(make_trainer({}))
    del state["stream/penalty"]
    with pytest.raises(KeyError, match="stream/penalty"):
        restore_state(make_trainer({}), state)
