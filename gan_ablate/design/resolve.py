"""Resolve a run: lay preset, budget, grid file and options over one another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import (
    HELD_OUT_SHARE,
    MIN_REFERENCE,
    MIN_SAMPLES,
    NUM_FEATURES,
    PREFIX,
    KnownFolders,
    default_features,
    list_images,
)
from gan_ablate.design.grid import DEFAULT_BUDGETS, Budget, Grid, load_preset
from gan_ablate.design.run_fields import MAX_SEED, MAX_STEPS
from gan_ablate.design.settings import Layer, find_origin, merge, parse_override
from gan_ablate.design.user_code import UserCode
from gan_ablate.design.validation import shorten, validate
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gan_ablate.design.datasets import FeatureKind
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.settings import Block


_BUDGET_COUNTS = ("num_samples", "curve_samples")


def budget_settings(budget: Budget) -> dict[str, Any]:
    """Return what a budget sets in every run."""
    scoring = {key: getattr(budget, key) for key in ("num_samples", "curve_samples", "curve_points")}
    return {"steps": budget.steps, "scoring": scoring}


def list_options(features: str | None, overrides: Sequence[str]) -> list[Layer]:
    """List what options set for every variant."""
    options: list[Layer] = []
    if features is not None:
        options.append((f"--features {features}", {"scoring": {"features": features}}))
    options += [(f"--set {shorten(override)}", parse_override(override)) for override in overrides]
    if any({"seed", "steps"} & change.keys() for _, change in options):
        raise UserError("--set seed or steps: use --seeds, which counts from 0, and --steps")
    return options


def unscored_notes(configs: Iterable[AnyConfig]) -> list[str]:
    """Say which data sets' runs will have no scores, and how they would."""
    unscored = dict.fromkeys(config.dataset for config in configs if config.scoring.features == "none")
    return [
        f"{dataset}: these runs will not be scored: colour images need Inception's weights, with --features inception "
        f"(downloaded from github.com/toshas/torch-fidelity, 95 MB) or --inception-weights PATH"
        for dataset in unscored
    ]


def reference_notes(configs: Iterable[AnyConfig], folders: KnownFolders) -> list[str]:
    """Say which data sets hold out few images for their extractor; see ``describe_reference``.

    Raises:
        UserError: if one holds out too few for any score.
    """
    judged = dict.fromkeys((config.dataset, config.scoring.features) for config in configs)
    return [note for dataset, features in judged if (note := describe_reference(dataset, features, folders))]


def describe_reference(dataset: str, features: FeatureKind, folders: KnownFolders) -> str:
    """Say that a folder holds out few images for an extractor, or nothing where there are enough.

    FID compares covariances. Of no more images than features, a covariance is singular; of few more, FID is biased.

    Args:
        dataset: by name.
        features: that judge it.
        folders: that are known.

    Raises:
        UserError: if they are too few for any score.
    """
    if features == "none" or dataset not in folders.places:
        return ""
    folder = Path(folders.places[dataset])
    num = len(list_images(folder))
    num_held_out, num_features, needed = num // HELD_OUT_SHARE, NUM_FEATURES[features], MIN_SAMPLES[features]
    counted = f"{PREFIX}{folder}: {num:,} images, of which {num_held_out:,} are held out to compare with"
    if num_held_out < MIN_REFERENCE:
        advice = f'valid: at least {MIN_REFERENCE * HELD_OUT_SHARE} images, or scoring.features = "none"'
        raise UserError(f"{counted}; scores need {MIN_REFERENCE}; {advice}")
    if num_held_out >= needed:
        return ""
    what = "are too few" if num_held_out <= num_features else "are few"
    return (
        f"{counted}: they {what} for {num_features:,} features of {features}, so FID is too high and compares only "
        f"with FIDs against the same images; better: {needed * HELD_OUT_SHARE:,} images, {needed:,} of them held out"
    )


def lay_levels(grid: Grid, levels: Mapping[str, str], block: Block) -> tuple[str, list[Layer]]:
    """List what a grid's file sets for one variant, from the bottom; and name the variant, for messages.

    Its own layers are the last ones, of that name.
    """
    where = ", ".join(f"{factor}.{level}" for factor, level in levels.items())
    source = f"{grid.source}, level {shorten(where)}"
    of_levels = [(source, merge({}, grid.factors[name].levels[level])) for name, level in levels.items()]
    return source, [(f"{grid.source}, [set]", merge({}, grid.set)), *block.below, *of_levels]


def name_dataset(dataset: Any, layers: list[Layer], source: str, folders: KnownFolders) -> Any:
    """Name a folder of images by its content; what is none stays as it is.

    Args:
        dataset: as some layer sets it.
        layers: in which it is looked for, for the message.
        source: that is named where none of them sets it.
        folders: that are known.

    Raises:
        UserError: if there is no such folder of images.
    """
    if not (isinstance(dataset, str) and dataset.startswith(PREFIX)):
        return dataset
    origin = find_origin(["dataset"], layers) or source
    return folders.name(dataset, "--dataset" if origin.startswith("--dataset ") else f"{origin}: dataset =")


