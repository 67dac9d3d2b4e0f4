"""Outcomes: every measured quantity of a run, with its name, scale, better direction and definition.

This is the only list: an outcome added here is a column of a grid's table, may be claimed, has effects and a line in
the report's appendix. ``gan_ablate.analysis.table`` computes its values from records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from gan_ablate.design.validation import Model

MAX_LOG = 700.0
"""Its exponential is about the largest float."""


@dataclass(frozen=True)
class Outcome:
    """One measured quantity of a run.

    Attributes:
        name: the column's name.
        title: its name in tables and figures.
        better: the better direction, or None where neither is.
        scale: ``ratio`` where effects are log ratios, reported in percent; ``difference`` for other outcomes.
        definition: one sentence.
        brief: what it is and in which unit, in a few words, for the front page.
        is_timed: whether it depends on the machine's speed, so that runs of different machines do not compare.
        margin: on the scale of differences, the smallest change that matters. For an outcome with a known range it is a
            twentieth of it: five points of a share of 0 to 1, which is seven times the sampling error of 5,000 images,
            and half a class of ten. KID has no range, and its scale is that of the extractor: ``"relative"`` is the
            grid's share of the baseline's mean, as for FID. None where nothing is negligible, and on the ratio scale,
            which has the grid's margin.
    """

    name: str
    title: str
    better: Literal["lower", "higher"] | None
    scale: Literal["ratio", "difference"]
    definition: str
    is_timed: bool = False
    brief: str = ""
    margin: float | Literal["relative"] | None = None

    @property
    def is_censored(self) -> bool:
        """Whether a run's value may be a bound: the target was never reached, or before the first point."""
        return self.name in CENSORED

    @property
    def is_of_images(self) -> bool:
        """Whether it says how good the images are, so that a run that collapsed or diverged is bad by it."""
        return self.better is not None and self.name not in OF_TRAINING

    @property
    def is_cost(self) -> bool:
        """Whether it is a cost of a step, which no collapse changes."""
        return self.name == "step_ms_median"

    @property
    def goodness(self) -> str:
        """The better direction in words."""
        return "neither is better" if self.better is None else f"{self.better} is better"


CENSORED = ("steps_to_fid", "sec_to_fid")
OF_TRAINING = ("oscillation", *CENSORED, "probe_gain", "arithmetic_gain", "filter_gain", "step_ms_median")
"""Outcomes with a better direction that say nothing of how good the images are."""

