"""The scorer: sample a generator, extract features and compare them with those of real images."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
import torchmetrics
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from gan_ablate.atomic_io import read_sealed, user_cache, write_sealed
from gan_ablate.scoring import extractors, metrics
from gan_ablate.scoring.extractors import EXTRACTION_BATCH, Features
from gan_ablate.scoring.metrics import (
    NUM_NEIGHBOURS,
    KernelDistance,
    Manifold,
    build_manifold,
    classifier_score,
    frechet_distance,
    frechet_distance_at_infinity,
    frechet_sampling_error,
    kernel_distance,
    kernel_distance_of_few,
    nearest_distance,
    neighbour_scores,
)
from gan_ablate.scoring.scores import Scores
from gan_ablate.seeding import SCORING_SEED, stream_seed
from gan_ablate.training.data import ask_for, resize, sample_latents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType

    from gan_ablate.design.config import RunConfig
    from gan_ablate.scoring.extractors import FeatureExtractor
    from gan_ablate.training.data import ImageDataset


NUM_SAMPLE_GRID_IMAGES = 64
"""Images on a sample grid, from the same latents in every run."""


_Kept = TypeVar("_Kept")


class NonFiniteImagesError(Exception):
    """A generator drew a pixel that is not a number: there is nothing to score."""


class Scorer:
    """Scores against one data set's held-out images with one extractor, both prepared once.

    Args:
        dataset: whose reference to compare with.
        extractor: what turns images into features.
        *caches: folders of real images' features and scores. The first that has them counts; those before it have
            them then, too.

    Attributes:
        extractor: as given.
        num_reference: how many held-out images there are.
    """

    def __init__(self, dataset: ImageDataset, extractor: FeatureExtractor, *caches: Path) -> None:
        self.extractor = extractor
        self.num_reference = len(dataset.reference)
        self._real_images = dataset.images
        self._caches, self._key = caches, _key(dataset, extractor)
        self._real = load_real_features(dataset, extractor, *caches)

    def score(self, images: Tensor, classes: Tensor | None = None, *, has_time: bool = False) -> Scores:
        """Score images.

        Args:
            images: (N, C, S, S) uint8, as ``sample_images`` draws them.
            classes: (N,) int64 the classes that they were asked to be of, if any were.
            has_time: whether FID is extrapolated also with a slow extractor: 2,048 features take a minute.
        """
        started = time.perf_counter()
        features = self.extractor(images)
        ratio = None
        if self._real.training is not None and self._real.nearest_held_out:
            nearest = nearest_distance(features.vectors[:NEAREST_SAMPLES], self._real.training.vectors)
            ratio = nearest / self._real.nearest_held_out
        return self._compare(features, ratio, started, classes, has_time=has_time)

    def score_few(self, images: Tensor) -> KernelDistance:
        """Score fewer images than FID needs; see ``score``."""
        return kernel_distance_of_few(self._real.manifold.vectors, self.extractor(images).vectors)

    def fid(self, images: Tensor) -> float:
        """Return the FID alone; see ``score``."""
        return frechet_distance(self._real.reference, self.extractor(images).vectors)

    def floor(self, num_samples: int, *, has_time: bool = False) -> Scores:
        """Score real training images, at the resolution of training: what a perfect generator would get.

        Args:
            num_samples: how many to take; fewer where the data set has fewer, which the result says.
            has_time: as for ``score``.
        """
        # Another machine's features, which a results folder may have brought, are not rounded as these.
        of = float(self._real.reference.double().sum())
        parts = {"features": [self._key, of], "num": num_samples, "has_time": has_time, "by": _scored_by()}
        return _take(
            f"{_hash(parts)}.scores",
            self._caches,
            lambda: self._score_real(num_samples, has_time=has_time),
            lambda scores: scores.model_dump_json().encode(),
            Scores.model_validate_json,
        )

    def _score_real(self, num_samples: int, *, has_time: bool) -> Scores:
        started = time.perf_counter()
        stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "floor"))
        chosen = torch.randperm(len(self._real_images), generator=stream)[:num_samples]
        known = self._real.training
        if known is None:
            features = self.extractor(self._real_images[chosen])
        else:
            features = Features(known.vectors[chosen], None if known.logits is None else known.logits[chosen])
        return self._compare(features, None, started, has_time=has_time)

    def _compare(
        self,
        features: Features,
        nearest_ratio: float | None,
        started: float,
        classes: Tensor | None = None,
        *,
        has_time: bool,
    ) -> Scores:
        vectors, logits = features.vectors, features.logits
        reference = self._real.reference
        neighbours = neighbour_scores(self._real.manifold, build_manifold(vectors[:NEIGHBOUR_SAMPLES]))
        fid = frechet_distance(reference, vectors)
        has_error = self.extractor.is_fast and fid > 0
        counts, accuracy, fid_infinity = None, None, None
        if self.extractor.is_fast or has_time:
            real = reference.double()
            fid_infinity = frechet_distance_at_infinity(real.mean(0), real.T.cov(), vectors)
        if logits is not None and classes is not None:
            accuracy = (logits.argmax(1) == classes).float().mean().item()
        if logits is not None:
            counts = tuple(logits.argmax(1).bincount(minlength=logits.shape[1]).tolist())
        return Scores(
            num_samples=len(vectors),
            fid=fid,
            fid_sampling_error=frechet_sampling_error(reference, vectors) if has_error else None,
            fid_infinity=fid_infinity,
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


def scoring_latents(
    config: RunConfig, num: int, labels: Tensor | None = None, purpose: str = "latent"
) -> tuple[Tensor, Tensor | None]:
    """Draw what every run is judged on, from the run's own distribution; the same every time.

    Args:
        config: the run.
        num: how many.
        labels: (N,) int64 classes of the training images, which a conditional run is asked for as often.
        purpose: names the random stream. Fewer latents of one stream are mostly the first of more.

    Returns:
        (num, num_inputs_g) float32, and the classes asked for, (num,) int64, or None.
    """
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, purpose))
    z = sample_latents(config, num, stream)
    if not config.conditional:
        return z, None
    assert labels is not None
    classes = labels.cpu()[torch.randint(len(labels), (num,), generator=stream)]
    return ask_for(config, z, classes), classes


def sample_grid_latents(config: RunConfig) -> Tensor:
    """Sample a sample grid's latents, (NUM_SAMPLE_GRID_IMAGES, num_inputs_g), with each class in turn."""
    unconditional = config.model_copy(update={"conditional": False})
    z, _ = scoring_latents(unconditional, NUM_SAMPLE_GRID_IMAGES)
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


