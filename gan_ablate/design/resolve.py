"""Resolve a run: merge the settings of its preset, budget, grid file and options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import (
    ARRAY_PREFIX,
    HELD_OUT_SHARE,
    MIN_REFERENCE,
    MIN_SAMPLES,
    NUM_FEATURES,
    PREFIX,
    KnownFolders,
    default_features,
)
from gan_ablate.design.grid import DEFAULT_BUDGETS, Budget, BudgetName, Grid, load_preset
from gan_ablate.design.run_fields import MAX_SEED, MAX_STEPS
from gan_ablate.design.settings import Layer, find_origin, merge, parse_override
from gan_ablate.design.user_code import UserCode, read_features
from gan_ablate.design.validation import shorten, validate
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.run_fields import Features
    from gan_ablate.design.settings import Block


_BUDGET_COUNTS = ("num_samples", "curve_samples")


@dataclass(frozen=True)
class Shared:
    """What all variants of a plan have in common.

    Attributes:
        budget: the budget, with the changes that options make.
        budget_layers: what the grid's own budget sets of scoring.
        options: what options set.
        folders: the image folders that were found so far; resolving adds to them.
        code: the user code that was found so far; resolving adds to it.
    """

    budget: Budget
    budget_layers: list[Layer]
    options: list[Layer]
    folders: KnownFolders
    code: UserCode


def budget_settings(budget: Budget) -> dict[str, Any]:
    """Return the settings that a budget makes in every run."""
    scoring = {key: getattr(budget, key) for key in ("num_samples", "curve_samples", "curve_points")}
    return {"steps": budget.steps, "scoring": scoring}


def list_budget_layers(grid: Grid, name: BudgetName) -> list[Layer]:
    """List what a grid's own budget sets of scoring."""
    if name not in grid.budget:
        return []
    scoring = grid.budget[name].model_dump(include={*_BUDGET_COUNTS, "curve_points"}, exclude_none=True)
    return [(f"{grid.source}, [budget.{name}]", {"scoring": scoring})]


def list_options(
    features: str | Mapping[str, Any] | None, overrides: Sequence[str], holdout: str | None = None
) -> list[Layer]:
    """List the settings that options make in every variant."""
    options: list[Layer] = [] if holdout is None else [(option("holdout", shorten(holdout)), {"holdout": holdout})]
    if features is not None:
        given = read_features(features) if isinstance(features, str) else dict(features)
        options.append((option("features", features), {"scoring": {"features": given}}))
    options += [(option("overrides", shorten(override)), parse_override(override)) for override in overrides]
    if any({"seed", "steps"} & change.keys() for _, change in options):
        raise UserError(
            f"{option('overrides')} seed or steps: use {option('seeds')}, which counts from 0, and {option('steps')}"
        )
    return options


def unscored_notes(configs: Iterable[AnyConfig]) -> list[str]:
    """Say which data sets' runs will not be scored, and which options would change that."""
    unscored = dict.fromkeys(config.dataset for config in configs if config.scoring.features == "none")
    return [
        f"{dataset}: these runs will not be scored: no classifier of it is shipped; valid: an extractor of yours with "
        f"--features MODULE:NAME, or Inception's weights with --features inception "
        f"(downloaded from github.com/toshas/torch-fidelity, 95 MB) or --inception-weights PATH"
        for dataset in unscored
    ]


def reference_notes(configs: Iterable[AnyConfig], folders: KnownFolders) -> list[str]:
    """Say which data sets hold out few images for their extractor; see ``describe_reference``.

    Raises:
        UserError: if a data set holds out too few images for any score.
    """
    scored = dict.fromkeys(
        (config.dataset, config.scoring.features, getattr(config, "holdout", "")) for config in configs
    )
    return [
        note
        for dataset, features, holdout in scored
        if (note := describe_reference(dataset, features, folders, holdout))
    ]


