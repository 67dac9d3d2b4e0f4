"""A generator in, its scores out: images, then features, then FID, KID and the classes covered.

Distances are computed by torchmetrics in float64, on features that are extracted once.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from gan_ablate.features import EXTRACTION_BATCH
from gan_ablate.seeding import SCORING_SEED, stream_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gan_ablate.data import ImageDataset
    from gan_ablate.features import FeatureExtractor

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1_000
"""The KID paper's protocol (arXiv:1801.01401, section 4)."""

COVERED_SHARE = 0.01
"""A class counts as covered from this share of the samples on: a tenth of its even share of ten."""


class NonFiniteImagesError(Exception):
    """A generator drew a pixel that is not a number: there is nothing to score."""


@dataclass(frozen=True)
class Scores:
    """How near ``num_samples`` images are to the held-out reference.

    Attributes:
        fid: Fréchet distance of the features (arXiv:1706.08500, equation 6); lower is better.
        kid: squared maximum mean discrepancy of the features under a cubic kernel, mean over subsets
            (arXiv:1801.01401); lower is better.
        class_counts: how many images fall into each class by the classifier, or None where it has none.
        num_samples: how many images were scored.
    """

    fid: float
    kid: float
    class_counts: tuple[int, ...] | None
    num_samples: int

    @property
    def classes_covered(self) -> int | None:
        """How many classes hold at least ``COVERED_SHARE`` of the images."""
        if self.class_counts is None:
            return None
        return sum(count >= COVERED_SHARE * self.num_samples for count in self.class_counts)


class Scorer:
    """Scores against one data set's held-out images with one extractor, both prepared once.

    Args:
        dataset: whose reference to compare with.
        extractor: what turns images into features.
        device: where generators draw.

    Attributes:
        extractor: as given.
        num_reference: how many held-out images there are.
    """

    def __init__(self, dataset: ImageDataset, extractor: FeatureExtractor, device: torch.device) -> None:
        self.extractor = extractor
        self.num_reference = len(dataset.reference)
        self._device = device
        self._real_images = dataset.images
        self._reference = extractor(dataset.reference).vectors

    def score(self, generator: nn.Module, latent_dim: int, num_samples: int) -> Scores:
        """Score a generator, batch norm using its running averages.

        Args:
            generator: left as it was.
            latent_dim: size of its latents.
            num_samples: how many images to draw, the same latents in every run.

        Raises:
            NonFiniteImagesError: if a pixel is NaN or infinite.
        """
        return self._compare(sample_images(generator, scoring_latents(num_samples, latent_dim), self._device))

    def fid(self, generator: nn.Module, latent_dim: int, num_samples: int, *, batch_stats: bool = False) -> float:
        """Return the FID alone; see ``score``.

        Args:
            generator: left as it was.
            latent_dim: size of its latents.
            num_samples: how many images to draw.
            batch_stats: let batch norm use each batch's own statistics instead of its running averages.
        """
        latents = scoring_latents(num_samples, latent_dim)
        images = sample_images(generator, latents, self._device, batch_stats=batch_stats)
        return frechet_distance(self._reference, self.extractor(images).vectors)

    def floor(self, num_samples: int) -> Scores:
        """Score real training images, at the resolution of training: what a perfect generator would get.

        Args:
            num_samples: how many to take; fewer where the data set has fewer, which the result says.
        """
        stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "floor"))
        return self._compare(self._real_images[torch.randperm(len(self._real_images), generator=stream)[:num_samples]])

    def _compare(self, images: Tensor) -> Scores:
        features = self.extractor(images)
        counts = None
        if features.logits is not None:
            num_classes = features.logits.shape[1]
            counts = tuple(features.logits.argmax(1).bincount(minlength=num_classes).tolist())
        return Scores(
            fid=frechet_distance(self._reference, features.vectors),
            kid=kernel_distance(self._reference, features.vectors),
            class_counts=counts,
            num_samples=len(images),
        )


def scoring_latents(num: int, latent_dim: int) -> Tensor:
    """Draw the latents that every run is judged on: (num, latent_dim) float32, the same every time."""
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "latent"))
    return torch.randn((num, latent_dim), generator=stream)


@torch.inference_mode()
def sample_images(generator: nn.Module, latents: Tensor, device: torch.device, *, batch_stats: bool = False) -> Tensor:
    """Draw images as a saved picture would hold them.

    Args:
        generator: left as it was.
        latents: (N, latent_dim) float32.
        device: where the generator lies.
        batch_stats: let batch norm use each batch's own statistics instead of its running averages.

    Returns:
        (N, C, S, S) uint8.

    Raises:
        NonFiniteImagesError: if a pixel is NaN or infinite.
    """
    with _as_it_was(generator):
        generator.train(batch_stats)
        # In equal parts: batch statistics of a small remainder would be other ones.
        parts = latents.tensor_split(-(-len(latents) // EXTRACTION_BATCH))
        return torch.cat([quantise(generator(z.to(device))).cpu() for z in parts])


def quantise(x: Tensor) -> Tensor:
    """Scale [-1, 1] to 0…255, round, clamp and convert to uint8.

    Raises:
        NonFiniteImagesError: if a value is NaN or infinite, which a conversion would turn into an ordinary pixel.
    """
    if not x.isfinite().all():
        raise NonFiniteImagesError
    return ((x + 1) * 127.5).round_().clamp_(0, 255).byte()


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """FID of two sets of feature vectors, (N, D) and (M, D)."""
    metric = FrechetInceptionDistance(feature=_Identity(real.shape[1]))
    metric.set_dtype(torch.float64)
    for vectors, is_real in ((real, True), (fake, False)):
        metric.update(vectors.double(), real=is_real)
    return float(metric.compute())


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """KID of two sets of feature vectors, (N, D) and (M, D): the mean over ``KID_SUBSETS`` subsets, always the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all extracted features")
        metric = KernelInceptionDistance(
            feature=_Identity(real.shape[1]),
            subsets=KID_SUBSETS,
            subset_size=min(KID_SUBSET_SIZE, len(real), len(fake)),
        )
    for vectors, is_real in ((real, True), (fake, False)):
        metric.update(vectors.double(), real=is_real)
    # torchmetrics draws the subsets from PyTorch's global CPU stream, which is training's (dropout).
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(SCORING_SEED, "KID subsets"))
        mean, _ = metric.compute()
    return float(mean)


class _Identity(nn.Module):
    """Stands where torchmetrics would put a network: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors


@contextmanager
def _as_it_was(network: nn.Module) -> Iterator[None]:
    """Restore mode and buffers: batch norm in train mode would move its running averages."""
    was_training = network.training
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        network.train(was_training)
        for buffer, value in buffers:
            buffer.copy_(value)
