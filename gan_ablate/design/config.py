"""RunConfig: everything that changes a run's answer, checked when it is written down, with its content address."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from gan_ablate.design.networks import Discriminator, Generator, Init
from gan_ablate.design.validation import Model, Probability, Size, choices, kind_alone, refusal

PROTOCOL_VERSION = 4
"""Raised whenever the same RunConfig would give other numbers than before, or a field gets another default."""

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

Precision = Literal["fp32", "bf16"]


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


Loss = Annotated[BCELoss, BeforeValidator(kind_alone)]


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
        """Twelve hexadecimal digits that name this configuration: the run's folder.

        What is at its default is left out, so a field that comes later, with today's behaviour as its default, renames
        no run.
        """
        content = {"protocol": PROTOCOL_VERSION, "config": self.model_dump(mode="json", exclude_defaults=True)}
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