_OUTCOMES = (
    Outcome("fid", "FID", "lower", "ratio",
            "Fréchet distance between Gaussians fitted to the features of generated and of held-out real images "
            "(arXiv:1706.08500, equation 6), batch norm using its running averages."),
    Outcome("fid_batch_stats", "FID, batch statistics", "lower", "ratio",
            "The same with batch norm using each batch's own statistics; equal to FID where there is no batch norm."),
    Outcome("fid_ema", "FID, averaged weights", "lower", "ratio",
            "The same for the moving average of G's weights, in runs that keep one; it changes no training."),
    Outcome("fid_best", "FID, best point", "lower", "ratio",
            "FID of the weights with the lowest FID along training, in runs that keep them (scoring.keep_best). Their "
            "latents are not those of the curve, so luck with those does not count twice. One bias stays: the point is "
            "the lowest of several, by fewer samples and the same held-out images. It favours runs whose FID jumps, so "
            "only runs with as many points compare.",
            brief="FID of the weights with the lowest FID along training"),
    Outcome("fid_infinity", "FID, infinite N", "lower", "ratio",
            "FID extrapolated to infinitely many generated images (arXiv:1911.07023): a straight line in 1/N through "
            "the FIDs of 15 numbers of images, from a fifth of them to all. The held-out images stay as many as they "
            "are.",
            brief="FID extrapolated to infinitely many generated images"),
    Outcome("kid", "KID", "lower", "difference",
            "Unbiased squared maximum mean discrepancy of the features under a cubic kernel, mean over 100 subsets of "
            "1,000 images, the same subsets for every run (arXiv:1801.01401, section 4).", margin="relative"),
    Outcome("precision", "precision", "higher", "difference",
            "Share of generated images inside the 5-nearest-neighbour ball of a real one (arXiv:1904.06991); at most "
            "5,000 images of either kind, as for the three below.", margin=0.05),
    Outcome("recall", "recall", "higher", "difference",
            "Share of real images inside the 5-nearest-neighbour ball of a generated one (arXiv:1904.06991).",
            margin=0.05),
    Outcome("density", "density", "higher", "difference",
            "Real balls that hold a generated image, on average, over 5 (arXiv:2002.09797): 1 for real images; above "
            "it, images crowd where real ones are densest.", margin=0.05),
    Outcome("coverage", "coverage", "higher", "difference",
            "Share of real images whose ball holds a generated one (arXiv:2002.09797).", margin=0.05),
    Outcome("classifier_score", "classifier score", "higher", "ratio",
            "The Inception score with this project's classifier: exp of the mean KL(p(y|x) ‖ p(y)) "
            "(arXiv:1606.03498), from 1 to the number of classes."),
    Outcome("classes_covered", "classes covered", "higher", "difference",
            "Classes, of ten, that hold at least 1 % of the images.", margin=0.5),
    Outcome("class_divergence", "class divergence", "lower", "difference",
            "KL divergence of the classes' shares from even ones, in nats: 0 where all classes are drawn equally "
            "often, log 10 = 2.3 where only one is.",
            brief="how unevenly images fall into classes, in nats: 0 is even, 2.3 is one class only", margin=0.1),
    Outcome("label_accuracy", "label accuracy", "higher", "difference",
            "Share of a conditional run's images that the classifier takes for the class they were asked to be of.",
            margin=0.05),
    Outcome("nearest_ratio", "nearest ratio", None, "ratio",
            "Median distance of 2,000 generated images to the nearest training image, in features, over that of "
            "held-out real images: 0 for copies, 1 for new real images, more for images unlike any."),
    Outcome("oscillation", "oscillation", "lower", "ratio",
            "Root mean square of the second differences of log FID, over √6, at 26 points of 256 images along the last "
            "half of training. A steady fall has none. 0.1 means that each point lies about 10 % off a smooth curve. "
            "Runs of fewer than 520 steps, and runs that are scored with Inception, have none.",
            brief="how far FID jumps between points of training; 0.1 is 10 %"),
    Outcome("steps_to_fid", "steps to the target", "lower", "ratio",
            "Generator steps until FID along training first falls to the target, log FID interpolated between points. "
            "The target is what the baseline's first four seeds reach on (geometric) average half-way. A run that "
            "never reaches it counts with its last step (≥), one that does so before its first point with that point "
            "(≤). With such runs, effects are medians by signs, written with ≥ or ≤, and interactions are not "
            "estimated.",
            brief="steps until FID is as low as the baseline's half-way"),
    Outcome("sec_to_fid", "seconds to the target", "lower", "ratio",
            "Training seconds until the same moment, scoring left out.", is_timed=True),
    Outcome("fid_equal_time", "curve FID after equal time", "lower", "ratio",
            "FID along training, log FID interpolated, at the training second at which the fastest variant was done; "
            "on fewer samples than FID, so that it compares only with itself.",
            is_timed=True),
    Outcome("grad_norm_g", "gradient norm of G", None, "ratio",
            "Euclidean norm of the loss's gradient in all parameters of G, geometric mean over training."),
    Outcome("grad_norm_d", "gradient norm of D", None, "ratio",
            "The same for D."),
    Outcome("accuracy_d", "accuracy of D", None, "difference",
            "Share of real and generated images that D tells apart before it learns from them, mean over the last half "
            "of training.", margin=0.05),
    Outcome("confidence_d", "confidence of D", None, "difference",
            "Probability that D gives to the right answer, (D(x) + 1 - D(G(z))) / 2, mean over the last half of "
            "training.", margin=0.05),
    Outcome("d_real_end", "D(x) at the end", None, "difference",
            "Probability of being real that D gives to real images, mean over the last tenth of training.",
            margin=0.05),
    Outcome("d_fake_end", "D(G(z)) at the end", None, "difference",
            "The same for generated images, before D learns from them.",
            brief="how surely D takes generated images for real, from 0 to 1", margin=0.05),
    Outcome("probe_gain", "gain of D's features", "higher", "difference",
            "Accuracy of a logistic regression from 1,000 labelled images on D's features (arXiv:1511.06434, section "
            "5.1: every map pooled to 4×4), less that on raw pixels or on the untrained D's, whichever is higher.",
            brief="accuracy of a classifier on them, less that on raw pixels or an untrained D", margin=0.05),
    Outcome("arithmetic_gain", "gain of latent arithmetic", "higher", "difference",
            "Share of latents, moved by the difference of two classes' means, of which G then draws the other class, "
            "less the same with shuffled classes.",
            brief="share of moved latents that give the other class, less that of shuffled classes", margin=0.05),
    Outcome("filter_gain", "gain of single filters", "higher", "difference",
            "Mean over the filters of D's last map of the area under the ROC curve with which each tells the class "
            "that it knows best from all others, less the same of the untrained D.",
            brief="area under the ROC curve, less that of an untrained D", margin=0.05),
    Outcome("step_ms_median", "step time", "lower", "ratio",
            "Median milliseconds of a training step, one G step with its D steps; warm-up, measurements and scoring "
            "left out.", is_timed=True),
)  # fmt: skip

