"""Layers in words: what each layer of a run's networks does, and the size of what it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.gan import Activation, NormKind


class LayerHelp(NamedTuple):
    """A layer of a network in words, and the size of what it gives: ``64×7×7`` or ``256``."""

    size: str
    what: str


def list_layers(config: RunConfig) -> tuple[list[LayerHelp], list[LayerHelp]]:
    """List the layers of both networks; user code is one line."""
    image = f"{config.num_channels}×{config.image_size}×{config.image_size}"
    return _layers_of_generator(config, image), _layers_of_discriminator(config, image)


def _layers_of_generator(config: RunConfig, image: str) -> list[LayerHelp]:
    part, given = config.generator, LayerHelp(str(config.num_inputs_g), "the latent")
    if part.kind == "module":
        return [given, LayerHelp(image, f"user code, {part.path}")]
    norm, activation = _norm_words(part.norm), _activation_words(part.activation)
    end = {"tanh": ", tanh", "sigmoid": ", sigmoid stretched to [-1, 1]", "none": ""}[part.output_activation]
    if part.kind == "mlp":
        hidden = [LayerHelp(str(size), f"linear{norm}{activation}") for size in part.hidden_sizes]
        return [given, *hidden, LayerHelp(image, f"linear{end}")]
    if part.kind == "resnet":
        width, side = part.base_channels, part.smallest_size
        what = f"residual block, nearest neighbours ×2{norm}{activation}"
        blocks = [
            LayerHelp(
                f"{width}×{side << depth}×{side << depth}", f"residual block, nearest neighbours ×2{norm}{activation}"
            )
            for depth in range(1, part.num_scalings(config.image_size) + 1)
        ]
        output = f"{norm}{activation}, convolution 3×3{end}".removeprefix(", ")
        return [given, LayerHelp(f"{width}×{side}×{side}", "linear"), *blocks, LayerHelp(image, output)]
    widths, side = part.widths(config.image_size)[::-1], part.smallest_side(config.image_size)
    stem = "linear" if part.stem == "linear" else f"transposed convolution {side}×{side}"
    up = "transposed convolution 4×4, stride 2"
    if part.upsample != "transposed":
        up = f"{'nearest neighbours' if part.upsample == 'nearest' else 'bilinear'} ×2, convolution 3×3"
    first = f"{stem}{norm}{activation if part.has_stem_activation else ''}"
    hidden = [LayerHelp(f"{widths[0]}×{side}×{side}", first + _attention_words(part.attention, side))]
    for depth, width in enumerate(widths[1:], 1):
        at = side << depth
        what = f"{up}{norm}{activation}{_attention_words(part.attention, at)}"
        hidden.append(LayerHelp(f"{width}×{at}×{at}", what))
    last = up if part.output == "upsample" else "convolution 3×3"
    return [given, *hidden, LayerHelp(image, f"{last}{norm if part.norm_placement == 'all' else ''}{end}")]


def _layers_of_discriminator(config: RunConfig, image: str) -> list[LayerHelp]:
    part, given = config.discriminator, LayerHelp(image, "the image")
    logits = str(config.num_outputs_d)
    if part.kind == "module":
        return [given, LayerHelp(logits, f"user code, {part.path}")]
    norm, behind = _norm_words(part.norm), _activation_words(part.activation)
    if part.kind == "resnet":
        sides = [config.image_size >> depth for depth in range(1, part.num_scalings(config.image_size) + 1)]
        width, what = part.base_channels, f"residual block{norm}{behind}"
        blocks = [LayerHelp(f"{width}×{side}×{side}", f"{what}, halved by averages") for side in sides]
        blocks += [LayerHelp(f"{width}×{sides[-1]}×{sides[-1]}", what)] * part.num_plain_blocks
        return [given, *blocks, LayerHelp(logits, f"{behind.removeprefix(', ')}, {part.pool} of each channel, linear")]
    dropout = f", dropout {part.dropout:g}" if part.dropout else ""
    last = [LayerHelp(logits, "linear")]
    if part.kind == "mlp":
        hidden = [LayerHelp(str(size), f"linear{norm}{behind}{dropout}") for size in part.hidden_sizes]
    else:
        side = config.image_size
        kernel = f"convolution {part.kernel_size}×{part.kernel_size}"
        pool = "" if part.downsample == "strided" else f", {part.downsample.replace('_', ' ')} 2×2"
        channels = f", dropout of channels {part.dropout2d:g}" if part.dropout2d else ""
        hidden = []
        for depth, width in enumerate(part.widths(config.image_size), 1):
            has_norm = norm if depth > 1 or part.norm_placement == "all" else ""
            rest = f"{behind}{pool}{dropout}{channels}"
            rest = f"{has_norm}{rest}" if part.norm_position == "before_activation" else f"{rest}{has_norm}"
            what = f"{kernel}{'' if pool else ', stride 2'}{rest}{_attention_words(part.attention, side >> depth)}"
            hidden.append(LayerHelp(f"{width}×{side >> depth}×{side >> depth}", what))
        side = part.smallest_side(config.image_size)
        heads = {
            "linear": "linear",
            "conv": f"convolution {side}×{side}",
            "average_pool": "mean of each channel, linear",
        }
        last = [LayerHelp(logits, heads[part.head])]
    if part.minibatch_std:
        group = f" of {part.minibatch_std_group} images" if part.minibatch_std_group else ""
        last.insert(0, LayerHelp(hidden[-1].size, f"minibatch standard deviation{group}, one more layer{behind}"))
    return [given, *hidden, *last]


def _attention_words(attention: int | None, side: int) -> str:
    return ", self-attention" if attention == side else ""


def _norm_words(norm: NormKind) -> str:
    return "" if norm == "none" else f", {norm} norm"


_ACTIVATIONS = {"relu": "ReLU", "silu": "SiLU", "selu": "SELU", "gelu": "GELU"}


def _activation_words(activation: Activation) -> str:
    match activation.kind:
        case "leaky_relu":
            return f", LeakyReLU {activation.negative_slope:g}"
        case "elu":
            return f", ELU {activation.alpha:g}"
        case other:
            return f", {_ACTIVATIONS.get(other, other)}"
