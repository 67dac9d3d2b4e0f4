"""The architectures: the convolutional GAN (arXiv:1511.06434) and the fully connected GAN (arXiv:1406.2661)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, assert_never

from torch import nn

from gan_ablate.design.gan import CENTRED_BY_CHANNEL
from gan_ablate.training.models.convolutions import (
    BilinearUpsampleConv2d,
    Conv2d,
    ConvTranspose2d,
    GreyConv2d,
    GreyConvTranspose2d,
    NearestUpsampleConv2d,
)
from gan_ablate.training.models.layers import (
    ChannelsLast,
    FlattenLinear,
    SelfAttention,
    build_block,
    build_dropouts,
    build_minibatch_std,
    build_norm,
    build_output_activation,
)

if TYPE_CHECKING:
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.gan import (
        BiasRule,
        DCGANDiscriminator,
        DCGANGenerator,
        MLPDiscriminator,
        MLPGenerator,
        NormKind,
    )


def build_dcgan_generator(config: RunConfig, generator: DCGANGenerator) -> nn.Sequential:
    """Build (B, latent_dim) → (B, C, S, S) in [-1, 1]."""
    widths, side = generator.widths(config.image_size)[::-1], generator.smallest_side(config.image_size)
    has_bias = _has_bias(generator.bias, generator.norm)
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=build_block(
            _build_stem(generator, config.num_inputs_g, widths[0], side, has_bias),
            build_norm(generator.norm, widths[0], generator.stem_norm_eps, groups=generator.norm_groups, spatial=True),
            generator.activation if generator.has_stem_activation else None,
        )
    )
    if generator.attention == side:
        parts["attention0"] = SelfAttention(widths[0])
    for depth in range(1, len(widths)):
        parts[f"up{depth}"] = build_block(
            _build_upsampling(generator, widths[depth - 1], widths[depth], has_bias),
            build_norm(generator.norm, widths[depth], generator.norm_eps, groups=generator.norm_groups, spatial=True),
            generator.activation,
        )
        if generator.attention == side << depth:
            parts[f"attention{depth}"] = SelfAttention(widths[depth])
    norm = generator.norm if generator.norm_placement == "all" else "none"
    has_bias = _has_bias(generator.bias, norm)
    match generator.output:
        case "upsample":
            parts["output"] = _build_upsampling(generator, widths[-1], config.num_channels, has_bias)
        case "conv":
            parts["output"] = Conv2d(widths[-1], config.num_channels, 3, padding=1, bias=has_bias)
        case _:
            assert_never(generator.output)
    last_norm = build_norm(norm, config.num_channels, generator.norm_eps, groups=generator.norm_groups, spatial=True)
    if last_norm is not None:
        parts["output_norm"] = last_norm
    parts.update(build_output_activation(generator.output_activation))
    return nn.Sequential(parts)


def build_dcgan_discriminator(config: RunConfig, discriminator: DCGANDiscriminator) -> nn.Sequential:
    """Build (B, C, S, S) → (B, num_outputs_d) logits, or (B,) where there is one."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(layout=ChannelsLast())
    in_channels = config.num_channels
    for depth, width in enumerate(discriminator.widths(config.image_size), 1):
        norm = discriminator.norm if depth > 1 or discriminator.norm_placement == "all" else "none"
        # Behind an activation, batch norm cancels no bias.
        has_bias = _has_bias(discriminator.bias, "none" if discriminator.norm_position == "last" else norm)
        parts[f"down{depth}"] = build_block(
            _build_downsampling(discriminator, in_channels, width, has_bias),
            build_norm(norm, width, discriminator.norm_eps, groups=discriminator.norm_groups, spatial=True),
            discriminator.activation,
            *_build_pooling(discriminator),
            *build_dropouts(discriminator.dropout, discriminator.dropout2d),
            is_norm_last=discriminator.norm_position == "last",
        )
        in_channels = width
        if discriminator.attention == config.image_size >> depth:
            parts[f"attention{depth}"] = SelfAttention(width)
    has_bias = _has_bias(discriminator.bias, "none")
    if discriminator.minibatch_std:
        layer = Conv2d(in_channels + 1, in_channels, 3, padding=1, bias=has_bias)
        parts["minibatch_std"] = build_minibatch_std(layer, discriminator.activation, discriminator.minibatch_std_group)
    side, num_outputs = discriminator.smallest_side(config.image_size), config.num_outputs_d
    match discriminator.head:
        case "linear":
            parts["output"] = FlattenLinear(in_channels * side**2, num_outputs, bias=has_bias)
        case "conv":
            parts["output"] = Conv2d(in_channels, num_outputs, side, bias=has_bias)
        case "average_pool":
            parts["pool"] = nn.AdaptiveAvgPool2d(1)
            parts["output"] = FlattenLinear(in_channels, num_outputs, bias=has_bias)
        case _:
            assert_never(discriminator.head)
    # One logit an image is (B,); those of conditional images stay (B, 1 + num_classes), behind a convolution too.
    parts["squeeze"] = nn.Flatten(0 if num_outputs == 1 else 1)
    return nn.Sequential(parts)


