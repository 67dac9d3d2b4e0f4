"""Scores of external images: compare sets with held-out images, and describe what is odd about a set."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from gan_ablate.atomic_io import user_cache
from gan_ablate.design.datasets import (
    ARRAY_PREFIX,
    DATASETS,
    IMAGES_PER_FEATURE,
    MIN_SAMPLES,
    PREFIX,
    KnownFolders,
    count_channels,
    default_features,
)
from gan_ablate.design.resolve import describe_reference
from gan_ablate.design.run_fields import Features, Scoring
from gan_ablate.design.user_code import UserCode, read_features
from gan_ablate.design.validation import Model, choices, shorten, validate
from gan_ablate.errors import UserError, option
from gan_ablate.scoring.extractors import build_extractor
from gan_ablate.scoring.image_sets import ImageSet, read_set
from gan_ablate.scoring.oddities import describe_copies, describe_range, find_grid
from gan_ablate.scoring.scorer import Scorer, list_user_caches
from gan_ablate.scoring.scores import Scores
from gan_ablate.training.data import ImageDataset, load_dataset
from gan_ablate.training.runtime import find_device
from gan_ablate.training.user_code import allow_code as run_code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_ablate.design.datasets import Fit
    from gan_ablate.scoring.image_sets import Images


class ImageScores(Scores):
    """What a set of images scores, and what as many real training images of the same size do.

    Attributes:
        floor: of the real ones.
        image_size: side of the images, in pixels.
        num_images: how many there were; ``num_samples`` of them were scored.
        notes: what was made of the images before they were scored, and what is odd about them.
    """

    floor: Scores
    image_size: int
    num_images: int
    notes: tuple[str, ...]

    def as_row(self) -> dict[str, float | int | None]:
        """Return every score of the images under its name, for a row of a table."""
        others = ("floor", "image_size", "num_images", "notes")
        return {name: value for name, value in super().as_row().items() if name not in others}


class FewImageScores(Model):
    """The KID of a set with fewer images than FID needs. Other scores depend on how many images there are.

    Attributes:
        fid: None, as there are too few images.
        fid_sampling_error: None, too.
        num_samples: how many images were scored.
        kid: squared maximum mean discrepancy, from all pairs of images; unbiased for any number.
        kid_low: the lower end of its 95 % interval of which images were drawn.
        kid_high: the upper end.
        floor: the scores of real training images, of as many as FID needs.
        image_size: side of the images, in pixels.
        num_images: how many there were.
        notes: what was made of the images before they were scored, and what is odd about them.
    """

    fid: None = None
    fid_sampling_error: None = None
    num_samples: int
    kid: float
    kid_low: float
    kid_high: float
    floor: Scores
    image_size: int
    num_images: int
    notes: tuple[str, ...]

    def as_row(self) -> dict[str, float | int | None]:
        """Return every score under its name, for a row of a table."""
        return {"num_samples": self.num_samples, "kid": self.kid, "kid_low": self.kid_low, "kid_high": self.kid_high}


class SetScorer:
    """Scores sets of images against one data set's held-out images.

    Args:
        dataset: by name, ``folder:PATH`` or ``array:PATH``.
        data_dir: where torchvision's data sets lie or are downloaded to.
        holdout: held-out images to compare with, as for ``score_images``.
        fit: how a folder's pictures become squares, as for ``score_images``.
        features: the extractor instead of the data set's own classifier, as for ``score_images``.
        inception_weights: a copy of Inception's weights (implies ``features="inception"``).
        device: ``cpu``, ``cuda``…, which extracts features.
        out: a results folder whose cache keeps the real images' features; by default the user's own cache does.
        allow_code: whether an extractor of yours may be run.

    Attributes:
        kind: the extractor.
        notes: what is to be known of the data set.

    Raises:
        UserError: if the data set, the extractor or the device cannot be had.
    """

    def __init__(
        self,
        dataset: str = "mnist-10k",
        *,
        data_dir: str | Path = "data",
        holdout: str | None = None,
        fit: Fit = "crop",
        features: str | Mapping[str, Any] | None = None,
        inception_weights: str | Path | None = None,
        device: str = "cpu",
        out: str | Path | None = None,
        allow_code: bool = False,
    ) -> None:
        self._device = find_device(device)
        folders = KnownFolders()
        if dataset.startswith((PREFIX, ARRAY_PREFIX)):
            dataset = folders.name(dataset, option("dataset"))
        elif dataset not in DATASETS:
            raise UserError(f"{option('dataset', shorten(dataset))}: {choices(dataset, list(DATASETS))}")
        kind = choose_extractor(features if inception_weights is None else "inception", dataset, allow_code=allow_code)
        if kind == "none":
            advice = (
                f"{option('features', 'inception')} (downloads 95 MB), {option('inception_weights', 'PATH')} or "
                f"{option('features', 'MODULE:NAME')}, an extractor of yours"
            )
            what = f"{option('dataset', shorten(dataset))}: no classifier of it is shipped"
            raise UserError(f"{what}; valid: {advice}")
        self._holdout: tuple[str, Path] | None = None
        if holdout is not None:
            if dataset not in folders.paths:
                advice = f"valid: with {PREFIX}PATH or {ARRAY_PREFIX}PATH"
                raise UserError(f"{option('holdout', holdout)}: {dataset} has held-out images of its own; {advice}")
            held_out = folders.name(holdout, option("holdout"))
            self._holdout = held_out, Path(folders.paths[held_out])
        if fit != "crop" and not (dataset.startswith(PREFIX) or (holdout or "").startswith(PREFIX)):
            raise UserError(f"{option('fit', fit)}: all images of {dataset} are squares; valid: with {PREFIX}PATH")
        self._fit: Fit = fit
        few = describe_reference(dataset, kind, folders, "" if self._holdout is None else self._holdout[0])
        self.notes = (*folders.notes, *([few] if few else []))
        self.kind: Features = kind
        self._dataset, self._data_dir = dataset, Path(data_dir)
        place = folders.paths.get(dataset)
        self._place = None if place is None else Path(place)
        self._weights = None if inception_weights is None else Path(inception_weights)
        self._of_results = None if out is None else Path(out) / "cache"
        self._prepared: dict[int, tuple[ImageDataset, Scorer]] = {}
        self._floors: dict[tuple[int, int], Scores] = {}

    def read(self, images: Images) -> ImageSet:
        """Read a set; see ``score_images``.

        Raises:
            UserError: if it cannot be read, or holds too few images.
        """
        found = read_set(images, num_channels=count_channels(self._dataset))
        if len(found.images) < MIN_FOR_KID:
            counted = f"{found.source}: {len(found.images):,} image{'' if len(found.images) == 1 else 's'}"
            raise UserError(f"{counted}; valid: at least {MIN_FOR_KID:,}")
        return found

    def score(self, found: ImageSet, num_samples: int | None = None) -> ImageScores | FewImageScores:
        """Score a set; where it has fewer images than FID needs, by KID alone.

        Args:
            found: from ``read``.
            num_samples: how many of its images, by default all. Which ones does not depend on their order.

        Raises:
            UserError: if the data set or the extractor cannot be had, or each picture holds many samples.
        """
        data, scorer = self._prepare(found.images.shape[-1])
        chosen, least = found.images[:num_samples], self._least(scorer)
        num_compared = len(chosen) if isinstance(self.kind, str) else min(len(chosen), scorer.num_reference)
        if num_compared < least:
            what = "images" if num_compared == len(chosen) else "held-out images"
            need = f"fewer than the {least:,} that FID needs for {scorer.extractor.num_features:,} features"
            few = f"{num_compared:,} {what}, {need}: KID alone, with its 95 % interval of which images were drawn"
            scored = self.score_few(found, num_samples)
            return scored.model_copy(update={"notes": (*scored.notes, few)})
        notes = _describe(found, data, scorer)
        scores = scorer.score(chosen, has_time=True)
        equal = "FID is 0 within rounding: these are the held-out images themselves" if scores.fid == 0 else ""
        return ImageScores(
            **dict(scores),
            floor=self._floor(found, len(chosen)),
            image_size=found.images.shape[-1],
            num_images=len(found.images),
            notes=(*notes, *([equal] if equal else [])),
        )

    def score_few(self, found: ImageSet, num_samples: int | None = None) -> FewImageScores:
        """Score a set by KID alone; see ``score``."""
        data, scorer = self._prepare(found.images.shape[-1])
        chosen = found.images[:num_samples]
        notes, kernel = _describe(found, data, scorer), scorer.score_few(chosen)
        return FewImageScores(
            num_samples=len(chosen),
            kid=kernel.kid,
            kid_low=kernel.low,
            kid_high=kernel.high,
            floor=self._floor(found, max(len(chosen), self._least(scorer))),
            image_size=found.images.shape[-1],
            num_images=len(found.images),
            notes=notes,
        )

    def _floor(self, found: ImageSet, num: int) -> Scores:
        """Return what so many real images of a set's size score, computed once: with Inception it takes minutes."""
        size = found.images.shape[-1]
        if (size, num) not in self._floors:
            self._floors[size, num] = self._prepare(size)[1].floor(num, has_time=True)
        return self._floors[size, num]

    def _least(self, scorer: Scorer) -> int:
        """Return the fewest images that have a FID."""
        if isinstance(self.kind, str):
            return MIN_SAMPLES[self.kind]
        return IMAGES_PER_FEATURE * scorer.extractor.num_features

    def _prepare(self, size: int) -> tuple[ImageDataset, Scorer]:
        """Load the data set at a size, and what scores against it, once."""
        if size not in self._prepared:
            cache = self._of_results or user_cache()
            data = load_dataset(self._dataset, size, self._data_dir, self._place, cache, self._holdout, self._fit)
            assert self.kind != "none"
            extractor = build_extractor(self.kind, self._device, self._weights, data.reference, data.name)
            caches = [self._of_results] if self._of_results else list_user_caches(self._device, extractor)
            self._prepared = {size: (data, Scorer(data, extractor, *caches))}
        return self._prepared[size]


