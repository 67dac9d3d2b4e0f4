"""The data sets that there are by name, and which extractor judges which."""

from __future__ import annotations

from typing import Literal

DATASETS: dict[str, str] = {
    "mnist-10k": "10,000 MNIST digits, embedded in the package: needs no network (the default)",
    "mnist": "60,000 MNIST digits, through torchvision",
    "fashion-mnist": "60,000 grey pictures of garments, through torchvision",
    "cifar10": "50,000 colour pictures of ten kinds of things, through torchvision",
    "folder:PATH": "every image below PATH, resized and centre-cropped, in colour",
}

NUM_TRAINING_IMAGES = {"mnist-10k": 10_000, "mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000}

FeatureKind = Literal["digits", "fashion", "inception", "none"]
_FEATURES: dict[str, FeatureKind] = {"mnist-10k": "digits", "mnist": "digits", "fashion-mnist": "fashion"}

NUM_FEATURES: dict[FeatureKind, int] = {"digits": 64, "fashion": 64, "inception": 2048}

MIN_SAMPLES: dict[FeatureKind, int] = {"digits": 20 * 64, "fashion": 20 * 64, "inception": 2 * 2048, "none": 2}
"""Fewest images that are scored: a covariance needs many more than features. Inception cannot afford twenty times."""


MIN_REFERENCE = 6
"""Fewest held-out images that anything is compared with: a ball reaches its image's fifth nearest neighbour."""


def default_features(dataset: str) -> FeatureKind:
    """The extractor that suits a data set, without weights from elsewhere: colour images have none."""
    return _FEATURES.get(dataset, "none")


def count_channels(dataset: str) -> int:
    """Count the colour channels of a data set's images: 1 for the grey ones, 3 for the others."""
    return 1 if default_features(dataset) != "none" else 3