def describe_reference(dataset: str, features: Features, folders: KnownFolders, holdout: str = "") -> str:
    """Say that a folder holds out few images for an extractor; empty where there are enough.

    FID compares covariances. With no more images than features a covariance is singular; with few more FID is biased.

    Args:
        dataset: its name; ``folder:NAME@HASH`` for a folder.
        features: the extractor.
        folders: the folders that were found.
        holdout: the name of the held-out images, if they are no part of the data set.

    Raises:
        UserError: if there are too few images for any score.
    """
    if features == "none" or dataset not in folders.paths:
        return ""
    num = folders.count_all_images(holdout or dataset)
    num_held_out = num if holdout else num // HELD_OUT_SHARE
    named = holdout or dataset
    place = f"{named.partition(':')[0]}:{Path(folders.paths[named])}"
    counted = f"{place}: {num:,} images, of which {num_held_out:,} are held out to compare with"
    share = 1 if holdout else HELD_OUT_SHARE
    if num_held_out < MIN_REFERENCE:
        advice = f'valid: at least {MIN_REFERENCE * share} images, or scoring.features = "none"'
        raise UserError(f"{counted}; scores need {MIN_REFERENCE}; {advice}")
    if not isinstance(features, str):
        return ""  # how many features there are is known when it is loaded
    num_features, needed = NUM_FEATURES[features], MIN_SAMPLES[features]
    if num_held_out >= needed:
        return ""
    what = "are too few" if num_held_out <= num_features else "are few"
    return (
        f"{counted}: they {what} for {num_features:,} features of {features}, so FID is too high and compares only "
        f"with FIDs against the same images; better: {needed * share:,} images, {needed:,} of them held out"
    )


def list_layers(grid: Grid, levels: Mapping[str, str], block: Block) -> tuple[str, list[Layer]]:
    """List the settings that a grid's file makes in one variant, those that replace others last.

    Returns:
        The name of the variant's levels, for messages, and the layers; those of the levels have that name.
    """
    where = ", ".join(f"{factor}.{level}" for factor, level in levels.items())
    source = f"{grid.source}, level {shorten(where)}"
    of_levels = [(source, merge({}, grid.factors[name].levels[level])) for name, level in levels.items()]
    return source, [(f"{grid.source}, [set]", merge({}, grid.set)), *block.below, *of_levels]


def name_dataset(dataset: Any, layers: list[Layer], source: str, folders: KnownFolders, field: str = "dataset") -> Any:
    """Name a folder of images by its content; any other value stays as it is.

    Args:
        dataset: the value, as a layer sets it.
        layers: the layers, to name the one that sets it in a message.
        source: the name for the message where no layer sets it.
        folders: the folders that were found; this adds to them.
        field: which sets it.

    Raises:
        UserError: if there is no such folder of images.
    """
    if not (isinstance(dataset, str) and dataset.startswith((PREFIX, ARRAY_PREFIX))):
        return dataset
    origin = find_origin([field], layers) or source
    is_option = origin == option(field, shorten(dataset))
    return folders.name(dataset, option(field) if is_option else f"{origin}: {field} =")


def resolve_variant(grid: Grid, levels: Mapping[str, str], block: Block, shared: Shared) -> RunConfig:
    """Resolve one variant of a grid that starts from a preset.

    Args:
        grid: the grid.
        levels: a level for every factor.
        block: the block of the variant.
        shared: what all variants have in common.

    Raises:
        UserError: if it is not a valid configuration.
    """
    source, layers = list_layers(grid, levels, block)
    preset = block.preset
    for place, change in layers:
        if place == source:
            preset = change.pop("preset", preset)
        if {"seed", "steps"} & change.keys():
            advice = "seed and steps are the same in every run of a grid; set them in [budget.standard]"
            raise UserError(f"{place}: {advice}")
    layers = [*shared.budget_layers, *layers, *block.above, *shared.options]
    start = load_preset(preset, f"{source}: preset")
    return resolve_run(start, source, shared.budget, layers, shared.folders, shared.code)