MIN_FOR_KID = 200
"""Fewest images that are scored. KID is unbiased for any number, but its interval is a normal one."""


def _describe(found: ImageSet, data: ImageDataset, scorer: Scorer) -> tuple[str, ...]:
    """Return what is odd about a set.

    Raises:
        UserError: if each picture holds many samples.
    """
    grid, size = find_grid(found.images, data.reference, scorer.extractor), found.images.shape[-1]
    if grid is not None:
        what = f"each picture is a grid of {grid.num}×{grid.num} samples of {grid.side}×{grid.side} pixels"
        raise UserError(f"{found.source}: {size}×{size} pixels: {what}; valid: one image a picture")
    odd = (describe_copies(found.images), describe_range(found.images, data.images))
    return (*found.notes, *(note for note in odd if note))


def choose_extractor(features: str | Mapping[str, Any] | None, dataset: str | None, *, allow_code: bool) -> Features:
    """Choose an extractor, and allow this process to run it if it is a user's.

    Args:
        features: as for ``score_images``.
        dataset: which it is to suit, if any.
        allow_code: whether a user's may be run.

    Raises:
        UserError: if there is none of that name or in that place, or a user's code is not allowed.
    """
    source = option("features")
    code = UserCode(Path.cwd(), is_allowed=allow_code)
    given = read_features(features) if isinstance(features, str) else None if features is None else dict(features)
    default = "none" if dataset is None else default_features(dataset)
    data = {"features": default if given is None else code.complete_extractor(given, source)}
    kind = validate(Scoring, data, source).features
    if dataset is not None and kind in ("digits", "fashion") and kind != default:
        raise UserError(f"{option('features', kind)}: it cannot judge {dataset}; valid: inception, or one of yours")
    if dataset is not None and kind == "objects" and count_channels(dataset) == 1:
        raise UserError(f"{option('features', kind)}: it takes colour images, and {dataset} is grey; valid: inception")
    run_code(code.paths)
    return kind