OUTCOMES: dict[str, Outcome] = {outcome.name: outcome for outcome in _OUTCOMES}

RATIO_OUTCOMES = tuple(name for name, outcome in OUTCOMES.items() if outcome.scale == "ratio")
"""Outcomes on the ratio scale, which have the grid's margin."""

if TYPE_CHECKING:
    OutcomeName: TypeAlias = str
    """The name of an outcome in ``OUTCOMES``."""
else:
    OutcomeName = Literal[tuple(OUTCOMES)]

# The order of the columns in runs.csv stays as it is: these were added after the others.
_BEHIND_NEAREST_RATIO = ("fid_batch_stats", "fid_ema", "label_accuracy")
_BEHIND_BEST_CURVE_FID = ("fid_infinity", "fid_best")
_OTHER_COLUMNS = {
    "fid": ("fid_sampling_error",),
    "class_divergence": ("collapsed",),
    "nearest_ratio": (
        *_BEHIND_NEAREST_RATIO, "fid_floor", "kid_floor", "num_samples", "extractor", "best_curve_fid",
        *_BEHIND_BEST_CURVE_FID, "best_step",
    ),
    "steps_to_fid": ("fid_reached", "target_bound"),
    "step_ms_median": (
        "step_ms_p10", "step_ms_p90", "steps_per_sec", "images_per_sec", "peak_memory_mib", "steps", "train_sec",
        "scoring_sec", "total_sec", "diverged_at",
    ),
}  # fmt: skip
"""Outcome → columns after it."""

RESULT_COLUMNS = (
    "variant",
    "seed",
    "run_id",
    "status",
    *(
        column
        for name in OUTCOMES
        if name not in (*_BEHIND_NEAREST_RATIO, *_BEHIND_BEST_CURVE_FID)
        for column in (name, *_OTHER_COLUMNS.get(name, ()))
    ),
)
"""Columns of a grid's table besides its factors, which may not have the same names."""


def percent_change(log_ratio: float) -> float:
    """Turn a log ratio into a change in percent: log 2 → +100, log ½ → -50; infinite above the largest float."""
    return math.inf if log_ratio > MAX_LOG else 100 * math.expm1(log_ratio)


def margin_text(log_margin: float) -> str:
    """Write a margin of log ratios as what it is in percent: ``-9.1 % to +10 %``."""
    low, high = (float(f"{percent_change(end):.2g}") for end in (-log_margin, log_margin))
    return f"{low:+g} % to {high:+g} %"


class Throughput(Model):
    """The cost of a training step, without warm-up, measurements and scoring.

    Attributes:
        step_ms_median: milliseconds of one G step with its D steps.
        step_ms_p10: the tenth percentile.
        step_ms_p90: the ninetieth percentile.
        steps_per_sec: 1000 / ``step_ms_median``.
        images_per_sec: real images that D sees per second.
        num_timed_steps: number of steps behind the percentiles.
        peak_memory_bytes: peak memory of the training process, or on a GPU of its tensors; 0 where it is unknown.

    The other attributes are None for a user's script whose log has no steps.
    """

    step_ms_median: float | None = None
    step_ms_p10: float | None = None
    step_ms_p90: float | None = None
    steps_per_sec: float | None = None
    images_per_sec: float | None = None
    num_timed_steps: int
    peak_memory_bytes: int
