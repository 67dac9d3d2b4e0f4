"""Residual networks, against the papers' tables: numbers of parameters, and the blocks written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_ablate.errors import UserError
from gan_ablate.training.models import build_discriminator, build_generator
from gan_ablate.training.trainer import Trainer, capture_state, restore_state
from tests.configs import make_config, make_images

COLOUR: dict[str, Any] = {"dataset": "cifar10", "scoring": {"features": "none"}}
SMALL: dict[str, Any] = {
    "generator": {"kind": "resnet", "base_channels": 8},
    "discriminator": {"kind": "resnet", "base_channels": 8},
    "image_size": 32,
    "batch_size": 4,
}


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_sngan_has_the_parameters_of_its_papers_table() -> None:
    """arXiv:1802.05957, table 4: dense, three blocks of 256, batch norm, conv; blocks of 128, dense."""
    config = make_config("sngan-32", **COLOUR)
    conv, wide = 256 * 256 * 9 + 256, 128 * 128 * 9 + 128
    block = 2 * 2 * 256 + 2 * conv + 256 * 256 + 256
    assert num_parameters(build_generator(config)) == (128 * 4096 + 4096) + 3 * block + 2 * 256 + (256 * 27 + 3)
    first, down = (27 * 128 + 128) + wide + (3 * 128 + 128), 2 * wide + 128 * 128 + 128
    assert num_parameters(build_discriminator(config)) == first + down + 2 * (2 * wide) + 129
    assert num_parameters(build_generator(config)) == 4_276_739
    assert (config.loss.kind, config.beta1, config.beta2, config.d_steps_per_g_step) == ("hinge", 0, 0.9, 5)


def test_wgan_gp_has_the_parameters_of_its_papers_appendix() -> None:
    config = make_config("wgan-gp-32", **COLOUR)
    assert num_parameters(build_generator(config)) == 1_204_483
    assert num_parameters(build_discriminator(config)) == 1_053_825


def conv(x: Tensor, layer: Any) -> Tensor:
    return functional.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def norm(x: Tensor, layer: Any) -> Tensor:
    return functional.batch_norm(x, None, None, layer.weight, layer.bias, training=True)


@pytest.mark.usefixtures("float64")
def test_a_generator_is_its_blocks_written_out() -> None:
    network: Any = build_generator(make_config(**SMALL, init="default"))
    z = torch.randn(3, 100)
    x = (z @ network.stem.linear.weight.T + network.stem.linear.bias).reshape(3, 8, 4, 4)
    for block in (network.up1, network.up2, network.up3):
        parts = block.residual
        doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        hidden = norm(x, parts.norm1).relu().repeat_interleave(2, 2).repeat_interleave(2, 3)
        hidden = conv(norm(conv(hidden, parts.conv1), parts.norm2).relu(), parts.conv2)
        x = hidden + conv(doubled, block.shortcut.conv)
    expected = conv(norm(x, network.output_norm).relu(), network.output).tanh()
    torch.testing.assert_close(network(z), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_a_discriminator_is_its_blocks_written_out(pool: str) -> None:
    part = {"kind": "resnet", "base_channels": 8, "pool": pool}
    network: Any = build_discriminator(make_config(**{**SMALL, "discriminator": part}, init="default"))
    image = torch.randn(3, 1, 32, 32)
    first = network.down1.residual
    hidden = functional.avg_pool2d(conv(conv(image, first.conv1).relu(), first.conv2), 2)
    x = hidden + functional.avg_pool2d(conv(image, network.down1.shortcut.conv), 2)
    for block, is_halved in ((network.down2, True), (network.block1, False), (network.block2, False)):
        hidden = conv(conv(x.relu(), block.residual.conv1).relu(), block.residual.conv2)
        if is_halved:
            hidden, x = functional.avg_pool2d(hidden, 2), functional.avg_pool2d(conv(x, block.shortcut.conv), 2)
        x = x + hidden
    pooled = x.relu().sum((2, 3)) if pool == "sum" else x.relu().mean((2, 3))
    expected = (pooled @ network.output.weight.T + network.output.bias)[:, 0]
    torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-12)


def test_glorot_init_has_twice_the_variance_in_branches() -> None:
    config = make_config("sngan-32")
    network: Any = build_generator(config)
    for layer, gain in (
        (network.up1.residual.conv1, 2.0),
        (network.up1.shortcut.conv, 1.0),
        (network.stem.linear, 1.0),
    ):
        receptive = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
        fans = (layer.weight.shape[0] + layer.weight.shape[1]) * receptive
        assert float(layer.weight.detach().var()) == pytest.approx(gain * 2 / fans, rel=0.05)
        assert float(layer.weight.detach().abs().max()) <= math.sqrt(gain * 6 / fans) * (1 + 1e-6)
        assert not layer.bias.any()
    assert bool((network.up1.residual.norm1.weight == 1).all())


@pytest.mark.parametrize("preset", ["sngan-32", "wgan-gp-32"])
def test_residual_presets_train_twenty_finite_steps_and_go_on(preset: str) -> None:
    narrow: dict[str, Any] = {
        "sngan-32": {"kind": "resnet", "base_channels": 8, "spectral_norm": True},
        "wgan-gp-32": {"kind": "resnet", "base_channels": 8, "pool": "mean"},
    }
    changes = {"generator": {"kind": "resnet", "base_channels": 8}, "discriminator": narrow[preset], "batch_size": 4}
    config = make_config(preset, **changes, d_steps_per_g_step=1, steps=30)
    trainer, resumed = (Trainer(config, make_images(config, 20)) for _ in range(2))
    for _ in range(20):
        trainer.step()
    assert trainer.is_finite()
    restore_state(resumed, capture_state(trainer))
    assert all(torch.equal(a, b) for a, b in zip(trainer.step(), resumed.step(), strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 28}, "image_size = 28: this residual generator needs 4·2^n"),
        (
            {"discriminator": {"kind": "resnet", "base_channels": 8, "minibatch_std": True}},
            "discriminator.minibatch_std = True: a residual D has none; valid: false",
        ),
        (
            {"generator": {"kind": "resnet", "base_channels": 6, "norm": "group"}},
            "generator.norm_groups = 8: does not divide the 6 channels",
        ),
    ],
)
def test_impossible_residual_networks_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        make_config(**{**SMALL, **changes})
    assert words in str(refused.value)