def score_images(
    images: Images,
    dataset: str = "mnist-10k",
    *,
    num_samples: int | None = None,
    data_dir: str | Path = "data",
    holdout: str | None = None,
    fit: Fit = "crop",
    features: str | Mapping[str, Any] | None = None,
    inception_weights: str | Path | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    allow_code: bool = False,
) -> ImageScores:
    """Score images that any program drew against a data set's held-out images, as runs are scored.

    The order of the images does not matter. What is odd about them, or was made of them, is a warning, and in
    ``.notes`` of the result.

    >>> import numpy as np
    >>> from gan_ablate import score_images
    >>> noise = np.random.default_rng(0).integers(0, 256, size=(1_280, 28, 28), dtype=np.uint8)
    >>> scores = score_images(noise, "mnist-10k")
    >>> scores.fid > scores.floor.fid
    True

    Args:
        images: an array or tensor, uint8, (N, H, W), (N, H, W, C) or (N, C, H, W) with one channel or three and
            H = W; or the path of a folder of pictures, one a file, or of a ``.npy`` or ``.npz`` file with such an
            array. Colour is made grey where the data set is grey, and the other way round. Pictures are turned
            upright as EXIF says, transparent pixels laid on white, and 16 bits scaled to 8.
        dataset: by name, ``folder:PATH`` or ``array:PATH``.
        num_samples: score so many of the images, by default all: FIDs compare where their numbers are the same.
        data_dir: where torchvision's data sets lie or are downloaded to.
        holdout: held-out images to compare with, ``folder:PATH`` or ``array:PATH``, instead of a sixth of those of a
            folder or an array.
        fit: how a folder's pictures become squares: ``"crop"``, the centre of each, or ``"pad"``, all of it on black.
        features: the extractor instead of the data set's own classifier, which not all have. ``"inception"``, or
            yours as ``"MODULE:NAME"`` or ``"FILE.pt"``, or as a grid file has it:
            ``{"kind": "module", "path": "mine:embed", "size": 224}``.
        inception_weights: a copy of Inception's weights (implies ``features="inception"``).
        device: ``cpu``, ``cuda``…, which extracts features.
        out: a results folder whose cache keeps the real images' features; by default the user's own cache does.
        allow_code: whether an extractor of yours may be run.

    Returns:
        The scores, such as ``.fid``, ``.kid``, ``.recall``, and ``.floor``.

    Raises:
        UserError: if images or data cannot be read or do not go together, or there are too few.
    """
    scorer = SetScorer(
        dataset,
        data_dir=data_dir,
        holdout=holdout,
        fit=fit,
        features=features,
        inception_weights=inception_weights,
        device=device,
        out=out,
        allow_code=allow_code,
    )
    found = scorer.read(images)
    least = MIN_SAMPLES[scorer.kind] if isinstance(scorer.kind, str) else MIN_FOR_KID
    if num_samples is not None and not least <= num_samples <= len(found.images):
        raise UserError(
            f"num_samples {num_samples}: valid: from {least:,} to the {len(found.images):,} images there are"
        )
    scores = scorer.score(found, num_samples)
    if isinstance(scores, FewImageScores):
        raise UserError(f"{found.source}: {scores.notes[-1]}, by score_few_images")
    for note in (*scorer.notes, *scores.notes):
        warnings.warn(f"{found.source}: {note}", stacklevel=2)
    return scores


