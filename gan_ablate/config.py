"""RunConfig: everything that changes a run's answer, checked when it is written down, with its content address."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from gan_ablate.validation import Model, choices, refusal

PROTOCOL_VERSION = 3
"""Raised whenever the same RunConfig would give other numbers than before."""

DATASETS: dict[str, str] = {
    "mnist-10k": "10,000 MNIST digits, embedded in the package: needs no network (the default)",
    "mnist": "60,000 MNIST digits, through torchvision",
    "fashion-mnist": "60,000 grey pictures of garments, through torchvision",
    "cifar10": "50,000 colour pictures of ten kinds of things, through torchvision",
    "folder:PATH": "every image below PATH, resized and centre-cropped, in colour",
}

FeatureKind = Literal["digits", "fashion", "inception", "none"]
_FEATURES: dict[str, FeatureKind] = {"mnist-10k": "digits", "mnist": "digits", "fashion-mnist": "fashion"}

MAX_STEPS = 10**9
MIN_SAMPLES: dict[FeatureKind, int] = {"digits": 20 * 64, "fashion": 20 * 64, "inception": 2 * 2048, "none": 2}
"""Fewest images that are scored: a covariance needs many more than features. Inception cannot afford twenty times."""

MAX_SIZE = 65_536
Size = Annotated[int, Field(gt=0, le=MAX_SIZE)]
Probability = Annotated[float, Field(ge=0, lt=1)]
NormKind = Literal["none", "batch"]
Precision = Literal["fp32", "bf16"]
BiasRule = Literal["unnormalised", "all", "none"]
"""Which layers have a bias: those that no batch norm follows, which would cancel it (the default), all, or none."""


def _kind_alone(value: Any) -> Any:
    """Let ``"relu"`` stand for ``{kind = "relu"}``."""
    return {"kind": value} if isinstance(value, str) else value


class ReLU(Model):
    """max(0, x)."""

    kind: Literal["relu"]


class LeakyReLU(Model):
    """x where positive, ``negative_slope`` · x elsewhere."""

    kind: Literal["leaky_relu"]
    negative_slope: Annotated[float, Field(gt=0, lt=1)] = 0.2


Activation = Annotated[ReLU | LeakyReLU, Field(discriminator="kind"), BeforeValidator(_kind_alone)]


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


Init = Annotated[NormalInit | DefaultInit, Field(discriminator="kind"), BeforeValidator(_kind_alone)]


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


Generator = Annotated[MLPGenerator | DCGANGenerator, Field(discriminator="kind"), BeforeValidator(_kind_alone)]
Discriminator = Annotated[
    MLPDiscriminator | DCGANDiscriminator, Field(discriminator="kind"), BeforeValidator(_kind_alone)
]


class BCELoss(Model):
    """Binary cross-entropy on logits, the non-saturating GAN loss (arXiv:1406.2661, section 3).

    ``real_label`` and ``fake_label`` are D's targets, ``generator_label`` is G's target for its own images. D's losses
    on real and fake images are added up, or averaged.
    """

    kind: Literal["bce"]
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    fake_label: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    generator_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    discriminator_reduction: Literal["sum", "mean"] = "sum"


Loss = Annotated[BCELoss, BeforeValidator(_kind_alone)]


class Scoring(Model):
    """How a run is scored; scores compare only where all of this is equal.

    ``num_samples`` images are scored at the end, ``curve_samples`` at each of ``curve_points`` moments along training.
    """

    features: FeatureKind
    num_samples: Annotated[int, Field(ge=2, le=1_000_000)] = 10_000
    curve_samples: Annotated[int, Field(ge=2, le=1_000_000)] = 2_000
    curve_points: PositiveInt = 10


class RunConfig(Model):
    """One training run, complete: the same RunConfig gives the same bits on the same machine and library versions."""

    dataset: str = "mnist-10k"
    image_size: Annotated[int, Field(gt=0, le=1024)]
    latent_dim: Size
    generator: Generator
    discriminator: Discriminator
    init: Init
    loss: Loss
    lr_g: PositiveFloat
    lr_d: PositiveFloat
    beta1: Probability
    beta2: Probability
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    d_steps_per_g_step: Size = 1
    generator_fakes: Literal["reused", "fresh"]
    update_order: Literal["discriminator_first", "generator_first"] = "discriminator_first"
    precision: Precision = "fp32"
    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)]
    seed: Annotated[int, Field(ge=0)]
    scoring: Scoring

    @property
    def num_channels(self) -> int:
        """Colour channels of the images: 1 for the grey data sets, 3 for the others."""
        return 1 if self.dataset in _FEATURES else 3

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits that name this configuration: the run's folder."""
        content = {"protocol": PROTOCOL_VERSION, "config": self.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.dataset not in DATASETS and not self.dataset.startswith("folder:"):
            raise refusal("dataset", self.dataset, choices(self.dataset, list(DATASETS)))
        for network in (self.generator, self.discriminator):
            if network.kind == "dcgan":
                side, num = network.smallest_side(self.image_size), network.num_scalings(self.image_size)
                if num < 1 or self.image_size != side * 2**num:
                    valid = f"{side}·2^n" if network.smallest_size else "4·2^n or 7·2^n: 8, 14, 16, 28, 32, 56, 64…"
                    raise refusal("image_size", self.image_size, f"a DCGAN needs {valid}")
        features = self.scoring.features
        if features in ("digits", "fashion") and _FEATURES.get(self.dataset) != features:
            raise refusal("scoring.features", features, f"cannot judge {self.dataset}; valid: inception, none")
        for field, number in (
            ("num_samples", self.scoring.num_samples),
            ("curve_samples", self.scoring.curve_samples),
        ):
            if number < MIN_SAMPLES[features]:
                advice = f"too few for {features} features; valid: at least {MIN_SAMPLES[features]}"
                raise refusal(f"scoring.{field}", number, advice)
        return self


class RunContext(Model):
    """Where and how a run is computed: nothing in here changes its answer.

    ``folders`` says where each ``folder:NAME@HASH`` data set lies.
    """

    out: str
    data_dir: str
    device: str = "cpu"
    inception_weights: str | None = None
    folders: dict[str, str] = {}


def default_features(dataset: str) -> FeatureKind:
    """The extractor that suits a data set, without weights from elsewhere: colour images have none."""
    return _FEATURES.get(dataset, "none")


def list_fields() -> list[tuple[str, str]]:
    """List the path of every field that a level can set, with what is valid there."""
    schema = RunConfig.model_json_schema()
    fields = _fields_of(schema, schema["$defs"], "")
    return [(path, valid) for path, valid in fields if path not in ("seed", "steps")]


def _fields_of(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    fields = []
    for name, field in schema["properties"].items():
        path = f"{prefix}{name}"
        refs = [part["$ref"] for part in field.get("oneOf", field.get("allOf", [field])) if "$ref" in part]
        nested = [definitions[ref.rsplit("/", 1)[1]] for ref in refs]
        if nested and "kind" in nested[0]["properties"]:
            fields.append((path, " | ".join(part["properties"]["kind"]["const"] for part in nested)))
        for part in nested:
            fields += [(p, v) for p, v in _fields_of(part, definitions, f"{path}.") if p != f"{path}.kind"]
        if not nested:
            fields.append((path, _valid_words(field)))
    return list(dict.fromkeys(fields))


def _valid_words(field: dict[str, Any]) -> str:
    for part in field.get("anyOf", ()):
        if part.get("type") != "null":
            return _valid_words(part)
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in field
    ]
    return " ".join([str(field.get("type", "")), ", ".join(bounds)]).strip()
