"""RunFields: every field of a training run, each checked by itself, and the content hash that is the run's id."""

from __future__ import annotations

import functools
import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import Discriminator as ByKind
from pydantic import Field, PositiveFloat, Tag

from gan_ablate.design.datasets import FeatureKind, Fit, count_channels, folder_revisions
from gan_ablate.design.gan import Discriminator, Generator, Init, Loss, NoPenalty, Penalty
from gan_ablate.design.optimizers import Adam, ConstantRate, Optimizer, Schedule
from gan_ablate.design.user_code import PARTS, ModuleExtractor, ScriptExtractor, UserPart
from gan_ablate.design.validation import Model, Probability, Size

if TYPE_CHECKING:
    from collections.abc import Mapping


PROTOCOL_VERSION = 5
"""Raised when the results of all configurations change, or the default of a field.

Where the results of some change, ``HashedConfig.revisions`` gives those new ids.
"""


class HashedConfig(Model):
    """A run's configuration: it has a seed, and a run id that is a hash of its content."""

    if TYPE_CHECKING:
        seed: int

    unnamed_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not change the results and are not part of the run id."""

    @property
    def revisions(self) -> tuple[str, ...]:
        """Corrections that changed the results of such runs, and so their ids; other runs keep their ids."""
        return ()

    @functools.cached_property
    def run_id(self) -> str:
        """The run's id and folder: twelve hexadecimal digits of a hash of its content.

        Fields at their defaults are left out, so a new field with today's behaviour as its default renames no run.
        """
        return self.run_id_of(self.seed)

    @property
    def known_run_ids(self) -> frozenset[str]:
        """The run id, and the ids that the run had before each of its ``revisions``."""
        known = [self._write_hash_parts(self.revisions[:num]) for num in range(len(self.revisions) + 1)]
        return frozenset(_shorten_digest(str(self.seed).join(parts)) for parts in known)

    def run_id_of(self, seed: int) -> str:
        """Return the id of the same run with another seed, without building its configuration.

        A plan may have a million runs.
        """
        return _shorten_digest(str(seed).join(self._hash_parts))

    def with_seed(self, seed: int) -> Self:
        """Return the same run with another seed."""
        other = self.model_copy(update={"seed": seed})
        other.__dict__["_hash_parts"] = self._hash_parts
        return other

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy as pydantic does, without the cached ids."""
        other = super().model_copy(update=update, deep=deep)
        for name in ("run_id", "_hash_parts"):
            other.__dict__.pop(name, None)
        return other

    @functools.cached_property
    def _hash_parts(self) -> tuple[str, str]:
        """The text of the content that is hashed, before and after the seed."""
        return self._write_hash_parts(self.revisions)

    def _write_hash_parts(self, revisions: tuple[str, ...]) -> tuple[str, str]:
        config = self.model_dump(mode="json", exclude_defaults=True, exclude=set(self.unnamed_fields))
        placeholder = uuid.uuid4().hex  # random, so that no other value contains it
        content = {"config": config | {"seed": placeholder}, "protocol": PROTOCOL_VERSION}
        if revisions:
            content["revisions"] = revisions
        before, after = json.dumps(content, sort_keys=True).split(f'"{placeholder}"')
        return before, after


def _shorten_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


MAX_STEPS = 10**9
MAX_CLASSES = 1_000
MAX_POINTS = 10_000
"""The most points of FID over training, and sample grids: each is a file or a set of scored images."""
OSCILLATION_POINTS = 26
"""Points in the last half of training at which FID's oscillation is measured; see ``analysis.table.oscillation``.

They do not change a run, and are no part of its id.
"""
MIN_OSCILLATION_GAP = 10
"""The fewest steps between two of them."""
MAX_SEED = 2**63 - 1
"""The largest seed that tables hold as a number."""

Precision = Literal["fp32", "tf32", "bf16"]
LatentDistribution = Literal["normal", "uniform"]
Augmentation = Literal["colour", "translation", "cutout"]


def _kind_of_features(features: Any) -> str | None:
    if isinstance(features, str):
        return "name" if features in get_args(FeatureKind) else None
    kind = features.get("kind") if isinstance(features, dict) else getattr(features, "kind", None)
    return kind if isinstance(kind, str) else None


