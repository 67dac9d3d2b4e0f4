"""The environment of a process: its machine, its versions, and the data set and scorer that its runs share."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import IMAGES_PER_FEATURE, count_channels, default_features
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.scoring.extractors import build_extractor
from gan_ablate.scoring.scorer import Scorer, list_user_caches
from gan_ablate.training.data import ImageDataset, load_dataset
from gan_ablate.training.runtime import check_precision, find_device, has_native_bf16
from gan_ablate.training.user_code_check import check_user_code

if TYPE_CHECKING:
    from gan_ablate.design.datasets import Fit
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.user_code import UserExtractor
    from gan_ablate.execution.context import RunContext
    from gan_ablate.scoring.scores import Scores


_PACKAGES = ("gan-ablate", "torch", "torchvision", "torchmetrics", "numpy")


def describe_environment(device: torch.device) -> dict[str, str]:
    """Describe the processor, the threads, the versions and, in a checkout, the git revision."""
    environment = {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # a processor's name may stand for several kinds
        "bfloat16": "native" if has_native_bf16() else "emulated",
        "cores": str(os.cpu_count()),
        "threads_per_run": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
    }
    if device.type == "cuda":
        environment["gpu"] = torch.cuda.get_device_name(device)
    revision = _git_revision()
    if revision:
        environment["revision"] = revision
    return environment


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """Return the checkout's commit, with a ``+`` where the package's files differ from it; None outside a checkout."""
    package = Path(__file__).parents[1]
    root = package.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short", "HEAD").strip()
        # Changes outside the package, such as reports, change no computation.
        changes = _git(root, "status", "--porcelain", "--", package.name)
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+" if changes else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def check_inputs(config: AnyConfig, context: RunContext) -> None:
    """Load what a run needs, before anything is trained.

    Raises:
        UserError: if the data set, the extractor, the device or the run's precision is not there, or user code returns
            wrong values.
    """
    device = find_device(context.device)
    if isinstance(config, RunConfig):
        check_precision(config.precision, device)
    find_dataset(config, context)
    find_scorer(config, context)
    if isinstance(config, RunConfig):
        check_user_code(config)


def find_dataset(config: AnyConfig, context: RunContext) -> ImageDataset:
    """Return a run's images.

    Raises:
        UserError: if they are neither there nor can be downloaded.
    """
    folder, holdout = context.folders.get(config.dataset), getattr(config, "holdout", "")
    beside = (holdout, Path(context.folders[holdout])) if holdout else None
    fit = getattr(config, "fit", "crop")
    return _load_dataset_once(config.dataset, config.image_size, context.data_dir, folder, context.out, beside, fit)


def find_scorer(config: AnyConfig, context: RunContext) -> Scorer | None:
    """Return the scorer of a run, or None where the run is not scored.

    Raises:
        UserError: if the images or the extractor are neither there nor can be downloaded, or a user's extractor does
            not work, or has too many features for the images that are scored.
    """
    features = config.scoring.features
    if features == "none":
        return None
    dataset, device = find_dataset(config, context), find_device(context.device)
    scorer = _build_scorer_once(dataset, features, context.inception_weights, device, context.out)
    if not isinstance(features, str):
        _check_counts(config, scorer)
    return scorer


def _check_counts(config: AnyConfig, scorer: Scorer) -> None:
    """Check that there are enough images for the features of a user's extractor."""
    num_features = scorer.extractor.num_features
    least = IMAGES_PER_FEATURE * num_features
    counts = {
        f"scoring.{name} =": number for name, number in config.scoring if name in ("num_samples", "curve_samples")
    }
    counts["held-out images:"] = scorer.num_reference
    few = [f"{name} {number}" for name, number in counts.items() if number < least]
    if few:
        what = f"too few for the {num_features:,} features of {scorer.extractor.name}"
        reason = "FID compares covariances, which need more images than features"
        advice = f"valid: at least {least:,}, {IMAGES_PER_FEATURE} for each feature; {reason}"
        raise UserError(f"{', '.join(few)}: {what}; {advice}")


def unscored_reason(config: AnyConfig) -> str:
    """Explain why a run has no scorer."""
    if default_features(config.dataset) == "none":
        small = "" if count_channels(config.dataset) == 1 else "--features objects scores it, or "
        what = f"{config.dataset} has no classifier of its own"
        return f"{what}; {small}--inception-weights PATH scores it with Inception"
    return "scoring.features is none"


# A worker serves many runs of the same grid; they share a data set and a scorer.
@functools.lru_cache(maxsize=2)
def _load_dataset_once(
    name: str,
    image_size: int,
    data_dir: str,
    folder: str | None,
    out: str,
    holdout: tuple[str, Path] | None,
    fit: Fit,
) -> ImageDataset:
    place = None if folder is None else Path(folder)
    return load_dataset(name, image_size, Path(data_dir), place, Store(Path(out)).cache_dir, holdout, fit)


@functools.lru_cache(maxsize=2)
def _build_scorer_once(
    dataset: ImageDataset,
    features: Literal["digits", "fashion", "objects", "inception"] | UserExtractor,
    inception_weights: str | None,
    device: torch.device,
    out: str,
) -> Scorer:
    weights = None if inception_weights is None else Path(inception_weights)
    extractor = build_extractor(features, device, weights, dataset.reference, dataset.name)
    return Scorer(dataset, extractor, Store(Path(out)).cache_dir, *list_user_caches(device, extractor))


@functools.lru_cache(maxsize=8)
def score_floor(scorer: Scorer, num_samples: int) -> Scores:
    """Return the scores of as many real training images."""
    return scorer.floor(num_samples)
