"""Scores: the numbers of one set of images, as metrics give them and as records keep them."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from gan_ablate.design.validation import Model

COVERED_SHARE = 0.01
"""A class counts as covered from this share of the samples on: a tenth of its even share of ten."""

COLLAPSED_SHARE = 0.5
"""A generator has collapsed if its images are as diverse as fewer than this share of the classes, drawn evenly."""

COLLAPSED_RECALL = 0.05
"""Or if its images leave all but one in twenty real ones without one of their kind. In 98 runs of the report's grids,
recall is below 0.04 where one shape fills the sample grid, or a few, and above 0.1 where sample grids are varied."""


class ProbeScores(Model):
    """How well a linear classifier tells digits from so many labelled images, by what it is given; shares in [0, 1].

    Attributes:
        num_labels: labelled images that it learnt from.
        trained: accuracy on the features of the trained discriminator.
        untrained: on those of the same one before training.
        pixels: on the images themselves.
    """

    num_labels: int
    trained: float
    untrained: float
    pixels: float

    @property
    def gain(self) -> float:
        """What the trained one's features are better by than the better of the others."""
        return self.trained - max(self.untrained, self.pixels)


class RepresentationScores(Model):
    """What a trained pair has learnt besides drawing; see ``representation.py``.

    Attributes:
        probes: by the number of labelled images, ascending.
        arithmetic: share of latents, moved by the difference of two classes' means, of which G draws the other class;
            None where it draws fewer than two classes.
        arithmetic_shuffled: the same with means of latents whose classes were shuffled.
        filter_auc: mean over the filters of D's last map of how well each tells the class that it knows best.
        filter_auc_untrained: the same of the untrained discriminator.
    """

    probes: list[ProbeScores]
    arithmetic: float | None
    arithmetic_shuffled: float | None
    filter_auc: float
    filter_auc_untrained: float

    @property
    def arithmetic_gain(self) -> float | None:
        """What classes are worth to the arithmetic."""
        if self.arithmetic is None or self.arithmetic_shuffled is None:
            return None
        return self.arithmetic - self.arithmetic_shuffled

    @property
    def filter_gain(self) -> float:
        """What training is worth to single filters."""
        return self.filter_auc - self.filter_auc_untrained

    def probe_gain(self, num_labels: int) -> float | None:
        """What D's features are better by with so many labelled images, or None where that was not measured."""
        return next((probe.gain for probe in self.probes if probe.num_labels == num_labels), None)


class Scores(Model):
    """How near ``num_samples`` images are to the held-out reference; each formula stands in ``metrics.py``.

    Attributes:
        num_samples: how many images were scored.
        fid: Fréchet distance; lower is better.
        fid_sampling_error: standard error of log FID from the choice of images, or None for a slow extractor.
        fid_infinity: FID extrapolated to infinitely many images, or None with too few of them, and in runs with a slow
            extractor.
        kid: squared maximum mean discrepancy; lower is better.
        precision: share of the images that look real.
        recall: share of the real images that the generator could have drawn.
        density: precision that does not trust outliers; 1 for real images.
        coverage: recall that does not trust outliers.
        classifier_score: between 1 and the number of classes, or None where the extractor has none.
        class_counts: how many images fall into each class, or None where the extractor has no classes.
        label_accuracy: share of the images that the classifier takes for the class they were asked to be of, or None
            where none was asked for.
        nearest_ratio: median distance to the nearest training image, over that of held-out real images: 0 for copies, 1
            for new real images, more for images unlike any; or None where it was not measured.
        seconds: what the extraction and the scores took.
    """

    num_samples: int
    fid: float
    fid_sampling_error: float | None
    kid: float
    precision: float
    recall: float
    density: float
    coverage: float
    classifier_score: float | None
    class_counts: Annotated[tuple[int, ...], Field(strict=False)] | None
    label_accuracy: float | None = None
    fid_infinity: float | None = None
    nearest_ratio: float | None
    seconds: float

    @property
    def classes_covered(self) -> int | None:
        """How many classes hold at least ``COVERED_SHARE`` of the images."""
        if self.class_counts is None:
            return None
        return sum(count >= COVERED_SHARE * self.num_samples for count in self.class_counts)

    @property
    def class_divergence(self) -> float | None:
        """KL divergence of the classes' shares from even ones, in nats: Σ p log(K p), 0 where all are drawn alike."""
        if self.class_counts is None:
            return None
        shares = [count / self.num_samples for count in self.class_counts if count]
        return sum(p * math.log(len(self.class_counts) * p) for p in shares)

    @property
    def effective_classes(self) -> float | None:
        """How many classes, drawn evenly, would be as diverse: exp of the shares' entropy (Hill, Ecology 54, 1973)."""
        if self.class_counts is None or self.class_divergence is None:
            return None
        return len(self.class_counts) * math.exp(-self.class_divergence)

    @property
    def is_collapsed(self) -> bool:
        """Whether the images are of few kinds: by their classes, if they have any, or by recall (arXiv:1904.06991).

        Classes miss a generator that draws one image of each; recall, of balls around few images, does not.
        """
        has_few_classes = (
            self.class_counts is not None
            and self.effective_classes is not None
            and self.effective_classes < COLLAPSED_SHARE * len(self.class_counts)
        )
        return has_few_classes or self.recall < COLLAPSED_RECALL

    def as_row(self) -> dict[str, float | int | None]:
        """Return every score under its name, derived ones too, for a row of a table; counts and seconds are none."""
        derived = {"classes_covered": self.classes_covered, "class_divergence": self.class_divergence}
        return {**self.model_dump(exclude={"class_counts", "seconds"}), **derived}