Features: TypeAlias = Annotated[
    Annotated[FeatureKind, Tag("name")]
    | Annotated[ModuleExtractor, Tag("module")]
    | Annotated[ScriptExtractor, Tag("torchscript")],
    ByKind(
        _kind_of_features,
        custom_error_type="unknown_extractor",
        custom_error_message=f"valid: {', '.join(get_args(FeatureKind))}; of yours, "
        'kind = "module" with path = "MODULE:NAME", or kind = "torchscript" with path = "FILE.pt"',
    ),
]
"""An extractor: a shipped one by its name, none, or a user's."""


class Scoring(Model):
    """How a run is scored; scores compare only where all of this is equal."""

    features: Features
    """The network whose features are compared: the small classifier of digits, of garments or, for colour images, of
    objects; Inception, none, or a network of yours."""
    num_samples: Annotated[int, Field(ge=2, le=1_000_000)] = 10_000
    """How many images are scored at the end."""
    curve_samples: Annotated[int, Field(ge=2, le=1_000_000)] = 2_000
    """How many at each point along training."""
    curve_points: Annotated[int, Field(gt=0, le=MAX_POINTS)] = 10
    """How many points along training there are, evenly spread."""
    keep_best: bool = False
    """Whether the weights with the lowest FID along training are kept and scored, beside those of the last step."""
    representation: bool = False
    """Whether it is also measured what D's features, G's latents and single filters have learnt: 15 s more."""


