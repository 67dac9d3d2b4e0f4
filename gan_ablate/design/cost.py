"""A RunConfig in, roughly its duration out: enough to order runs and to say when a grid will be done."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.networks import DCGANDiscriminator, DCGANGenerator
    from gan_ablate.design.objective import Penalty

# Seen on one core of an AMD EPYC with AVX-512, in float32. A variant's own measurements, if any, replace them.
_GFLOP_PER_SEC = 90.0
_STEP_OVERHEAD_SEC = 2e-3
_SCORING_SEC_PER_SAMPLE = 2e-4
_START_SEC = 1.0

EMULATED_BF16_SLOWDOWN = 1.2
"""How many times as long as in float32 a step takes in bfloat16 on a CPU that has to emulate it, seen as above."""


def gflop_per_step(config: RunConfig) -> float:
    """Count the multiply-adds of linear and convolutional layers in one G step with its D steps, times two, in 10⁹.

    A backward pass costs twice a forward pass, and once where only the input's gradient is wanted, as in D during G's
    step.
    """
    macs_g, macs_d = _generator_macs(config), _discriminator_macs(config)
    d_steps = config.d_steps_per_g_step / config.g_steps_per_d_step
    d_step = macs_g + 2 * 3 * macs_d + _penalty_passes(config.penalty) * macs_d
    g_step = 2 * macs_d + 2 * macs_g
    if config.generator_fakes == "fresh":
        g_step += macs_g
    elif config.g_steps_per_d_step > 1:  # where D rests, it leaves no fakes to reuse
        g_step += (1 - d_steps) * macs_g
    if config.loss.kind == "relativistic":
        g_step += macs_d
    return 2e-9 * config.batch_size * (d_steps * d_step + g_step)


def estimate_run_sec(config: RunConfig, step_ms: float | None = None) -> float:
    """Estimate the seconds of one run on one core, scoring included.

    Args:
        config: the run.
        step_ms: what a step of this variant took before, if known.
    """
    step_sec = gflop_per_step(config) / _GFLOP_PER_SEC + _STEP_OVERHEAD_SEC if step_ms is None else step_ms / 1e3
    scoring = config.scoring
    # The final images are scored twice, with running averages and with batch statistics.
    num_scored = 2 * scoring.num_samples + scoring.curve_points * scoring.curve_samples
    scoring_sec = 0.0 if scoring.features == "none" else num_scored * _SCORING_SEC_PER_SAMPLE
    return _START_SEC + config.steps * step_sec + scoring_sec


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
        case _:
            assert_never(config.generator)


def _discriminator_macs(config: RunConfig) -> float:
    pixels = config.num_channels * config.image_size**2
    match config.discriminator.kind:
        case "mlp":
            return _linear_macs((pixels, *config.discriminator.hidden_sizes, config.num_outputs_d))
        case "dcgan":
            return _dcgan_discriminator_macs(config, config.discriminator)
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
    return total + (1 if discriminator.head == "average_pool" else side**2) * channels * config.num_outputs_d
