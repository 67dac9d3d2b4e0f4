"""A training that goes on from its state, in a process that has done other things, takes the same steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gan_ablate.training.trainer import Trainer, capture_state, restore_state
from tests.configs import make_config, make_images

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
