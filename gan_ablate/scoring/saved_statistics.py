"""Scores against saved statistics: the FID of external images to the mean and covariance of somebody's features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gan_ablate.design.datasets import IMAGES_PER_FEATURE, MIN_SAMPLES
from gan_ablate.design.validation import Model
from gan_ablate.errors import UserError, option
from gan_ablate.scoring.extractors import build_extractor
from gan_ablate.scoring.image_scores import choose_extractor
from gan_ablate.scoring.image_sets import read_set
from gan_ablate.scoring.metrics import frechet_distance_at_infinity, frechet_distance_to
from gan_ablate.training.runtime import find_device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gan_ablate.scoring.image_sets import Images


class StatisticsScores(Model):
    """The FID of a set of images to the mean and covariance of somebody's features.

    Attributes:
        fid: Fréchet distance.
        fid_infinity: the same, extrapolated to infinitely many images; None with fewer than four for each feature.
        num_samples: how many images were scored: all.
        extractor: the extractor's name.
        notes: what was made of the images before they were scored.
    """

    fid: float
    fid_infinity: float | None
    num_samples: int
    extractor: str
    notes: tuple[str, ...]


def score_against_statistics(
    images: Images,
    statistics: str | Path,
    features: str | Mapping[str, Any] = "inception",
    *,
    inception_weights: str | Path | None = None,
    device: str = "cpu",
    allow_code: bool = False,
) -> StatisticsScores:
    """Score images by their FID to saved statistics, as papers publish them.

    Whether the statistics are of the same extractor and preprocessing, no file says; only D is checked.

    >>> import numpy as np
    >>> from gan_ablate import score_against_statistics
    >>> np.savez("statistics.npz", mu=np.zeros(64), sigma=np.eye(64))
    >>> noise = np.random.default_rng(0).integers(0, 256, size=(1_280, 28, 28), dtype=np.uint8)
    >>> score_against_statistics(noise, "statistics.npz", "digits").fid > 0
    True

    Args:
        images: as for ``score_images``; grey images become colour, but for the grey classifiers.
        statistics: an ``.npz`` file with ``mu``, (D,), and ``sigma``, (D, D).
        features: the extractor that the statistics are of, as for ``score_images``.
        inception_weights: a copy of Inception's weights.
        device: ``cpu``, ``cuda``…, which extracts features.
        allow_code: whether an extractor of yours may be run.

    Raises:
        UserError: if a file cannot be read, there are too few images, or the numbers of features differ.
    """
    mean, covariance = _read_statistics(Path(statistics))
    kind = choose_extractor(features, None, allow_code=allow_code)
    if kind == "none":
        raise UserError(f"{option('features', 'none')}: valid: the extractor that {statistics} is of")
    found = read_set(images, num_channels=1 if kind in ("digits", "fashion") else 3)
    weights = None if inception_weights is None else Path(inception_weights)
    extractor = build_extractor(kind, find_device(device), weights, found.images)
    if extractor.num_features != len(mean):
        has = f"{len(mean):,} features, and {extractor.name} has {extractor.num_features:,}"
        raise UserError(f"{statistics}: statistics of {has}; valid: the extractor that they are of")
    least = MIN_SAMPLES[kind] if isinstance(kind, str) else IMAGES_PER_FEATURE * extractor.num_features
    if len(found.images) < least:
        raise UserError(f"{found.source}: {len(found.images):,} images; valid: at least {least:,}, which FID needs")
    vectors = extractor(found.images).vectors
    return StatisticsScores(
        fid=frechet_distance_to(mean, covariance, vectors),
        fid_infinity=frechet_distance_at_infinity(mean, covariance, vectors),
        num_samples=len(found.images),
        extractor=extractor.name,
        notes=found.notes,
    )


def _read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Read mu and sigma from an ``.npz`` file, in float64."""
    advice = "valid: an .npz file with mu, (D,), and sigma, (D, D)"
    try:
        with np.load(path, allow_pickle=False) as stored:
            mean, covariance = (np.asarray(stored[name], np.float64) for name in ("mu", "sigma"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {advice}") from None
    except Exception as broken:  # whatever NumPy raises on a foreign file
        reason = str(broken).strip().partition("\n")[0][:200]
        raise UserError(f"{path}: cannot be read ({reason}); {advice}") from None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(f"{path}: mu is {mean.shape} and sigma {covariance.shape}; {advice}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: mu or sigma is not finite; {advice}")
    return torch.from_numpy(mean), torch.from_numpy(covariance)
