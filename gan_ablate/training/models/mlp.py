"""The fully connected GAN: linear layers on flattened images (arXiv:1406.2661, section 5)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from gan_ablate.training.models.layers import (
    build_block,
    build_dropouts,
    build_minibatch_std,
    build_norm,
    build_output_activation,
)

if TYPE_CHECKING:
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.networks import MLPDiscriminator, MLPGenerator


def build_mlp_generator(config: RunConfig, generator: MLPGenerator) -> nn.Sequential:
    """Build (B, latent_dim) → (B, C, S, S) in [-1, 1]."""
    shape = (config.num_channels, config.image_size, config.image_size)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    width = config.num_inputs_g
    for depth, size in enumerate(generator.hidden_sizes, 1):
        norm = build_norm(generator.norm, size, spatial=False)
        parts[f"hidden{depth}"] = build_block(nn.Linear(width, size, bias=norm is None), norm, generator.activation)
        width = size
    parts["output"] = nn.Linear(width, shape[0] * shape[1] * shape[2])
    parts.update(build_output_activation(generator.output_activation))
    parts["unflatten"] = nn.Unflatten(1, shape)
    return nn.Sequential(parts)


def build_mlp_discriminator(config: RunConfig, discriminator: MLPDiscriminator) -> nn.Sequential:
    """Build (B, C, S, S) → (B, num_outputs_d) logits, or (B,) where there is one."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = config.num_channels * config.image_size**2
    for depth, size in enumerate(discriminator.hidden_sizes, 1):
        norm = build_norm(discriminator.norm, size, spatial=False)
        parts[f"hidden{depth}"] = build_block(
            nn.Linear(width, size, bias=norm is None),
            norm,
            discriminator.activation,
            *build_dropouts(discriminator.dropout),
        )
        width = size
    if discriminator.minibatch_std:
        parts["minibatch_std"] = build_minibatch_std(nn.Linear(width + 1, width), discriminator.activation)
    parts["output"] = nn.Linear(width, config.num_outputs_d)
    if config.num_outputs_d == 1:
        parts["squeeze"] = nn.Flatten(0)
    return nn.Sequential(parts)
