"""The GAN of a run: the fields that describe its generator, discriminator, loss and penalty."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from gan_ablate.design.user_code import UserDiscriminator, UserGenerator, UserLoss, UserPenalty
from gan_ablate.design.validation import MAX_SIZE, Model, Probability, Size, kind_alone, refusal

NormKind = Literal["none", "batch", "instance", "layer", "group", "pixel"]
"""What follows a hidden layer. Batch norm (arXiv:1502.03167) takes mean and variance of each channel over the batch,
instance norm (arXiv:1607.08022) over each image. Group norm (arXiv:1803.08494) takes them over groups of an image's
channels, layer norm (arXiv:1607.06450) over all of them. Pixel norm (arXiv:1710.10196, section 4.2) divides each place
by its root mean square over the channels."""
OutputActivation = Literal["tanh", "sigmoid", "none"]
"""What brings G's output to [-1, 1]: tanh, a sigmoid stretched to it, or nothing; images are clipped there."""

CENTRED_BY_CHANNEL = ("batch", "instance")
"""Norms that subtract a mean of each channel, and with it the bias of the layer before."""

BiasRule = Literal["unnormalised", "all", "none"]
"""Which layers have a bias: those that no batch or instance norm follows, which would cancel it (the default), all, or
none."""


class ReLU(Model):
    """max(0, x)."""

    kind: Literal["relu"]


class LeakyReLU(Model):
    """x where positive, ``negative_slope`` · x elsewhere."""

    kind: Literal["leaky_relu"]
    negative_slope: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Slope below zero."""


class SELU(Model):
    """Scaled ELU, which keeps mean and variance through layers (arXiv:1706.02515, equation 2)."""

    kind: Literal["selu"]


class SiLU(Model):
    """x σ(x), or swish (arXiv:1606.08415, section 2; arXiv:1702.03118)."""

    kind: Literal["silu"]


class GELU(Model):
    """x Φ(x), with the normal distribution function (arXiv:1606.08415, equation 1)."""

    kind: Literal["gelu"]


class ELU(Model):
    """x where positive, α (exp(x) - 1) elsewhere (arXiv:1511.07289, equation 16)."""

    kind: Literal["elu"]
    alpha: PositiveFloat = 1.0
    """The paper's α."""


Activation = Annotated[
    ReLU | LeakyReLU | SELU | SiLU | GELU | ELU, Field(discriminator="kind"), BeforeValidator(kind_alone)
]


class NormalInit(Model):
    """Weights from N(0, std), scales of norms from N(norm_mean, std) (DCGAN, arXiv:1511.06434, section 4).

    Linear weights and the biases of linear and convolutional layers may keep what PyTorch's layers start from.
    """

    kind: Literal["normal"]
    std: PositiveFloat = 0.02
    """Standard deviation of the weights."""
    norm_mean: float = 1.0
    """Mean of the scales of norms."""
    linear: Literal["normal", "default"] = "normal"
    """Linear layers' weights: drawn alike, or from PyTorch's own start."""
    bias: Literal["zero", "default"] = "zero"
    """Biases of linear and convolutional layers: zero, or PyTorch's own start."""


class DefaultInit(Model):
    """What PyTorch's layers start from: uniform in ±1/√fan_in, scales of norms 1 and shifts 0."""

    kind: Literal["default"]


class GlorotInit(Model):
    """Uniform weights of variance 2 / (fan_in + fan_out) (Glorot and Bengio, AISTATS 2010, equation 16), biases zero.

    Convolutions in the branch of a residual block have twice the variance, as in the code of arXiv:1704.00028 and
    arXiv:1802.05957. Scales of norms are 1, shifts 0.
    """

    kind: Literal["glorot"]


Init = Annotated[NormalInit | DefaultInit | GlorotInit, Field(discriminator="kind"), BeforeValidator(kind_alone)]