def list_user_caches(device: torch.device, extractor: FeatureExtractor | None = None) -> list[Path]:
    """List the user's folder of real images' features for a kind of device; none where the user has no home.

    Others round features differently: a GPU of another name, or a processor with other instructions. A user's
    extractor has none either: its features may depend on more than its checksum tells.
    """
    if isinstance(extractor, extractors.UserFeatureExtractor):
        return []
    user = user_cache()
    of_gpu = device.type == "cuda"
    kind = torch.cuda.get_device_name(device) if of_gpu else torch.backends.cpu.get_cpu_capability()
    return [] if user is None else [user / re.sub(r"\W+", "-", f"{device.type} {kind}".lower())]


def load_real_features(dataset: ImageDataset, extractor: FeatureExtractor, *caches: Path) -> RealFeatures:
    """Take the real images' features from a cache, or extract them and leave them there.

    The file's name is a hash of all that its numbers depend on. Workers that come at the same time never read half a
    file; one that is not what was written is made anew.

    Args:
        dataset: the images.
        extractor: the network.
        *caches: folders of such files, made where they are missing; see ``Scorer``. Without any, nothing is kept.
    """
    stored = _take(f"{_key(dataset, extractor)}.safetensors", caches, lambda: _extract(dataset, extractor), _pack, load)
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
    parts: dict[str, object] = {
        "layout": _LAYOUT,
        "data": dataset.sha256,
        "images": [list(dataset.images.shape), list(dataset.reference.shape)],
        "extractor": [extractor.name, extractor.sha256],
        "batch": EXTRACTION_BATCH,
        "neighbours": [NUM_NEIGHBOURS, NEIGHBOUR_SAMPLES, NEAREST_SAMPLES],
        # Another release may round a convolution differently, or resize an image.
        "torch": torch.__version__,
        "code": _hash_code(extractors),
    }
    return _hash(parts)


def _hash(parts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _scored_by() -> list[object]:
    """List what scores of the same features depend on: code and constants, and the release of torchmetrics."""
    return [_hash_code(metrics), metrics.KID_SUBSETS, torchmetrics.__version__]


@functools.cache
def _hash_code(module: ModuleType) -> str:
    """Hash the code of a module and of this one."""
    assert module.__file__ is not None
    return hashlib.sha256(Path(module.__file__).read_bytes() + Path(__file__).read_bytes()).hexdigest()


def _take(
    name: str,
    caches: Sequence[Path],
    make: Callable[[], _Kept],
    pack: Callable[[_Kept], bytes],
    unpack: Callable[[bytes], _Kept],
) -> _Kept:
    """Take what the first of some folders has under a name, or make it; leave it in those that were asked in vain."""
    for place, cache in enumerate(caches):
        with suppress(OSError, ValueError, SafetensorError):
            known = unpack(read_sealed(cache / name))
            lacking = caches[:place]
            break
    else:
        known, lacking = make(), caches
    for cache in lacking:
        with suppress(OSError):  # on a disk that takes no more, every worker makes it for itself
            write_sealed(cache / name, pack(known))
    for cache in caches:
        with suppress(OSError):  # it is in some of them only, or somebody else's
            os.utime(cache / name)  # it was used now
    if lacking and _FEATURES.fullmatch(name):
        _trim_user_cache(name)
    return known


USER_CACHE_BYTES = 2 * 2**30
"""The most that features take in the user's cache: Inception's of about 17 data sets."""
_FEATURES = re.compile(r"\.?[0-9a-f]{24}\.safetensors(\..*)?")  # the longer names are of writers that were killed


def _trim_user_cache(name: str) -> None:
    """Delete the features in the user's cache that were used longest ago, until the rest has its size.

    Args:
        name: of features that stay.
    """
    cache, found = user_cache(), list[tuple[int, int, Path]]()
    for path in [] if cache is None else [*cache.glob("*"), *cache.glob("c*-*/*")]:  # an older version had no folders
        with suppress(OSError):
            if _FEATURES.fullmatch(path.name) and path.name != name:
                found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    left = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if left > USER_CACHE_BYTES:
            with suppress(OSError):  # somebody else's
                path.unlink()
                left -= size


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


def _pack(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})
