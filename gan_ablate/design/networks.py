"""What a run's networks are made of: the part of its configuration that says so."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from gan_ablate.design.validation import MAX_SIZE, Model, Probability, Size, kind_alone

NormKind = Literal["none", "batch"]
BiasRule = Literal["unnormalised", "all", "none"]
"""Which layers have a bias: those that no batch norm follows, which would cancel it (the default), all, or none."""


class ReLU(Model):
    """max(0, x)."""

    kind: Literal["relu"]


class LeakyReLU(Model):
    """x where positive, ``negative_slope`` · x elsewhere."""

    kind: Literal["leaky_relu"]
    negative_slope: Annotated[float, Field(gt=0, lt=1)] = 0.2


Activation = Annotated[ReLU | LeakyReLU, Field(discriminator="kind"), BeforeValidator(kind_alone)]


class NormalInit(Model):
    """Weights from N(0, std), batch norm scales from N(norm_mean, std) (DCGAN, arXiv:1511.06434, section 4).

    Linear weights and the biases of linear and convolutional layers may keep what PyTorch's layers start from.
    """

    kind: Literal["normal"]
    std: PositiveFloat = 0.02
    norm_mean: float = 1.0
    linear: Literal["normal", "default"] = "normal"
    bias: Literal["zero", "default"] = "zero"


class DefaultInit(Model):
    """What PyTorch's layers start from: uniform in ±1/√fan_in, batch norm scales 1 and shifts 0."""

    kind: Literal["default"]


Init = Annotated[NormalInit | DefaultInit, Field(discriminator="kind"), BeforeValidator(kind_alone)]


class MLPGenerator(Model):
    """Linear layers, the hidden ones followed by norm and activation; tanh at the end."""

    kind: Literal["mlp"]
    hidden_sizes: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)]
    norm: NormKind = "none"
    activation: Activation = ReLU(kind="relu")


class _DCGAN(Model):
    """What both networks of a DCGAN have.

    The hidden layer nearest the image has ``base_channels`` channels, each one further in twice as many, but at most
    ``max_channels``. ``smallest_size`` is the side of the smallest feature map; without it, 7 where that divides the
    image's, else 4.
    """

    kind: Literal["dcgan"]
    base_channels: Size
    max_channels: Size = MAX_SIZE
    smallest_size: Size | None = None
    norm: NormKind = "batch"
    norm_eps: PositiveFloat = 1e-5
    bias: BiasRule = "unnormalised"

    def smallest_side(self, image_size: int) -> int:
        """Side of the smallest feature map."""
        return self.smallest_size or (7 if image_size % 7 == 0 else 4)

    def num_scalings(self, image_size: int) -> int:
        """How often the size doubles between the smallest feature map and the image."""
        return (image_size // self.smallest_side(image_size)).bit_length() - 1

    def num_hidden(self, image_size: int) -> int:
        """How many hidden layers there are."""
        return self.num_scalings(image_size)

    def widths(self, image_size: int) -> list[int]:
        """Channels of every hidden layer, the one nearest the image first."""
        return [min(self.base_channels << depth, self.max_channels) for depth in range(self.num_hidden(image_size))]


class DCGANGenerator(_DCGAN):
    """A stem to the smallest feature map, layers that double its size, tanh at the end.

    ``stem`` is a linear layer, or a transposed convolution of a 1×1 map with as many weights. ``upsample`` doubles with
    4×4 stride-2 transposed convolutions, or with nearest neighbours and a 3×3 convolution. ``output`` is the last such
    layer, or a 3×3 convolution at the image's size. ``stem_norm_eps`` and ``has_stem_activation`` are what follows
    the stem.
    """

    stem: Literal["linear", "conv"] = "linear"
    stem_norm_eps: PositiveFloat = 1e-5
    has_stem_activation: bool = True
    upsample: Literal["transposed", "nearest"] = "transposed"
    output: Literal["upsample", "conv"] = "upsample"
    activation: Activation = ReLU(kind="relu")

    def num_hidden(self, image_size: int) -> int:
        """How many hidden layers there are, the stem among them."""
        return self.num_scalings(image_size) + (self.output == "conv")


class MLPDiscriminator(Model):
    """Linear layers, the hidden ones followed by norm, activation and dropout; one logit at the end."""

    kind: Literal["mlp"]
    hidden_sizes: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)]
    norm: NormKind = "none"
    activation: Activation = LeakyReLU(kind="leaky_relu")
    dropout: Probability = 0.0


class DCGANDiscriminator(_DCGAN):
    """Stride-2 convolutions that halve the size to the smallest feature map, the first without norm, then one logit.

    ``head`` makes the logit with a linear layer, or with a convolution as large as the smallest feature map.
    ``norm_position`` puts the norm before the activation, or behind activation and dropout. ``dropout`` drops single
    activations, ``dropout2d`` whole channels; both follow the activation.
    """

    kernel_size: Literal[3, 4] = 4
    head: Literal["linear", "conv"] = "linear"
    norm_position: Literal["before_activation", "last"] = "before_activation"
    activation: Activation = LeakyReLU(kind="leaky_relu")
    dropout: Probability = 0.0
    dropout2d: Probability = 0.0


Generator = Annotated[MLPGenerator | DCGANGenerator, Field(discriminator="kind"), BeforeValidator(kind_alone)]
Discriminator = Annotated[
    MLPDiscriminator | DCGANDiscriminator, Field(discriminator="kind"), BeforeValidator(kind_alone)
]