class RunFields(HashedConfig):
    """Everything that changes a run's results, each field checked by itself; see ``RunConfig``."""

    dataset: str = "mnist-10k"
    """What is learnt: a data set by name, or folder:PATH, whose pictures are turned upright as their EXIF says, laid on
    white where transparent, made 8-bit colour, and resized and cropped as by torchvision's Resize and CenterCrop."""
    holdout: str = ""
    """Images that scores compare with, folder:PATH or array:PATH, instead of a sixth of those of a folder or array."""
    fit: Fit = "crop"
    """How pictures of a folder become squares: their centre is cropped, or all of each is laid on black."""
    image_size: Annotated[int, Field(gt=0, le=1024)]
    """Side of the training images, in pixels."""
    latent_dim: Size
    """How many numbers an image is drawn from."""
    latent_distribution: LatentDistribution = "normal"
    """Of each: N(0, 1), or uniform in [-1, 1]."""
    conditional: bool = False
    """G and D are told which class an image is of, or is to be of; D adds a term for it (arXiv:1802.05637, equation 3),
    with a bias for each class that its authors' code does not have."""
    num_classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)] | None = None
    """How many there are; planning takes it from the data set."""
    matching_aware: bool = True
    """Where the run is conditional, D also learns to reject real images under a wrong class (arXiv:1605.05396)."""
    generator: Generator
    """Latents in, images out."""
    discriminator: Discriminator
    """Images in, logits out."""
    init: Init
    """The distribution of the initial weights."""
    loss: Loss
    """Adversarial, of D and of G."""
    penalty: Penalty = NoPenalty(kind="none")
    """Added to D's loss."""
    mode_seeking_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the term that pushes images of different latents apart (arXiv:1903.05628, equation 5), added to G's loss. The
    authors' code adds it with weight 1 to the sum of G's losses on two batches, which is a weight of 0.5 here."""
    augmentation: Annotated[tuple[Augmentation, ...], Field(strict=False)] = ()
    """What DiffAugment does to whatever D sees (arXiv:2006.10738, section 3). Shifts by up to an eighth of the side and
    cuts of half of it are whole pixels, halves rounded up, as in the authors' code."""
    ema_decay: Probability = 0.0
    """Of an exponential moving average of G's weights a G step, scored beside them; 0: none is kept."""
    ema_rampup: PositiveFloat | None = None
    """The half-life of that average is at most this share of the steps so far, as in StyleGAN2-ADA's code: 0.05."""
    ema_buffers: Literal["averaged", "copied"] = "averaged"
    """Whether batch norm's running averages are averaged once more, or copied from G as in StyleGAN2's code."""
    lr_g: PositiveFloat
    """G's learning rate."""
    lr_d: PositiveFloat
    """D's learning rate."""
    lr_schedule: Schedule = ConstantRate(kind="constant")
    """How both learning rates change over the steps."""
    lr_warmup_steps: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    """G steps in which both learning rates rise linearly to their values; 0: none."""
    optimizer_g: Optimizer = Adam(kind="adam")
    """What updates G."""
    optimizer_d: Optimizer = Adam(kind="adam")
    """What updates D."""
    clip_grad_norm_g: PositiveFloat | None = None
    """The largest Euclidean norm of G's gradient, to which a larger one is scaled down (arXiv:1211.5063)."""
    clip_grad_norm_d: PositiveFloat | None = None
    """The same of D's gradient."""
    beta1: Probability
    """Adam's decay of the mean gradient."""
    beta2: Probability
    """Adam's decay of the mean square."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    """Images a step, real ones and fakes each."""
    d_steps_per_g_step: Size = 1
    """D steps before each G step."""
    g_steps_per_d_step: Size = 1
    """G steps for each D step, where D is to learn less than G."""
    generator_fakes: Literal["reused", "fresh"]
    """Whether G learns from the fakes that D has just seen, or from fresh ones."""
    update_order: Literal["discriminator_first", "generator_first"] = "discriminator_first"
    """Which network goes first."""
    generator_gradient: Literal["own", "accumulated"] = "own"
    """Whether G steps along the gradient of its own loss, or along its sum with that of D's loss on the same fakes, as
    where a loop neither detaches them in D's pass nor sets G's gradient to zero behind it."""
    precision: Precision = "fp32"
    """Of layers; weights, losses and updates are in float32. In TF32, a GPU rounds what it multiplies to 10 bits."""
    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)]
    """G steps."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    """Of every random stream."""
    scoring: Scoring
    """How the run is judged."""
    sheet_every: Size | None = None
    """G steps between two sample grids, beside those at the points of FID along training."""

    @property
    def revisions(self) -> tuple[str, ...]:
        """Corrections that changed the results of such runs.

        ``masks_after_networks``: dropout's stream is seeded after the networks, whose constructors sample from it.
        ``layer_behind_minibatch_std``: minibatch standard deviation has a layer between it and the last one.
        ``halves_round_up``: DiffAugment's shifts and cuts of half a pixel are rounded up, as in its authors' code.
        ``own_parts_seeded``: user code is imported before its random streams are seeded.
        ``folder_images_in_fixed_order``: a folder's images are held out by their content and not by their names.
        ``folder_resized_bilinearly``: a folder's images are resized and cropped as torchvision does it.
        """
        part = self.discriminator
        has_dropout = (part.kind == "mlp" and part.dropout > 0) or (
            part.kind == "dcgan" and (part.dropout > 0 or part.dropout2d > 0)
        )
        has_minibatch_std = part.kind != "module" and part.minibatch_std
        # Python's ``round`` takes a half to the even number: at these sides it rounds down.
        has_halves = ("translation" in self.augmentation and self.image_size % 16 == 4) or (
            "cutout" in self.augmentation and self.image_size % 4 == 1
        )
        changed = {
            "masks_after_networks": has_dropout,
            "layer_behind_minibatch_std": has_minibatch_std,
            "halves_round_up": has_halves,
            "own_parts_seeded": bool(self.user_parts),
        }
        of_config = tuple(name for name, is_changed in changed.items() if is_changed)
        return (*of_config, *folder_revisions(self.dataset))

    @property
    def user_parts(self) -> dict[str, UserPart]:
        """Field → part, of the parts that are user code."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in parts.items() if isinstance(part, UserPart)}

    @property
    def num_channels(self) -> int:
        """Colour channels of the images: 1 or 3."""
        return count_channels(self.dataset)

    @property
    def num_inputs_g(self) -> int:
        """G's inputs for an image: the latent, and in a conditional run the one-hot class after it."""
        return self.latent_dim + (self.num_classes or 0)

    @property
    def num_outputs_d(self) -> int:
        """D's logits for an image: one, and in a conditional run one more for each class."""
        return 1 + (self.num_classes or 0)

    @property
    def curve_steps(self) -> set[int]:
        """The steps after which FID over training is measured."""
        points = self.scoring.curve_points
        return {round(self.steps * point / points) for point in range(1, points + 1)}

    @property
    def oscillation_steps(self) -> set[int]:
        """The steps after which FID's oscillation is measured, over the last half; none where they are too close."""
        has_many_features = self.scoring.features == "inception" or not isinstance(self.scoring.features, str)
        if self.steps < 2 * OSCILLATION_POINTS * MIN_OSCILLATION_GAP or has_many_features:
            return set()
        last = OSCILLATION_POINTS - 1
        return {round(self.steps * (last + point) / (2 * last)) for point in range(OSCILLATION_POINTS)}

    @property
    def sheet_steps(self) -> set[int]:
        """The steps after which a sample grid is written, ``curve_steps`` among them."""
        return self.curve_steps | set(range(0, self.steps + 1, self.sheet_every or self.steps))