def resolve_run(
    preset: dict[str, Any],
    source: str,
    budget: Budget,
    layers: list[Layer],
    folders: KnownFolders,
    code: UserCode | None = None,
) -> RunConfig:
    """Merge the settings of a run, add those that follow from its data set, and check the whole.

    Args:
        preset: the settings of the preset.
        source: the name for messages on what no layer sets.
        budget: replaces the preset's settings.
        layers: replace the budget's settings, the last ones first.
        folders: the folders that were found; this adds to them.
        code: the user code that was found; this adds to it. Without it, user code is refused.

    Raises:
        UserError: if it is not a valid configuration.
    """
    common = budget_settings(budget)
    data = merge(preset, common)
    for _, change in layers:
        data = merge(data, change)
    dataset = name_dataset(data.get("dataset", RunConfig.model_fields["dataset"].default), layers, source, folders)
    data = {**data, "dataset": dataset, "seed": 0}
    if data.get("holdout"):
        data["holdout"] = name_dataset(data["holdout"], layers, source, folders, "holdout")
    if data.get("conditional") is True and isinstance(dataset, str):
        data["num_classes"] = folders.count_classes(dataset, source)
    if isinstance(data["scoring"], dict) and isinstance(dataset, str):
        data["scoring"] = {"features": default_features(dataset), **data["scoring"]}
        if data["scoring"]["features"] == "inception":  # a budget's counts are for the small classifiers
            for name in _BUDGET_COUNTS:
                if data["scoring"][name] == common["scoring"][name]:
                    data["scoring"][name] = max(common["scoring"][name], MIN_SAMPLES["inception"])
    code = code or UserCode()
    data = code.complete(data, source)
    if isinstance(data["scoring"], dict):
        features = code.complete_extractor(data["scoring"].get("features"), source)
        data["scoring"] = {**data["scoring"], "features": features}
    return validate(RunConfig, data, lambda fields: find_origin(fields, layers) or source)


@dataclass(frozen=True)
class SingleRun:
    """A run that belongs to no grid.

    Attributes:
        config: its configuration.
        folders: the path of each ``folder:NAME@HASH``, and of user code, on this machine.
        notes: what a user should know before training.
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
    features: str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    allow_code: bool = False,
) -> SingleRun:
    """Resolve one preset into a run.

    Args:
        preset: the name of a shipped preset.
        dataset: replaces the preset's data set.
        epochs: passes over the training images; an incomplete last batch is left out.
        steps: generator steps, instead of epochs; by default those of the standard budget.
        seed: the seed of every random stream.
        features: the extractor, instead of the data set's default, as for ``plan``.
        overrides: ``path=value`` settings, the value in TOML's notation or a bare word.
        allow_code: whether an extractor or modules of yours may be run.

    Raises:
        UserError: if it is not a valid configuration, or both ``epochs`` and ``steps`` are given.
    """
    for parameter, number, least, most in (("steps", steps, 1, MAX_STEPS), ("seed", seed, 0, MAX_SEED)):
        if number is not None and not least <= number <= most:
            raise UserError(f"{option(parameter, number)}: valid: a whole number from {least} to {most:,}")
    if epochs is not None and steps is not None:
        raise UserError(f"{option('epochs', epochs)}: valid: epochs or {option('steps')}, not both")
    budget = DEFAULT_BUDGETS["standard"].model_copy(update={"steps": steps} if steps else {})
    layers = list_options(features, overrides)
    if dataset is not None:
        layers.append((option("dataset", shorten(dataset)), {"dataset": dataset}))
    folders, code = KnownFolders(), UserCode(Path.cwd(), is_allowed=allow_code)
    config = resolve_run(load_preset(preset, "preset"), "preset", budget, layers, folders, code)
    if epochs is not None:
        num_images = folders.count_images(config.dataset, is_whole=bool(config.holdout))
        steps = max(1, epochs * num_images // config.batch_size)
        if steps > MAX_STEPS:
            most = MAX_STEPS * config.batch_size // num_images
            raise UserError(f"{option('epochs', epochs)}: {steps:,} steps; valid: a whole number from 1 to {most:,}")
        config = validate(RunConfig, {**config.model_dump(), "steps": steps}, option("epochs", epochs))
    config = config.model_copy(update={"seed": seed})
    notes = *folders.notes, *unscored_notes([config]), *reference_notes([config], folders)
    return SingleRun(config, folders.paths | code.paths, notes)
