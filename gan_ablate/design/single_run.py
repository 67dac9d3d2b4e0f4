"""Single runs: resolve a preset and options into one run that belongs to no grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import KnownFolders
from gan_ablate.design.grid import DEFAULT_BUDGETS, load_preset
from gan_ablate.design.resolve import budget_settings, list_options, reference_notes, resolve_run, unscored_notes
from gan_ablate.design.run_fields import MAX_SEED, MAX_STEPS
from gan_ablate.design.validation import shorten, validate
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
