"""The scorer: sample a generator, round its images to 8 bits, extract features and compute scores."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gan_ablate.scoring.extractors import EXTRACTION_BATCH, Features
from gan_ablate.scoring.metrics import (
    build_manifold,
    classifier_score,
    frechet_distance,
    frechet_sampling_error,
    kernel_distance,
    nearest_distance,
    neighbour_scores,
)
from gan_ablate.scoring.real_features import NEAREST_SAMPLES, NEIGHBOUR_SAMPLES, load_real_features
from gan_ablate.scoring.scores import Scores
from gan_ablate.seeding import SCORING_SEED, stream_seed
from gan_ablate.training.latents import ask_for, draw_latents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gan_ablate.design.config import RunConfig
    from gan_ablate.scoring.extractors import FeatureExtractor
    from gan_ablate.training.data import ImageDataset


NUM_SHEET_IMAGES = 64
"""Images on a sample sheet, from the same latents in every run."""


class NonFiniteImagesError(Exception):
    """A generator drew a pixel that is not a number: there is nothing to score."""


class Scorer:
    """Scores against one data set's held-out images with one extractor, both prepared once.

    Args:
        dataset: whose reference to compare with.
        extractor: what turns images into features.
        cache: folder of the real images' features; None to keep none.

    Attributes:
        extractor: as given.
        num_reference: how many held-out images there are.
    """

    def __init__(self, dataset: ImageDataset, extractor: FeatureExtractor, cache: Path | None) -> None:
        self.extractor = extractor
        self.num_reference = len(dataset.reference)
        self._real_images = dataset.images
        self._real = load_real_features(dataset, extractor, cache)

    def score(self, images: Tensor, classes: Tensor | None = None) -> Scores:
        """Score images.

        Args:
            images: (N, C, S, S) uint8, as ``sample_images`` draws them.
            classes: (N,) int64 the classes that they were asked to be of, if any were.
        """
        started = time.perf_counter()
        features = self.extractor(images)
        ratio = None
        if self._real.training is not None and self._real.nearest_held_out:
            nearest = nearest_distance(features.vectors[:NEAREST_SAMPLES], self._real.training.vectors)
            ratio = nearest / self._real.nearest_held_out
        return self._compare(features, ratio, started, classes)

    def fid(self, images: Tensor) -> float:
        """Return the FID alone; see ``score``."""
        return frechet_distance(self._real.reference, self.extractor(images).vectors)

    def floor(self, num_samples: int) -> Scores:
        """Score real training images, at the resolution of training: what a perfect generator would get.

        Args:
            num_samples: how many to take; fewer where the data set has fewer, which the result says.
        """
        started = time.perf_counter()
        stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "floor"))
        chosen = torch.randperm(len(self._real_images), generator=stream)[:num_samples]
        known = self._real.training
        if known is None:
            features = self.extractor(self._real_images[chosen])
        else:
            features = Features(known.vectors[chosen], None if known.logits is None else known.logits[chosen])
        return self._compare(features, None, started)

    def _compare(
        self, features: Features, nearest_ratio: float | None, started: float, classes: Tensor | None = None
    ) -> Scores:
        vectors, logits = features.vectors, features.logits
        reference = self._real.reference
        neighbours = neighbour_scores(self._real.manifold, build_manifold(vectors[:NEIGHBOUR_SAMPLES]))
        fid = frechet_distance(reference, vectors)
        has_error = self.extractor.is_fast and fid > 0
        counts, accuracy = None, None
        if logits is not None and classes is not None:
            accuracy = (logits.argmax(1) == classes).float().mean().item()
        if logits is not None:
            counts = tuple(logits.argmax(1).bincount(minlength=logits.shape[1]).tolist())
        return Scores(
            num_samples=len(vectors),
            fid=fid,
            fid_sampling_error=frechet_sampling_error(reference, vectors) if has_error else None,
            kid=kernel_distance(reference, vectors),
            precision=neighbours.precision,
            recall=neighbours.recall,
            density=neighbours.density,
            coverage=neighbours.coverage,
            classifier_score=None if logits is None else classifier_score(logits),
            class_counts=counts,
            label_accuracy=accuracy,
            nearest_ratio=nearest_ratio,
            seconds=time.perf_counter() - started,
        )


def scoring_latents(config: RunConfig, num: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Draw what every run is judged on, from the run's own distribution; the same every time.

    Args:
        config: the run.
        num: how many.
        labels: (N,) int64 classes of the training images, which a conditional run is asked for as often.

    Returns:
        (num, num_inputs_g) float32, and the classes asked for, (num,) int64, or None.
    """
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "latent"))
    z = draw_latents(config, num, stream)
    if not config.conditional:
        return z, None
    assert labels is not None
    classes = labels.cpu()[torch.randint(len(labels), (num,), generator=stream)]
    return ask_for(config, z, classes), classes


def sheet_latents(config: RunConfig) -> Tensor:
    """Draw what a sample sheet shows, (NUM_SHEET_IMAGES, num_inputs_g); a conditional run draws each class in turn."""
    unconditional = config.model_copy(update={"conditional": False})
    z, _ = scoring_latents(unconditional, NUM_SHEET_IMAGES)
    return ask_for(config, z, torch.arange(len(z)) % config.num_classes) if config.num_classes else z


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
