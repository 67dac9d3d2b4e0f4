"""Cost model: estimate how long a run takes from its configuration and the machine's speed."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.gan import DCGANDiscriminator, DCGANGenerator, Penalty

# Seen on one core of an AMD EPYC with AVX2, in float32, its other core at work as well. What is measured replaces them
# or scales them.
_GFLOP_PER_SEC = 70.0
_STEP_OVERHEAD_SEC = 2e-3
_CLASSIFIER_MS_PER_IMAGE = 0.09
_METRICS_SEC = 2.5  # of FID, KID, precision, recall, density and coverage
_RUN_SEC = 0.3  # of what a run does besides: networks built, sample_grids drawn, files written
_WORKER_SEC = 3.0  # of what a worker's first run does besides: data decoded, the floor scored
_REPORT_SEC, _REPORT_SEC_PER_VARIANT = 6.0, 0.3
_REPRESENTATION_SEC = 15.0  # of what networks learn besides drawing, where it is measured
_INCEPTION_GFLOP_PER_IMAGE = 11.4
_UNKNOWN_MACS = 5e6  # stands for those of a user's network, about what dcgan-28 has

SETTINGS_OF_NO_COST = ("seed", "steps", "scoring", "dataset")
"""Fields that leave a step's time as it is."""


@dataclass(frozen=True)
class Speed:
    """How fast a machine has been seen to be.

    Attributes:
        step_ms: ``step_key`` of a variant → milliseconds of one of its training steps, as many runs at once as there
            will be.
        start_sec: seconds until a worker process is ready.
        classifier_ms: milliseconds of one image in the classifier that scores it.
    """

    step_ms: Mapping[str, float] = field(default_factory=dict)
    start_sec: float = 5.0
    classifier_ms: float = _CLASSIFIER_MS_PER_IMAGE

    @property
    def slowness(self) -> float:
        """How many times as long as the machine of this module's constants this one takes."""
        return self.classifier_ms / _CLASSIFIER_MS_PER_IMAGE

    def step_sec(self, config: RunConfig) -> float:
        """Return the seconds of a training step: as measured, or in proportion to its arithmetic."""
        measured = self.step_ms.get(step_key(config))
        if measured is not None:
            return measured / 1e3
        return (gflop_per_step(config) / _GFLOP_PER_SEC + _STEP_OVERHEAD_SEC) * self.slowness


def step_key(config: RunConfig) -> str:
    """Name all that a step's time depends on."""
    plain = config.model_copy(update=dict.fromkeys(SETTINGS_OF_NO_COST))
    return hashlib.sha256(plain.model_dump_json(warnings=False).encode()).hexdigest()[:12]


def estimate_run_sec(config: RunConfig, speed: Speed) -> float:
    """Estimate the seconds of one run on one core, scoring included."""
    step_sec = speed.step_sec(config)
    return _RUN_SEC * speed.slowness + config.steps * step_sec + _scoring_sec(config, speed, step_sec)


def estimate_total_sec(run_secs: Sequence[float], num_jobs: int, num_variants: int, speed: Speed) -> float:
    """Estimate how long a grid takes from its start to its report.

    Args:
        run_secs: the seconds of each run that is missing, in the order in which they will be begun.
        num_jobs: how many go on at once.
        num_variants: of the report.
        speed: the machine's.
    """
    ends = [_WORKER_SEC * speed.slowness if run_secs else 0.0] * num_jobs
    for seconds in run_secs:
        ends[ends.index(min(ends))] += seconds
    report_sec = (_REPORT_SEC + _REPORT_SEC_PER_VARIANT * num_variants) * speed.slowness
    return (speed.start_sec if run_secs else 0.0) + max(ends) + report_sec


def _scoring_sec(config: RunConfig, speed: Speed, step_sec: float) -> float:
    scoring = config.scoring
    if scoring.features == "none":
        return 0.0
    # The final images are scored twice where G has batch norm: with running averages and with batch statistics.
    has_norm = config.generator.kind == "module" or config.generator.norm != "none"
    num_final = scoring.num_samples * (2 if has_norm else 1)
    num_images = num_final + scoring.curve_points * scoring.curve_samples
    gflop_per_sec = gflop_per_step(config) / step_sec
    sampling_sec = 2e-9 * _generator_macs(config) / gflop_per_sec
    if scoring.features == "inception":
        classifier_sec = _INCEPTION_GFLOP_PER_IMAGE / gflop_per_sec
    else:
        classifier_sec = speed.classifier_ms / 1e3
    fixed_sec = _METRICS_SEC + (_REPRESENTATION_SEC if scoring.representation else 0.0)
    return num_images * (sampling_sec + classifier_sec) + fixed_sec * speed.slowness


