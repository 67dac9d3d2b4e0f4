"""The convolutional GAN of Radford et al., "Unsupervised representation learning with DCGANs" (arXiv:1511.06434).

All convolutions are 4×4 with stride 2 and padding 1: they halve or double the size. Batch norm goes where the paper
puts it, on every layer but G's output and D's input; a layer with batch norm has no bias, which the norm would cancel.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from gan_ablate.models.layers import build_block, build_dropouts, build_norm

if TYPE_CHECKING:
    from gan_ablate.config import DCGANDiscriminator, DCGANGenerator, RunConfig


def build_dcgan_generator(config: RunConfig, generator: DCGANGenerator) -> nn.Sequential:
    """Build (B, latent_dim) → (B, C, S, S) in [-1, 1]."""
    side, num_doublings = config.stem_size, config.num_doublings
    width = generator.base_channels * 2 ** (num_doublings - 1)
    has_bias = generator.norm == "none"
    stem = nn.Sequential(
        OrderedDict(
            linear=nn.Linear(config.latent_dim, width * side**2, bias=has_bias),
            unflatten=nn.Unflatten(1, (width, side, side)),
        )
    )
    norm = build_norm(generator.norm, width, spatial=True)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=build_block(stem, norm, generator.activation))
    for depth in range(1, num_doublings):
        layer = nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=has_bias)
        width //= 2
        parts[f"up{depth}"] = build_block(layer, build_norm(generator.norm, width, spatial=True), generator.activation)
    parts["output"] = nn.ConvTranspose2d(width, config.num_channels, 4, stride=2, padding=1)
    parts["tanh"] = nn.Tanh()
    return nn.Sequential(parts)


def build_dcgan_discriminator(config: RunConfig, discriminator: DCGANDiscriminator) -> nn.Sequential:
    """Build (B, C, S, S) → (B,) logits."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    in_channels, width = config.num_channels, discriminator.base_channels
    for depth in range(1, config.num_doublings + 1):
        norm = None if depth == 1 else build_norm(discriminator.norm, width, spatial=True)
        parts[f"down{depth}"] = build_block(
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1, bias=norm is None),
            norm,
            discriminator.activation,
            *build_dropouts(discriminator.dropout, discriminator.dropout2d),
        )
        in_channels, width = width, width * 2
    parts["flatten"] = nn.Flatten()
    parts["output"] = nn.Linear(in_channels * config.stem_size**2, 1)
    parts["squeeze"] = nn.Flatten(0)
    return nn.Sequential(parts)