def _build_stem(generator: DCGANGenerator, latent_dim: int, width: int, side: int, has_bias: bool) -> nn.Sequential:
    match generator.stem:
        case "linear":
            parts = OrderedDict(
                linear=nn.Linear(latent_dim, width * side**2, bias=has_bias),
                unflatten=nn.Unflatten(1, (width, side, side)),
            )
        case "conv":
            parts = OrderedDict(
                unflatten=nn.Unflatten(1, (latent_dim, 1, 1)),
                conv=ConvTranspose2d(latent_dim, width, side, bias=has_bias),
            )
        case _:
            assert_never(generator.stem)
    parts["layout"] = ChannelsLast()
    return nn.Sequential(parts)


def _build_upsampling(generator: DCGANGenerator, in_channels: int, out_channels: int, has_bias: bool) -> nn.Module:
    match generator.upsample:
        case "transposed":
            if out_channels == 1:
                return GreyConvTranspose2d(in_channels, bias=has_bias)
            return ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=has_bias)
        case "nearest":
            return NearestUpsampleConv2d(in_channels, out_channels, bias=has_bias)
        case "bilinear":
            return BilinearUpsampleConv2d(in_channels, out_channels, bias=has_bias)
        case _:
            assert_never(generator.upsample)


def _build_downsampling(
    discriminator: DCGANDiscriminator, in_channels: int, out_channels: int, has_bias: bool
) -> nn.Module:
    kernel = discriminator.kernel_size
    if discriminator.downsample != "strided":
        return Conv2d(in_channels, out_channels, 3, padding=1, bias=has_bias)
    if in_channels == 1:
        return GreyConv2d(out_channels, kernel, bias=has_bias)
    return Conv2d(in_channels, out_channels, kernel, stride=2, padding=1, bias=has_bias)


def _build_pooling(discriminator: DCGANDiscriminator) -> list[nn.Module]:
    match discriminator.downsample:
        case "strided":
            return []
        case "max_pool":
            return [nn.MaxPool2d(2)]
        case "average_pool":
            return [nn.AvgPool2d(2)]
        case _:
            assert_never(discriminator.downsample)


def _has_bias(rule: BiasRule, norm: NormKind) -> bool:
    """Whether a layer has a bias that a norm follows."""
    return rule == "all" or (rule == "unnormalised" and norm not in CENTRED_BY_CHANNEL)


def build_mlp_generator(config: RunConfig, generator: MLPGenerator) -> nn.Sequential:
    """Build (B, latent_dim) → (B, C, S, S) in [-1, 1]."""
    shape = (config.num_channels, config.image_size, config.image_size)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    width = config.num_inputs_g
    for depth, size in enumerate(generator.hidden_sizes, 1):
        layer = nn.Linear(width, size, bias=generator.norm not in CENTRED_BY_CHANNEL)
        norm = build_norm(generator.norm, size, groups=generator.norm_groups, spatial=False)
        parts[f"hidden{depth}"] = build_block(layer, norm, generator.activation)
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
        norm = build_norm(discriminator.norm, size, groups=discriminator.norm_groups, spatial=False)
        parts[f"hidden{depth}"] = build_block(
            nn.Linear(width, size, bias=discriminator.norm not in CENTRED_BY_CHANNEL),
            norm,
            discriminator.activation,
            *build_dropouts(discriminator.dropout),
        )
        width = size
    if discriminator.minibatch_std:
        parts["minibatch_std"] = build_minibatch_std(
            nn.Linear(width + 1, width), discriminator.activation, discriminator.minibatch_std_group
        )
    parts["output"] = nn.Linear(width, config.num_outputs_d)
    if config.num_outputs_d == 1:
        parts["squeeze"] = nn.Flatten(0)
    return nn.Sequential(parts)