def gflop_per_step(config: RunConfig) -> float:
    """Count the multiply-adds of linear and convolutional layers in one G step with its D steps, times two, in 10⁹.

    A backward pass costs twice a forward pass, and once where only the input's gradient is wanted, as in D during G's
    step.
    """
    macs_g, macs_d = _generator_macs(config), _discriminator_macs(config)
    d_steps = config.d_steps_per_g_step / config.g_steps_per_d_step
    d_step = macs_g + 2 * 3 * macs_d + _penalty_passes(config.penalty) * macs_d
    g_step = 2 * macs_d + 2 * macs_g
    if config.generator_gradient == "accumulated":
        g_step += 2 * macs_g
    if config.generator_fakes == "fresh":
        g_step += macs_g
    elif config.g_steps_per_d_step > 1:  # where D rests, it leaves no fakes to reuse
        g_step += (1 - d_steps) * macs_g
    if config.loss.kind == "relativistic":
        g_step += macs_d
    return 2e-9 * config.batch_size * (d_steps * d_step + g_step)


def _penalty_passes(penalty: Penalty) -> int:
    """How many forward passes of D a penalty costs: one backward to the images, two through that, and its own first."""
    match penalty.kind:
        case "gradient":
            return 4
        case "r1":
            return 3
        case "r1_r2":
            return 6
        case _:  # of what D has computed already
            return 0


def _generator_macs(config: RunConfig) -> float:
    pixels = config.num_channels * config.image_size**2
    match config.generator.kind:
        case "mlp":
            return _linear_macs((config.num_inputs_g, *config.generator.hidden_sizes, pixels))
        case "dcgan":
            return _dcgan_generator_macs(config, config.generator)
        case "module":
            return _UNKNOWN_MACS
        case _:
            assert_never(config.generator)


def _discriminator_macs(config: RunConfig) -> float:
    pixels = config.num_channels * config.image_size**2
    match config.discriminator.kind:
        case "mlp":
            widths = [*config.discriminator.hidden_sizes]
            if config.discriminator.minibatch_std:
                widths.append(widths[-1])
            return _linear_macs((pixels, *widths, config.num_outputs_d))
        case "dcgan":
            return _dcgan_discriminator_macs(config, config.discriminator)
        case "module":
            return _UNKNOWN_MACS
        case _:
            assert_never(config.discriminator)


def _linear_macs(sizes: tuple[int, ...]) -> float:
    return float(sum(a * b for a, b in itertools.pairwise(sizes)))


def _dcgan_generator_macs(config: RunConfig, generator: DCGANGenerator) -> float:
    side = generator.smallest_side(config.image_size)
    widths = generator.widths(config.image_size)[::-1]
    total = float(config.num_inputs_g * widths[0] * side**2)
    if generator.output == "upsample":
        widths.append(config.num_channels)
    else:
        total += 9 * config.image_size**2 * widths[-1] * config.num_channels
    for inner, outer in itertools.pairwise(widths):
        # A transposed convolution has 16 taps a pixel of the smaller map, and so has one with nearest neighbours folded
        # in; behind bilinear interpolation there are nine a pixel of the larger one.
        total += (36 if generator.upsample == "bilinear" else 16) * side**2 * inner * outer
        side *= 2
    return total


def _dcgan_discriminator_macs(config: RunConfig, discriminator: DCGANDiscriminator) -> float:
    total, side, channels = 0.0, config.image_size, config.num_channels
    for width in discriminator.widths(config.image_size):
        is_strided = discriminator.downsample == "strided"
        total += discriminator.kernel_size**2 * (side // 2 if is_strided else side) ** 2 * channels * width
        side //= 2
        channels = width
    if discriminator.minibatch_std:
        total += 9 * side**2 * channels**2
    return total + (1 if discriminator.head == "average_pool" else side**2) * channels * config.num_outputs_d