def resolve_variant(
    grid: Grid,
    levels: Mapping[str, str],
    block: Block,
    common: dict[str, Any],
    own_budget: list[Layer],
    options: list[Layer],
    folders: KnownFolders,
    code: UserCode,
) -> RunConfig:
    """Lay everything that has a say over one variant of a grid.

    Args:
        grid: whose variant.
        levels: a level for every factor.
        block: in which it lies.
        common: what the budget sets.
        own_budget: what the grid's own budget says of scoring.
        options: what options set.
        folders: of images, noted as they are met.
        code: user code, noted as it is met.

    Raises:
        UserError: if it is not a valid configuration.
    """
    source, layers = lay_levels(grid, levels, block)
    preset = block.preset
    for place, change in layers:
        if place == source:
            preset = change.pop("preset", preset)
        if {"seed", "steps"} & change.keys():
            advice = "seed and steps are the same in every run of a grid; set them in [budget.standard]"
            raise UserError(f"{place}: {advice}")
    layers = [*own_budget, *layers, *block.above, *options]
    return resolve_run(load_preset(preset, f"{source}: preset"), source, common, layers, folders, code)


def resolve_run(
    preset: dict[str, Any],
    source: str,
    common: dict[str, Any],
    layers: list[Layer],
    folders: KnownFolders,
    code: UserCode | None = None,
) -> RunConfig:
    """Lay a budget and layers over a preset, complete what follows from the data set, and check the whole."""
    data = merge(preset, common)
    for _, change in layers:
        data = merge(data, change)
    dataset = name_dataset(data.get("dataset", RunConfig.model_fields["dataset"].default), layers, source, folders)
    data = {**data, "dataset": dataset, "seed": 0}
    if data.get("conditional") is True and isinstance(dataset, str):
        data["num_classes"] = folders.count_classes(dataset, source)
    if isinstance(data["scoring"], dict) and isinstance(dataset, str):
        data["scoring"] = {"features": default_features(dataset), **data["scoring"]}
        if data["scoring"]["features"] == "inception":  # a budget's counts are for the small classifiers
            for name in _BUDGET_COUNTS:
                if data["scoring"][name] == common["scoring"][name]:
                    data["scoring"][name] = max(common["scoring"][name], MIN_SAMPLES["inception"])
    data = (code or UserCode()).complete(data, source)
    return validate(RunConfig, data, lambda fields: find_origin(fields, layers) or source)


@dataclass(frozen=True)
class SingleRun:
    """A run that belongs to no grid.

    Attributes:
        config: all of it.
        folders: where each ``folder:NAME@HASH`` lies on this machine.
        notes: what is to be known before it is trained.
    """

    config: RunConfig
    folders: dict[str, str]
    notes: tuple[str, ...]


def plan_run(
    preset: str,
    *,
    dataset: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    features: Literal["inception"] | None = None,
    overrides: Sequence[str] = (),
) -> SingleRun:
    """Resolve one preset into a run.

    Args:
        preset: a shipped one.
        dataset: instead of the preset's.
        epochs: passes over the training images; the last one's remainder of a batch is left out.
        steps: or generator steps; by default those of the standard budget.
        seed: of every random stream.
        features: score with this extractor instead of the data set's own.
        overrides: ``path=value`` settings, the value in TOML's notation or a bare word.

    Raises:
        UserError: if it is not a valid configuration, or both ``epochs`` and ``steps`` are given.
    """
    for option, number, least, most in (("--steps", steps, 1, MAX_STEPS), ("--seed", seed, 0, MAX_SEED)):
        if number is not None and not least <= number <= most:
            raise UserError(f"{option} {number}: valid: a whole number from {least} to {most:,}")
    if epochs is not None and steps is not None:
        raise UserError(f"--epochs {epochs}: valid: epochs or --steps, not both")
    common = budget_settings(DEFAULT_BUDGETS["standard"].model_copy(update={"steps": steps} if steps else {}))
    layers = list_options(features, overrides)
    if dataset is not None:
        layers.append((f"--dataset {shorten(dataset)}", {"dataset": dataset}))
    folders = KnownFolders()
    config = resolve_run(load_preset(preset, "preset"), "preset", common, layers, folders)
    if epochs is not None:
        num_images = folders.count_images(config.dataset)
        steps = max(1, epochs * num_images // config.batch_size)
        if steps > MAX_STEPS:
            most = MAX_STEPS * config.batch_size // num_images
            raise UserError(f"--epochs {epochs}: {steps:,} steps; valid: a whole number from 1 to {most:,}")
        config = validate(RunConfig, {**config.model_dump(), "steps": steps}, f"--epochs {epochs}")
    config = config.model_copy(update={"seed": seed})
    notes = *folders.notes, *unscored_notes([config]), *reference_notes([config], folders)
    return SingleRun(config, folders.places, notes)
