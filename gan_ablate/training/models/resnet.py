"""Residual networks for small images: those of SNGAN (arXiv:1802.05957, table 4) and WGAN-GP (arXiv:1704.00028)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, assert_never

from torch import Tensor, nn

from gan_ablate.training.models.convolutions import Conv2d
from gan_ablate.training.models.layers import (
    ChannelsLast,
    SumPool,
    build_activation,
    build_norm,
    build_output_activation,
)

if TYPE_CHECKING:
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.gan import ResNetDiscriminator, ResNetGenerator


def build_resnet_generator(config: RunConfig, generator: ResNetGenerator) -> nn.Sequential:
    """Build (B, num_inputs_g) → (B, C, S, S) in [-1, 1]."""
    width, side = generator.base_channels, generator.smallest_size
    stem = OrderedDict[str, nn.Module](
        linear=nn.Linear(config.num_inputs_g, width * side**2),
        unflatten=nn.Unflatten(1, (width, side, side)),
        layout=ChannelsLast(),
    )
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    for depth in range(1, generator.num_scalings(config.image_size) + 1):
        parts[f"up{depth}"] = ResidualBlock(width, width, generator, scaling="up")
    norm = build_norm(generator.norm, width, groups=generator.norm_groups, spatial=True)
    if norm is not None:
        parts["output_norm"] = norm
    parts["output_activation"] = build_activation(generator.activation, in_place=norm is not None)
    parts["output"] = Conv2d(width, config.num_channels, 3, padding=1)
    parts.update(build_output_activation(generator.output_activation))
    return nn.Sequential(parts)


def build_resnet_discriminator(config: RunConfig, discriminator: ResNetDiscriminator) -> nn.Sequential:
    """Build (B, C, S, S) → (B, num_outputs_d) logits, or (B,) where there is one."""
    width = discriminator.base_channels
    parts: OrderedDict[str, nn.Module] = OrderedDict(layout=ChannelsLast())
    parts["down1"] = ResidualBlock(config.num_channels, width, discriminator, scaling="down", is_first=True)
    for depth in range(2, discriminator.num_scalings(config.image_size) + 1):
        parts[f"down{depth}"] = ResidualBlock(width, width, discriminator, scaling="down")
    for depth in range(1, discriminator.num_plain_blocks + 1):
        parts[f"block{depth}"] = ResidualBlock(width, width, discriminator, scaling="none")
    parts["output_activation"] = build_activation(discriminator.activation, in_place=False)
    match discriminator.pool:
        case "sum":
            parts["pool"] = SumPool()
        case "mean":
            parts["pool"] = nn.AdaptiveAvgPool2d(1)
        case _:
            assert_never(discriminator.pool)
    parts["flatten"] = nn.Flatten()
    parts["output"] = nn.Linear(width, config.num_outputs_d)
    if config.num_outputs_d == 1:
        parts["squeeze"] = nn.Flatten(0)
    return nn.Sequential(parts)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each behind norm and activation, added to a shortcut (arXiv:1603.05027, figure 4e).

    The first convolution sees a doubled map, or the second one's map is halved. A shortcut that changes the map's size
    or its channels has a 1×1 convolution. D's first block begins with a convolution, as in SNGAN's code: an activation
    of the image would lose its dark half.

    Args:
        in_channels: of the map.
        out_channels: of both convolutions.
        network: has the norm and the activation.
        scaling: whether the map is doubled by nearest neighbours, halved by averages, or stays.
        is_first: whether it sees the image.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        network: ResNetGenerator | ResNetDiscriminator,
        *,
        scaling: str,
        is_first: bool = False,
    ) -> None:
        super().__init__()
        residual: OrderedDict[str, nn.Module] = OrderedDict()
        for number, width in enumerate((in_channels, out_channels), 1):
            if number == 2 or not is_first:
                norm = build_norm(network.norm, width, groups=network.norm_groups, spatial=True)
                if norm is not None:
                    residual[f"norm{number}"] = norm
                residual[f"activation{number}"] = build_activation(network.activation, in_place=norm is not None)
            if number == 1 and scaling == "up":
                residual["upsample"] = nn.Upsample(scale_factor=2)
            residual[f"conv{number}"] = Conv2d(width, out_channels, 3, padding=1)
        shortcut: OrderedDict[str, nn.Module] = OrderedDict()
        if scaling != "none" or in_channels != out_channels:
            shortcut["conv"] = Conv2d(in_channels, out_channels, 1)
        match scaling:
            case "up":
                shortcut["upsample"] = nn.Upsample(scale_factor=2)  # the same behind a 1×1 convolution, and cheaper
            case "down":
                residual["pool"] = nn.AvgPool2d(2)
                # Averages and a 1×1 convolution change places: the cheaper first.
                shortcut["pool"] = nn.AvgPool2d(2)
                shortcut.move_to_end("pool", last=False)
            case _:
                pass
        self.residual, self.shortcut = nn.Sequential(residual), nn.Sequential(shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H', W')."""
        y: Tensor = self.residual(x) + self.shortcut(x)
        return y
