"""Features of real images: compute what scores need of a data set, and cache it on disk."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gan_ablate.atomic_io import read_sealed, write_sealed
from gan_ablate.scoring.extractors import EXTRACTION_BATCH, Features
from gan_ablate.scoring.metrics import NUM_NEIGHBOURS, Manifold, build_manifold, nearest_distance
from gan_ablate.seeding import SCORING_SEED, stream_seed
from gan_ablate.training.data import resize

if TYPE_CHECKING:
    from pathlib import Path

    from gan_ablate.scoring.extractors import FeatureExtractor
    from gan_ablate.training.data import ImageDataset

NEIGHBOUR_SAMPLES = 5_000
"""Images of either kind in the scores that look at neighbours, whose cost grows with the square of their number."""

NEAREST_SAMPLES = 2_000
"""Images whose nearest training image is looked for: a median needs no more."""

_LAYOUT = 3
"""Raised when a cached file would be written otherwise, or hold other numbers, than before."""


@dataclass(frozen=True)
class RealFeatures:
    """What scores need of the real images.

    Attributes:
        reference: (M, D) float32, features of the held-out images.
        manifold: of at most ``NEIGHBOUR_SAMPLES`` of them, chosen at random, the same ones every time.
        training: features of all training images at the resolution of training, or None where the extractor is too
            slow to look at them all.
        nearest_held_out: median distance of held-out images to the nearest training image, or None where ``training``
            is None.
    """

    reference: Tensor
    manifold: Manifold
    training: Features | None
    nearest_held_out: float | None


def load_real_features(dataset: ImageDataset, extractor: FeatureExtractor, cache: Path | None) -> RealFeatures:
    """Take the real images' features from the cache, or extract them and leave them there.

    The file's name is a hash of all that its numbers depend on. Workers that come at the same time never read half a
    file; one that is not what was written is made anew.

    Args:
        dataset: the images.
        extractor: the network.
        cache: the folder of such files, made where it is missing; None to keep nothing.
    """
    path = None if cache is None else cache / f"{_key(dataset, extractor)}.safetensors"
    stored = None if path is None else _read(path)
    if stored is None:
        stored = _extract(dataset, extractor)
        if path is not None:
            _write(path, stored)
    training = None
    if "training" in stored:
        training = Features(stored["training"], stored.get("training_logits"))
    return RealFeatures(
        reference=stored["reference"],
        manifold=Manifold(stored["manifold"], stored["squared_radii"]),
        training=training,
        nearest_held_out=float(stored["nearest_held_out"]) if "nearest_held_out" in stored else None,
    )


def _key(dataset: ImageDataset, extractor: FeatureExtractor) -> str:
    parts = {
        "layout": _LAYOUT,
        "data": dataset.sha256,
        "images": [list(dataset.images.shape), list(dataset.reference.shape)],
        "extractor": [extractor.name, extractor.sha256],
        "batch": EXTRACTION_BATCH,
        "neighbours": [NUM_NEIGHBOURS, NEIGHBOUR_SAMPLES, NEAREST_SAMPLES],
        # Another release may round a convolution differently.
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _extract(dataset: ImageDataset, extractor: FeatureExtractor) -> dict[str, Tensor]:
    reference = extractor(dataset.reference).vectors
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "manifold"))
    chosen = torch.randperm(len(reference), generator=stream)
    manifold = build_manifold(reference[chosen[:NEIGHBOUR_SAMPLES]])
    stored = {"reference": reference, "manifold": manifold.vectors, "squared_radii": manifold.squared_radii}
    if extractor.is_fast:
        training = extractor(dataset.images)
        looked_at = chosen[:NEAREST_SAMPLES]
        held_out = reference[looked_at]
        if dataset.reference.shape[1:] != dataset.images.shape[1:]:
            # Through the same resizing as what they are compared with: it moves features.
            held_out = extractor(resize(dataset.reference[looked_at], dataset.images.shape[-1])).vectors
        nearest = nearest_distance(held_out, training.vectors)
        stored |= {"training": training.vectors, "nearest_held_out": torch.tensor(nearest, dtype=torch.float64)}
        if training.logits is not None:
            stored["training_logits"] = training.logits
    return stored


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        return load(read_sealed(path))
    except (OSError, ValueError, SafetensorError):
        return None


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    with suppress(OSError):  # on a disk that takes no more, every worker extracts them for itself
        write_sealed(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
