from __future__ import annotations

from typing import Any

import pytest

from gan_ablate.errors import UserError
from tests.configs import make_config

PLAIN_D = {"kind": "dcgan", "base_channels": 4, "norm": "none"}
ACCUMULATED = {"generator_gradient": "accumulated"}
CLIPPED = {"kind": "wasserstein", "weight_clip": 0.01}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"penalty": "r1"}, ["penalty = 'r1'", "batch norm mixes", 'discriminator.norm = "none"']),
        ({"penalty": "gradient", "discriminator": {**PLAIN_D, "minibatch_std": True}}, ["minibatch_std mixes"]),
        (
            {"loss": CLIPPED, "discriminator": {**PLAIN_D, "spectral_norm": True}},
            ["loss.weight_clip = 0.01", "use one"],
        ),
        ({"d_steps_per_g_step": 2, "g_steps_per_d_step": 2}, ["g_steps_per_d_step = 2", "valid: 1"]),
        ({"loss": "relativistic", "g_steps_per_d_step": 2}, ["g_steps_per_d_step = 2", "a real image beside it"]),
        ({"augmentation": ["cutout", "cutout"]}, ["augmentation = ['cutout', 'cutout']", "each kind once"]),
        ({"augmentation": ["flip"]}, ["augmentation", "'colour', 'translation' or 'cutout'"]),
        ({"conditional": True}, ["num_classes = None", "comes from the data set"]),
        ({"num_classes": 10}, ["num_classes = 10", "valid: conditional = true"]),
        ({"conditional": True, "num_classes": 10, "loss": "relativistic"}, ["loss", "of different classes"]),
        ({"conditional": True, "num_classes": 10, "mode_seeking_weight": 1.0}, ["mode_seeking_weight = 1.0"]),
        ({"conditional": True, "num_classes": 10, "penalty": "gradient", "discriminator": PLAIN_D}, ["penalty"]),
        ({"matching_aware": False}, ["matching_aware = False", "valid: conditional = true"]),
        ({**ACCUMULATED, "generator_fakes": "fresh"}, ["generator_fakes = 'fresh'", "the same fakes", '"reused"']),
        ({**ACCUMULATED, "update_order": "generator_first"}, ["update_order", "before G's", '"discriminator_first"']),
        ({**ACCUMULATED, "g_steps_per_d_step": 2}, ["g_steps_per_d_step = 2", "before it; valid: 1"]),
        ({**ACCUMULATED, "penalty": "r1_r2", "discriminator": PLAIN_D}, ["penalty = 'r1_r2'", "would reach G"]),
        ({"loss": "wasserstein"}, ["loss = 'wasserstein'", "nothing keeps D from growing", "weight_clip"]),
        ({"loss": CLIPPED, "penalty": "gradient", "discriminator": PLAIN_D}, ["loss.weight_clip = 0.01", "use one"]),
        (
            {"discriminator": {**PLAIN_D, "downsample": "max_pool"}},
            ["discriminator.kernel_size = 4", "pooling follows a convolution that keeps the size; valid: 3"],
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        make_config(**changes)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"penalty": "r1", "discriminator": PLAIN_D},
        {"loss": CLIPPED},
        {"loss": "wasserstein", "discriminator": {**PLAIN_D, "spectral_norm": True}},
        {"loss": "wasserstein", "penalty": "gradient", "discriminator": PLAIN_D},
        {"conditional": True, "num_classes": 10, "matching_aware": False},
        {"conditional": True, "num_classes": 10, "penalty": "r1", "discriminator": PLAIN_D},
        {**ACCUMULATED, "d_steps_per_g_step": 2, "penalty": "r1", "discriminator": PLAIN_D},
    ],
)
def test_what_goes_together_is_not(changes: dict[str, Any]) -> None:
    assert make_config(**changes).run_id
