"""What a run's networks are made of: the part of its configuration that says so."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from gan_ablate.design.validation import MAX_SIZE, Model, Probability, Size, kind_alone, refusal

NormKind = Literal["none", "batch"]
OutputActivation = Literal["tanh", "sigmoid", "none"]
"""What brings G's output to [-1, 1]: tanh, a sigmoid stretched to it, or nothing; images are clipped there."""

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
    """Linear layers, the hidden ones followed by norm and activation; at the end, the output's own."""

    kind: Literal["mlp"]
    hidden_sizes: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)]
    norm: NormKind = "none"
    activation: Activation = ReLU(kind="relu")
    output_activation: OutputActivation = "tanh"


class _DCGAN(Model):
    """What both networks of a DCGAN have.

    The hidden layer nearest the image has ``base_channels`` channels, each one further in twice as many, but at most
    ``max_channels``. ``smallest_size`` is the side of the smallest feature map; without it, 7 where that divides the
    image's, else 4. ``norm_placement`` puts the norm on every layer but G's output and D's first, as the DCGAN paper
    does, or on all but D's output.
    """

    kind: Literal["dcgan"]
    base_channels: Size
    max_channels: Size = MAX_SIZE
    smallest_size: Size | None = None
    norm: NormKind = "batch"
    norm_eps: PositiveFloat = 1e-5
    norm_placement: Literal["paper", "all"] = "paper"
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
    """A stem to the smallest feature map, layers that double its size, the output's own activation at the end.

    ``stem`` is a linear layer, or a transposed convolution of a 1×1 map with as many weights. ``upsample`` doubles with
    4×4 stride-2 transposed convolutions, or with nearest neighbours or bilinear interpolation before a 3×3 convolution.
    ``output`` is the last such layer, or a 3×3 convolution at the image's size. ``stem_norm_eps`` and
    ``has_stem_activation`` are what follows the stem.
    """

    stem: Literal["linear", "conv"] = "linear"
    stem_norm_eps: PositiveFloat = 1e-5
    has_stem_activation: bool = True
    upsample: Literal["transposed", "nearest", "bilinear"] = "transposed"
    output: Literal["upsample", "conv"] = "upsample"
    activation: Activation = ReLU(kind="relu")
    output_activation: OutputActivation = "tanh"

    def num_hidden(self, image_size: int) -> int:
        """How many hidden layers there are, the stem among them."""
        return self.num_scalings(image_size) + (self.output == "conv")


class _Discriminator(Model):
    """What every discriminator has.

    ``spectral_norm`` divides each layer's weight by its largest singular value (arXiv:1802.05957, equation 8).
    ``minibatch_std`` shows the last layer how much the images of a batch differ (arXiv:1710.10196, section 3).
    """

    spectral_norm: bool = False
    minibatch_std: bool = False


class MLPDiscriminator(_Discriminator):
    """Linear layers, the hidden ones followed by norm, activation and dropout; one logit at the end."""

    kind: Literal["mlp"]
    hidden_sizes: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)]
    norm: NormKind = "none"
    activation: Activation = LeakyReLU(kind="leaky_relu")
    dropout: Probability = 0.0


class DCGANDiscriminator(_DCGAN, _Discriminator):
    """Convolutions that halve the size to the smallest feature map, the first without norm, then one logit.

    ``downsample`` halves with the stride of a convolution, or with 2×2 pooling behind a 3×3 convolution's activation.
    ``head`` makes the logit with a linear layer, with a convolution as large as the smallest feature map, or with a
    linear layer on each channel's mean.
    ``norm_position`` puts the norm before the activation, or behind activation and dropout. ``dropout`` drops single
    activations, ``dropout2d`` whole channels; both follow the activation.
    """

    kernel_size: Literal[3, 4] = 4
    downsample: Literal["strided", "max_pool", "average_pool"] = "strided"
    head: Literal["linear", "conv", "average_pool"] = "linear"
    norm_position: Literal["before_activation", "last"] = "before_activation"
    activation: Activation = LeakyReLU(kind="leaky_relu")
    dropout: Probability = 0.0
    dropout2d: Probability = 0.0

    @model_validator(mode="after")
    def _check_pooling(self) -> Self:
        if self.downsample != "strided" and self.kernel_size != 3:
            advice = "pooling follows a convolution that keeps the size; valid: 3"
            raise refusal("discriminator.kernel_size", self.kernel_size, advice)
        return self


Generator = Annotated[MLPGenerator | DCGANGenerator, Field(discriminator="kind"), BeforeValidator(kind_alone)]
Discriminator = Annotated[
    MLPDiscriminator | DCGANDiscriminator, Field(discriminator="kind"), BeforeValidator(kind_alone)
]
