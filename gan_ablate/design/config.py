"""RunConfig: the checked configuration of a run, the checks of fields that exclude each other, and a list of fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, assert_never

from pydantic import model_validator

from gan_ablate.design.datasets import (
    ARRAY_PREFIX,
    DATASETS,
    MIN_SAMPLES,
    NUM_FEATURES,
    PREFIX,
    count_channels,
    default_features,
)
from gan_ablate.design.run_fields import MAX_POINTS, RunFields
from gan_ablate.design.validation import FieldHelp, choices, describe_fields, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_ablate.design.gan import ShippedNetwork
    from gan_ablate.design.run_fields import Features


def check_combinations(config: RunFields) -> None:
    """Check that the fields of a run go together.

    Raises:
        PydanticCustomError: naming a field, and the fields that it does not go with.
    """
    check_dataset(config.dataset)
    _check_holdout(config)
    if config.fit != "crop" and not (config.dataset.startswith(PREFIX) or config.holdout.startswith(PREFIX)):
        raise refusal("fit", config.fit, f"all images are squares; valid: with {PREFIX}PATH", "dataset")
    _check_size(config)
    _check_networks(config)
    _check_updates(config)
    _check_objective(config)
    _check_steps(config)
    _check_scoring(config)
    if config.sheet_every is not None and config.steps // config.sheet_every > MAX_POINTS:
        advice = f"{config.steps // config.sheet_every:,} sample sheets; valid: at most {MAX_POINTS:,}"
        raise refusal("sheet_every", config.sheet_every, advice, "steps")
    if config.conditional != (config.num_classes is not None):
        advice = "comes from the data set; valid: conditional = true"
        raise refusal("num_classes", config.num_classes, advice, "conditional")
    if not (config.conditional or config.matching_aware):
        raise refusal("matching_aware", False, "needs classes; valid: conditional = true", "conditional")


def check_dataset(dataset: str) -> None:
    """Check that a data set is known by name, or is a folder.

    Raises:
        PydanticCustomError: naming the known data sets.
    """
    if dataset not in DATASETS and not dataset.startswith((PREFIX, ARRAY_PREFIX)):
        raise refusal("dataset", dataset, choices(dataset, list(DATASETS)))


def _check_holdout(config: RunFields) -> None:
    paths = PREFIX, ARRAY_PREFIX
    if not config.holdout:
        return
    if not config.dataset.startswith(paths):
        advice = f"{config.dataset} has held-out images of its own; valid: with {PREFIX}PATH or {ARRAY_PREFIX}PATH"
        raise refusal("holdout", config.holdout, advice, "dataset")
    if not config.holdout.startswith(paths):
        raise refusal("holdout", config.holdout, f"valid: {PREFIX}PATH or {ARRAY_PREFIX}PATH")
    if count_channels(config.holdout) != config.num_channels:
        advice = "one is grey, and the other in colour; valid: both of one kind"
        raise refusal("holdout", config.holdout, advice, "dataset")


def check_features(dataset: str, features: Features, counts: Mapping[str, int]) -> None:
    """Check that an extractor suits a data set and has enough images.

    Args:
        dataset: the name of the data set.
        features: the extractor; a user's suits any data set.
        counts: field of ``scoring`` → its number of images.

    Raises:
        PydanticCustomError: naming a field, and the fields that it does not go with.
    """
    if features in ("digits", "fashion") and default_features(dataset) != features:
        valid = "inception, none" if count_channels(dataset) == 1 else "objects, inception, none"
        raise refusal("scoring.features", features, f"cannot judge {dataset}; valid: {valid}", "dataset")
    if features == "objects" and count_channels(dataset) == 1:
        own = "" if default_features(dataset) == "none" else f"{default_features(dataset)}, "
        advice = f"it takes colour images, and {dataset} is grey; valid: {own}inception, none"
        raise refusal("scoring.features", features, advice, "dataset")
    if not isinstance(features, str):
        return  # how many features there are is known when it is loaded
    for field, number in counts.items():
        if number < MIN_SAMPLES[features]:
            num_features, least = NUM_FEATURES[features], MIN_SAMPLES[features]
            advice = f"too few for the {num_features:,} features of {features}; valid: at least {least:,}, "
            advice += f"{least // num_features} for each feature; FID compares covariances"
            raise refusal(f"scoring.{field}", number, advice, "scoring.features")


def _check_size(config: RunFields) -> None:
    for part, network in (("generator", config.generator), ("discriminator", config.discriminator)):
        if network.kind == "resnet":
            side, num = network.smallest_size, network.num_scalings(config.image_size)
            if num < 1 or config.image_size != side * 2**num:
                others = f"{part}.smallest_size", f"{part}.kind"
                raise refusal("image_size", config.image_size, f"this residual {part} needs {side}·2^n", *others)
        if network.kind == "dcgan":
            side, num = network.smallest_side(config.image_size), network.num_scalings(config.image_size)
            if num < 1 or config.image_size != side * 2**num:
                valid = f"{side}·2^n" if network.smallest_size else "4·2^n or 7·2^n: 8, 14, 16, 28, 32, 56, 64…"
                others = f"{part}.smallest_size", f"{part}.kind"
                raise refusal("image_size", config.image_size, f"a DCGAN needs {valid}", *others)


def _check_networks(config: RunFields) -> None:
    """Check norms, attention and minibatch standard deviation."""
    size = config.image_size
    for part, network in (("generator", config.generator), ("discriminator", config.discriminator)):
        if network.kind == "module":
            continue
        if network.kind == "mlp" and network.norm == "instance":
            advice = "a linear layer has one number a unit and image; valid: none, batch, layer, group, pixel"
            raise refusal(f"{part}.norm", network.norm, advice, f"{part}.kind")
        if network.norm == "group":
            _check_groups(config, part, network)
        if network.kind == "dcgan" and network.attention is not None:
            side, num = network.smallest_side(size), network.num_hidden(size)
            sides = [side << depth for depth in range(num)]
            if network.attention not in sides:
                advice = f"no map of it has this side; valid: {', '.join(map(str, sides))}"
                raise refusal(f"{part}.attention", network.attention, advice, "image_size", f"{part}.smallest_size")
    if config.discriminator.kind != "module" and config.discriminator.minibatch_std_group is not None:
        group, field = config.discriminator.minibatch_std_group, "discriminator.minibatch_std_group"
        if not config.discriminator.minibatch_std:
            raise refusal(field, group, "needs minibatch_std = true", "discriminator.minibatch_std")
        if config.batch_size % group:
            raise refusal(field, group, f"valid: a divisor of batch_size = {config.batch_size}", "batch_size")


def _check_groups(config: RunFields, part: str, network: ShippedNetwork) -> None:
    """Check that the groups of group norm divide the channels of every layer that has it."""
    match network.kind:
        case "mlp":
            widths = list(network.hidden_sizes)
        case "dcgan":
            widths = network.widths(config.image_size)
            if part == "generator" and network.norm_placement == "all":
                widths.append(config.num_channels)
        case "resnet":
            widths = [network.base_channels]
        case _:
            assert_never(network)
    odd = next((width for width in widths if width % network.norm_groups), None)
    if odd is not None:
        advice = f"does not divide the {odd} channels of a layer; valid: a common divisor of all"
        raise refusal(f"{part}.norm_groups", network.norm_groups, advice, f"{part}.norm")


def _check_updates(config: RunFields) -> None:
    """Check that settings of an average of weights have one."""
    if not config.ema_decay:
        for field, value, usual in (
            ("ema_rampup", config.ema_rampup, None),
            ("ema_buffers", config.ema_buffers, "averaged"),
        ):
            if value != usual:
                raise refusal(field, value, "no average of weights is kept; valid: with ema_decay above 0", "ema_decay")


def _check_objective(config: RunFields) -> None:
    clip = config.loss.weight_clip if config.loss.kind == "wasserstein" else None
    if clip is not None and config.discriminator.spectral_norm:
        advice = "spectral norm divides the clipped scale out again; use one of them"
        raise refusal("loss.weight_clip", clip, advice, "discriminator.spectral_norm")
    is_critic = config.loss.kind == "wasserstein"
    if is_critic and clip is None and config.penalty.kind == "none" and not config.discriminator.spectral_norm:
        advice = (
            "nothing keeps D from growing without bound; "
            "valid: with loss.weight_clip, a penalty or discriminator.spectral_norm = true"
        )
        raise refusal("loss", "wasserstein", advice, "loss.weight_clip", "penalty", "discriminator.spectral_norm")
    if clip is not None and config.penalty.kind == "gradient":
        advice = "clipped weights cannot reach the gradient norm that the penalty asks for; use one of them"
        raise refusal("loss.weight_clip", clip, advice, "penalty")
    is_of_gradient = config.penalty.kind in ("gradient", "r1", "r1_r2")
    shipped = None if config.discriminator.kind == "module" else config.discriminator
    if is_of_gradient and shipped is not None and shipped.norm == "batch":
        # arXiv:1704.00028, section 4.
        advice = "a penalty on each image's gradient has no meaning where batch norm mixes the images of a batch"
        raise refusal(
            "penalty", config.penalty.kind, f'{advice}; set discriminator.norm = "none"', "discriminator.norm"
        )
    if is_of_gradient and shipped is not None and shipped.minibatch_std:
        advice = "a penalty on each image's gradient has no meaning where minibatch_std mixes the images of a batch"
        raise refusal("penalty", config.penalty.kind, advice, "discriminator.minibatch_std")
    if config.conditional:
        for field, is_set in (
            ("penalty", config.penalty.kind == "gradient"),
            ("loss", config.loss.kind == "relativistic"),
            ("mode_seeking_weight", config.mode_seeking_weight > 0),
        ):
            if is_set:
                advice = "it pairs images, which here would be of different classes; valid: conditional = false"
                raise refusal(field, getattr(config, field), advice, "conditional")
    if len(set(config.augmentation)) < len(config.augmentation):
        raise refusal("augmentation", list(config.augmentation), "valid: each kind once")


def _check_steps(config: RunFields) -> None:
    num = config.g_steps_per_d_step
    if num > 1 and config.d_steps_per_g_step > 1:
        raise refusal("g_steps_per_d_step", num, "valid: 1 where d_steps_per_g_step is above 1", "d_steps_per_g_step")
    if num > 1 and config.loss.kind == "relativistic":
        raise refusal("g_steps_per_d_step", num, "valid: 1, as each fake needs a real image beside it", "loss")
    if config.generator_gradient == "accumulated":
        _check_accumulation(config)


def _check_accumulation(config: RunFields) -> None:
    """Check that G's next step has the gradient of D's loss on the same fakes, and no other gradient."""
    keeps = "G's gradient keeps that of D's loss only where"
    wrong = {
        "generator_fakes": (
            config.generator_fakes != "reused",
            f'{keeps} both learn from the same fakes; valid: "reused"',
        ),
        "update_order": (
            config.update_order != "discriminator_first",
            f"{keeps} D's step comes before G's; valid: \"discriminator_first\"",
        ),
        "g_steps_per_d_step": (
            config.g_steps_per_d_step > 1,
            f"{keeps} each G step has a D step before it; valid: 1",
        ),
        "penalty": (
            config.penalty.kind == "r1_r2",
            "at fakes that D does not detach, it would reach G; valid: a penalty of real images, as r1",
        ),
    }
    for field, (is_wrong, advice) in wrong.items():
        if is_wrong:
            value = getattr(config, field)
            shown = getattr(value, "kind", value)
            raise refusal(field, shown, f'{advice}, or generator_gradient = "own"', "generator_gradient")


def _check_scoring(config: RunFields) -> None:
    features = config.scoring.features
    counts = {"num_samples": config.scoring.num_samples, "curve_samples": config.scoring.curve_samples}
    check_features(config.dataset, features, counts)
    if config.scoring.keep_best and features == "none":
        raise refusal("scoring.keep_best", True, "nothing measures FID along training", "scoring.features")
    if config.scoring.representation:
        advice = "it takes a classifier of the data set, and a D that sees images alone"
        if features not in ("digits", "fashion"):
            raise refusal("scoring.representation", True, advice, "scoring.features")
        if config.conditional:
            raise refusal("scoring.representation", True, f"{advice}; valid: conditional = false", "conditional")
        if {"module", "resnet"} & {config.discriminator.kind, config.generator.kind}:
            others = "discriminator.kind", "generator.kind"
            raise refusal("scoring.representation", True, "it takes an mlp or a dcgan", *others)


class RunConfig(RunFields):
    """One training run: the same RunConfig gives the same bits on the same machine and library versions."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        check_combinations(self)
        return self


NOT_IN_LEVELS = (
    "seed", "steps", "num_classes", "generator.code", "discriminator.code", "loss.code", "penalty.code",
    "scoring.features.code",
)  # fmt: skip
"""Fields that no level sets: options, the data set and user code set them."""


def list_fields() -> list[FieldHelp]:
    """List every field that a level can set; fields of a network or a loss follow it."""
    found: dict[str, FieldHelp] = {}
    for field in describe_fields(RunConfig):
        if field.path in NOT_IN_LEVELS:
            continue
        known = found.setdefault(field.path, field)
        if field.default not in known.default.split(" or "):  # of another kind of network
            found[field.path] = known._replace(default=f"{known.default} or {field.default}")
    return list(found.values())


def find_fields(path: str) -> list[FieldHelp]:
    """Find a field by its path, or else all fields whose path ends so."""
    fields = list_fields()
    exact = [field for field in fields if field.path == path]
    return exact or [field for field in fields if field.path.endswith(f".{path}")]