class SetOptions(TypedDict, total=False):
    """How sets of images are scored: keywords that ``score_few_images`` shares with ``score_images``, which see.

    Attributes:
        data_dir: where torchvision's data sets lie or are downloaded to.
        holdout: held-out images to compare with.
        fit: how a folder's pictures become squares.
        features: the extractor instead of the data set's own classifier.
        inception_weights: a copy of Inception's weights.
        device: ``cpu``, ``cuda``…, which extracts features.
        out: a results folder whose cache keeps the real images' features.
        allow_code: whether an extractor of yours may be run.
    """

    data_dir: str | Path
    holdout: str | None
    fit: Fit
    features: str | Mapping[str, Any] | None
    inception_weights: str | Path | None
    device: str
    out: str | Path | None
    allow_code: bool


def score_few_images(images: Images, dataset: str = "mnist-10k", **options: Unpack[SetOptions]) -> FewImageScores:
    """Score fewer images than FID needs, 200 or more, by KID with its interval.

    >>> import numpy as np
    >>> from gan_ablate import score_few_images
    >>> noise = np.random.default_rng(0).integers(0, 256, size=(200, 28, 28), dtype=np.uint8)
    >>> scores = score_few_images(noise, "mnist-10k")
    >>> scores.kid_low < scores.kid < scores.kid_high
    True

    Args:
        images: as for ``score_images``.
        dataset: by name, or ``folder:PATH``.
        **options: how they are scored, see ``SetOptions``.

    Raises:
        UserError: if images or data cannot be read or do not go together, or there are fewer than 200.
    """
    scorer = SetScorer(dataset, **options)
    found = scorer.read(images)
    scores = scorer.score_few(found)
    for note in (*scorer.notes, *scores.notes):
        warnings.warn(f"{found.source}: {note}", stacklevel=2)
    return scores
