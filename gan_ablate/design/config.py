"""RunConfig: everything that changes a run's answer, checked when it is written down, with its content address."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gan_ablate.design.combinations import check_combinations
from gan_ablate.design.datasets import FeatureKind, default_features
from gan_ablate.design.networks import Discriminator, Generator, Init
from gan_ablate.design.objective import Loss, NoPenalty, Penalty
from gan_ablate.design.validation import Model, Probability, Size

PROTOCOL_VERSION = 4
"""Raised whenever the same RunConfig would give other numbers than before, or a field gets another default."""

MAX_STEPS = 10**9
MAX_CLASSES = 1_000

Precision = Literal["fp32", "bf16"]
LatentDistribution = Literal["normal", "uniform"]
Augmentation = Literal["colour", "translation", "cutout"]


class Scoring(Model):
    """How a run is scored; scores compare only where all of this is equal.

    ``num_samples`` images are scored at the end, ``curve_samples`` at each of ``curve_points`` moments along training.
    """

    features: FeatureKind
    num_samples: Annotated[int, Field(ge=2, le=1_000_000)] = 10_000
    curve_samples: Annotated[int, Field(ge=2, le=1_000_000)] = 2_000
    curve_points: PositiveInt = 10


class RunConfig(Model):
    """One training run, complete: the same RunConfig gives the same bits on the same machine and library versions.

    Attributes:
        dataset: one of ``DATASETS``.
        image_size: side of the training images, in pixels.
        latent_dim: how many numbers an image is drawn from.
        latent_distribution: of each: N(0, 1), or uniform in [-1, 1].
        conditional: G and D are told which class an image is of, or is to be of.
        num_classes: how many there are; planning takes it from the data set.
        generator: latents in, images out.
        discriminator: images in, logits out.
        init: the distribution of the initial weights.
        loss: adversarial, of D and of G.
        penalty: added to D's loss.
        mode_seeking_weight: of the term that pushes images of different latents apart (arXiv:1903.05628, equation 5),
            added to G's loss.
        augmentation: what DiffAugment does to whatever D sees (arXiv:2006.10738, section 3).
        ema_decay: of an exponential moving average of G's weights a G step, scored beside them; 0: none is kept.
        lr_g: G's learning rate.
        lr_d: D's learning rate.
        beta1: Adam's decay of the mean gradient.
        beta2: Adam's decay of the mean square.
        batch_size: images a step, real ones and fakes each.
        d_steps_per_g_step: D steps before each G step.
        g_steps_per_d_step: G steps for each D step, where D is to learn less than G.
        generator_fakes: whether G learns from the fakes that D has just seen, or from fresh ones.
        update_order: which network goes first.
        precision: of layers; weights, losses and updates are in float32.
        steps: G steps.
        seed: of every random stream.
        scoring: how the run is judged.
        sheet_every: G steps between two sample sheets, beside those at the points of FID along training.
    """

    dataset: str = "mnist-10k"
    image_size: Annotated[int, Field(gt=0, le=1024)]
    latent_dim: Size
    latent_distribution: LatentDistribution = "normal"
    conditional: bool = False
    num_classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)] | None = None
    generator: Generator
    discriminator: Discriminator
    init: Init
    loss: Loss
    penalty: Penalty = NoPenalty(kind="none")
    mode_seeking_weight: Annotated[float, Field(ge=0)] = 0.0
    augmentation: Annotated[tuple[Augmentation, ...], Field(strict=False)] = ()
    ema_decay: Probability = 0.0
    lr_g: PositiveFloat
    lr_d: PositiveFloat
    beta1: Probability
    beta2: Probability
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    d_steps_per_g_step: Size = 1
    g_steps_per_d_step: Size = 1
    generator_fakes: Literal["reused", "fresh"]
    update_order: Literal["discriminator_first", "generator_first"] = "discriminator_first"
    precision: Precision = "fp32"
    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)]
    seed: Annotated[int, Field(ge=0)]
    scoring: Scoring
    sheet_every: Size | None = None

    @property
    def num_channels(self) -> int:
        """Colour channels of the images: 1 for the grey data sets, 3 for the others."""
        return 1 if default_features(self.dataset) != "none" else 3

    @property
    def num_inputs_g(self) -> int:
        """What G draws an image from: its latent, and where it is conditional a one-hot class behind it."""
        return self.latent_dim + (self.num_classes or 0)

    @property
    def num_outputs_d(self) -> int:
        """Logits an image: one, and where D is conditional one more for each class."""
        return 1 + (self.num_classes or 0)

    @property
    def curve_steps(self) -> set[int]:
        """The steps after which FID along training is taken."""
        points = self.scoring.curve_points
        return {round(self.steps * point / points) for point in range(1, points + 1)}

    @property
    def sheet_steps(self) -> set[int]:
        """The steps after which a sample sheet is drawn, those of FID along training among them."""
        return self.curve_steps | set(range(0, self.steps + 1, self.sheet_every or self.steps))

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
        check_combinations(self)
        return self


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
