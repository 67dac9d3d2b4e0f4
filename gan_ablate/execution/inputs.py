"""Inputs of runs, loaded once a process: the device, the data set and the scorer."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import default_features
from gan_ablate.execution.store import Store
from gan_ablate.scoring.extractors import build_extractor
from gan_ablate.scoring.scorer import Scorer
from gan_ablate.training.data import ImageDataset, load_dataset
from gan_ablate.training.device import find_device
from gan_ablate.training.user_code_check import check_own

if TYPE_CHECKING:
    import torch

    from gan_ablate.design.configs import AnyConfig
    from gan_ablate.execution.context import RunContext
    from gan_ablate.scoring.scores import Scores


def check_inputs(config: AnyConfig, context: RunContext) -> None:
    """Load what a run will need, so that what is missing is said before anything is trained.

    Raises:
        UserError: if the data set, the extractor or the device cannot be had, or user code does not give what it
            should.
    """
    find_device(context.device)
    find_dataset(config, context)
    find_scorer(config, context)
    if isinstance(config, RunConfig):
        check_own(config)


def find_dataset(config: AnyConfig, context: RunContext) -> ImageDataset:
    """Return a run's images.

    Raises:
        UserError: if they cannot be had.
    """
    folder = context.folders.get(config.dataset)
    return _load_dataset_once(config.dataset, config.image_size, context.data_dir, folder, context.out)


def find_scorer(config: AnyConfig, context: RunContext) -> Scorer | None:
    """Return what scores a run, or None where it is not scored.

    Raises:
        UserError: if the images or the extractor cannot be had.
    """
    if config.scoring.features == "none":
        return None
    dataset, device = find_dataset(config, context), find_device(context.device)
    return _build_scorer_once(dataset, config.scoring.features, context.inception_weights, device, context.out)


def unscored_reason(config: AnyConfig) -> str:
    """Say why a run that has no scorer has none."""
    if default_features(config.dataset) == "none":
        return f"{config.dataset} has no classifier of its own; --inception-weights PATH scores it with Inception"
    return "scoring.features is none"


# A worker serves many runs of the same grid: what they share is prepared once.
@functools.lru_cache(maxsize=2)
def _load_dataset_once(name: str, image_size: int, data_dir: str, folder: str | None, out: str) -> ImageDataset:
    place = None if folder is None else Path(folder)
    return load_dataset(name, image_size, Path(data_dir), place, Store(Path(out)).cache_dir)


@functools.lru_cache(maxsize=2)
def _build_scorer_once(
    dataset: ImageDataset,
    features: Literal["digits", "fashion", "inception"],
    inception_weights: str | None,
    device: torch.device,
    out: str,
) -> Scorer:
    weights = None if inception_weights is None else Path(inception_weights)
    return Scorer(dataset, build_extractor(features, device, weights), Store(Path(out)).cache_dir)


@functools.lru_cache(maxsize=8)
def score_floor(scorer: Scorer, num_samples: int) -> Scores:
    """Return what as many real training images score."""
    return scorer.floor(num_samples)