class MLPGenerator(Model):
    """Linear layers, the hidden ones followed by norm and activation; at the end, the output's own."""

    kind: Literal["mlp"]
    hidden_sizes: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)]
    """Widths of the hidden layers, from the input on."""
    norm: NormKind = "none"
    """What follows a hidden layer: batch, layer, group or pixel norm, or nothing."""
    norm_groups: Size = 8
    """Groups of group norm; they divide every hidden layer's width."""
    activation: Activation = ReLU(kind="relu")
    """Of the hidden layers."""
    output_activation: OutputActivation = "tanh"
    """What brings images to [-1, 1]: tanh, a sigmoid stretched to it, or nothing."""


class _DCGAN(Model):
    """What both networks of a DCGAN have."""

    kind: Literal["dcgan"]
    base_channels: Size
    """Channels of the hidden layer nearest the image; each one further in has twice as many."""
    max_channels: Size = MAX_SIZE
    """The most channels that a layer has."""
    smallest_size: Size | None = None
    """Side of the smallest feature map; without it, 7 where that divides the image's, else 4."""
    norm: NormKind = "batch"
    """What follows a hidden layer: batch, instance, layer, group or pixel norm, or nothing."""
    norm_eps: PositiveFloat = 1e-5
    """What joins the norm's variance; pixel norm has its paper's 1e-8."""
    norm_groups: Size = 8
    """Groups of channels of group norm; they divide the channels of every layer with a norm."""
    norm_placement: Literal["paper", "all"] = "paper"
    """The norm on every layer but G's output and D's first (arXiv:1511.06434, section 3), or on all but D's
    output."""
    bias: BiasRule = "unnormalised"
    """Which layers have a bias: those that no batch or instance norm follows, which would cancel it, all, or none."""
    attention: Size | None = None
    """Side of the feature maps behind which self-attention stands (arXiv:1805.08318, section 3); without it, none."""

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
    """A stem to the smallest feature map, layers that double its size, the output's own activation at the end."""

    stem: Literal["linear", "conv"] = "linear"
    """From latent to smallest map: a linear layer, or a transposed convolution of a 1×1 map with as many weights."""
    stem_norm_eps: PositiveFloat = 1e-5
    """What joins the variance of the stem's norm."""
    has_stem_activation: bool = True
    """Whether an activation follows the stem."""
    upsample: Literal["transposed", "nearest", "bilinear"] = "transposed"
    """Doubles a map: a 4×4 stride-2 transposed convolution, or a 3×3 one behind nearest neighbours or bilinear
    interpolation."""
    output: Literal["upsample", "conv"] = "upsample"
    """The last layer: one more that doubles, or a 3×3 convolution at the image's size."""
    activation: Activation = ReLU(kind="relu")
    """Of the hidden layers."""
    output_activation: OutputActivation = "tanh"
    """What brings images to [-1, 1]: tanh, a sigmoid stretched to it, or nothing."""

    def num_hidden(self, image_size: int) -> int:
        """How many hidden layers there are, the stem among them."""
        return self.num_scalings(image_size) + (self.output == "conv")


class _ResNet(Model):
    """What both residual networks have: convolutions with a bias, and as many channels in every block."""

    kind: Literal["resnet"]
    base_channels: Size
    """Channels of every block."""
    norm: NormKind = "none"
    """What precedes every activation: batch, instance, layer, group or pixel norm, or nothing."""
    norm_groups: Size = 8
    """Groups of channels of group norm; they divide ``base_channels``."""
    activation: Activation = ReLU(kind="relu")
    """Of every block, before its convolutions."""
    smallest_size: Size
    """Side of the smallest feature map."""

    def num_scalings(self, image_size: int) -> int:
        """How often the size doubles between the smallest feature map and the image."""
        return (image_size // self.smallest_size).bit_length() - 1


class ResNetGenerator(_ResNet):
    """A linear layer to the smallest map, blocks that double it, and a 3×3 convolution (arXiv:1802.05957, table 4)."""

    norm: NormKind = "batch"
    """What precedes every activation: batch, instance, layer, group or pixel norm, or nothing."""
    smallest_size: Size = 4
    """Side of the smallest feature map."""
    output_activation: OutputActivation = "tanh"
    """What brings images to [-1, 1]: tanh, a sigmoid stretched to it, or nothing."""


class _Discriminator(Model):
    """What every discriminator has."""

    spectral_norm: bool = False
    """Divides each layer's weight by its largest singular value (arXiv:1802.05957, equation 8)."""
    minibatch_std: bool = False
    """Shows how much the images of a batch differ to one more layer, before the last one (arXiv:1710.10196, section 3
    and table 2). The authors' code looks at groups of four images."""
    minibatch_std_group: Size | None = None
    """Images that ``minibatch_std`` looks at together, 4 in StyleGAN2 (arXiv:1912.04958); without it, the batch."""


class MLPDiscriminator(_Discriminator):
    """Linear layers, the hidden ones followed by norm, activation and dropout; one logit at the end."""

    kind: Literal["mlp"]
    hidden_sizes: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)]
    """Widths of the hidden layers, from the input on."""
    norm: NormKind = "none"
    """What follows a hidden layer: batch, layer, group or pixel norm, or nothing."""
    norm_groups: Size = 8
    """Groups of group norm; they divide every hidden layer's width."""
    activation: Activation = LeakyReLU(kind="leaky_relu")
    """Of the hidden layers."""
    dropout: Probability = 0.0
    """Rate at which single activations are dropped, behind the activation."""


class DCGANDiscriminator(_DCGAN, _Discriminator):
    """Convolutions that halve the size to the smallest feature map, then one logit."""

    kernel_size: Literal[3, 4] = 4
    """Side of the convolutions."""
    downsample: Literal["strided", "max_pool", "average_pool"] = "strided"
    """Halves a map: the convolution's stride, or 2×2 pooling behind a 3×3 convolution's activation."""
    head: Literal["linear", "conv", "average_pool"] = "linear"
    """From smallest map to logit: a linear layer, a convolution as large as the map, or a linear layer on each
    channel's mean."""
    norm_position: Literal["before_activation", "last"] = "before_activation"
    """The norm before the activation, or behind activation and dropout."""
    activation: Activation = LeakyReLU(kind="leaky_relu")
    """Of the hidden layers."""
    dropout: Probability = 0.0
    """Rate at which single activations are dropped, behind the activation."""
    dropout2d: Probability = 0.0
    """Rate at which whole channels are dropped, behind the activation."""

    @model_validator(mode="after")
    def _check_pooling(self) -> Self:
        if self.downsample != "strided" and self.kernel_size != 3:
            advice = "pooling follows a convolution that keeps the size; valid: 3"
            raise refusal("discriminator.kernel_size", self.kernel_size, advice)
        return self


class ResNetDiscriminator(_ResNet, _Discriminator):
    """Blocks that halve the image, blocks that keep its size, and a linear layer (arXiv:1802.05957, table 4).

    ``minibatch_std`` has no place in it.
    """

    smallest_size: Size = 8
    """Side of the smallest feature map."""
    num_plain_blocks: Annotated[int, Field(ge=0, le=100)] = 2
    """Blocks that keep the size, behind those that halve it."""
    pool: Literal["sum", "mean"] = "sum"
    """What the linear layer sees of the last map: each channel's sum (SNGAN), or its mean (WGAN-GP)."""

    @model_validator(mode="after")
    def _check_minibatch_std(self) -> Self:
        if self.minibatch_std:
            raise refusal("discriminator.minibatch_std", True, "a residual D has none; valid: false")
        return self


ShippedNetwork = (
    MLPGenerator | DCGANGenerator | ResNetGenerator | MLPDiscriminator | DCGANDiscriminator | ResNetDiscriminator
)
Generator = Annotated[
    MLPGenerator | DCGANGenerator | ResNetGenerator | UserGenerator,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]
Discriminator = Annotated[
    MLPDiscriminator | DCGANDiscriminator | ResNetDiscriminator | UserDiscriminator,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]


class BCELoss(Model):
    """Binary cross-entropy on logits, the non-saturating GAN loss (arXiv:1406.2661, section 3)."""

    kind: Literal["bce"]
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    """D's target for real images; 0.9 is one-sided label smoothing (arXiv:1606.03498, section 3.4)."""
    fake_label: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """D's target for fake images."""
    generator_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    """G's target for its own images."""
    discriminator_reduction: Literal["sum", "mean"] = "sum"
    """Whether D's losses on real and on fake images are added up or averaged."""
    computed_from: Literal["logits", "probabilities"] = "logits"
    """BCE on logits, or PyTorch's BCELoss of a sigmoid: in float32 an image costs at most 100, and its gradient is
    zero at logits above 17 and fades below -28."""


class LeastSquaresLoss(Model):
    """Squared distance of D's output from its targets (LSGAN, arXiv:1611.04076, equation 2)."""

    kind: Literal["least_squares"]
    real_label: float = 1.0
    """The paper's b: D's target for real images."""
    fake_label: float = 0.0
    """The paper's a: D's target for fake images."""
    generator_label: float = 1.0
    """The paper's c: G's target for its own images."""


class HingeLoss(Model):
    """D's output above 1 on real images and below -1 on fake ones costs nothing (arXiv:1705.02894, section 4)."""

    kind: Literal["hinge"]


class WassersteinLoss(Model):
    """Difference of D's mean outputs (WGAN, arXiv:1701.07875, equations 2 and 3)."""

    kind: Literal["wasserstein"]
    weight_clip: PositiveFloat | None = None
    """Keeps every weight of D in ± this after each of its steps (arXiv:1701.07875, algorithm 1: 0.01). The authors'
    code clips before each step, so that G meets a D whose last step is not clipped. Without clipping, a gradient
    penalty or spectral norm has to keep D from growing without bound."""


class RelativisticLoss(Model):
    """Each fake is judged beside a real image (RpGAN in R3GAN, arXiv:2501.05441, equation 2), f the logistic loss.

    G compares with real images of the D step beside it; the authors' code gives G a batch of its own.
    """

    kind: Literal["relativistic"]


Loss = Annotated[
    BCELoss | LeastSquaresLoss | HingeLoss | WassersteinLoss | RelativisticLoss | UserLoss,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]


class NoPenalty(Model):
    """Nothing is added to D's loss."""

    kind: Literal["none"]


class GradientPenalty(Model):
    """Squared distance of D's gradient norm from a target, between real and fake images (WGAN-GP, arXiv:1704.00028)."""

    kind: Literal["gradient"]
    weight: PositiveFloat = 10.0
    """The paper's λ."""
    target: Annotated[float, Field(ge=0)] = 1.0
    """Of the norm: 1 in the paper."""


class R1Penalty(Model):
    """γ / 2 times the squared norm of D's gradient at real images (arXiv:1801.04406, equation 9)."""

    kind: Literal["r1"]
    gamma: PositiveFloat = 10.0
    """The paper's γ, which is twice the ``reg_param`` of its authors' code: theirs leaves out the ½."""
    every: Size = 1
    """D steps from one penalty to the next, which weighs as many times as much (arXiv:1912.04958, appendix B)."""


class R1R2Penalty(Model):
    """The same at real and at fake images (arXiv:1801.04406, equations 9 and 10; both in R3GAN, arXiv:2501.05441)."""

    kind: Literal["r1_r2"]
    gamma: PositiveFloat = 10.0
    """The papers' γ, and that of R3GAN's code; twice the ``reg_param`` of the code of arXiv:1801.04406."""
    every: Size = 1
    """D steps from one penalty to the next, which weighs as many times as much (arXiv:1912.04958, appendix B)."""


Penalty = Annotated[
    NoPenalty | GradientPenalty | R1Penalty | R1R2Penalty | UserPenalty,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]
