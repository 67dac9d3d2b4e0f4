"""Models: build the two networks of a run, initialised from its seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from gan_ablate.training.models.dcgan import build_dcgan_discriminator, build_dcgan_generator
from gan_ablate.training.models.init import initialise, normalise_spectrally
from gan_ablate.training.models.mlp import build_mlp_discriminator, build_mlp_generator
from gan_ablate.training.user_code import build_own_discriminator, build_own_generator

if TYPE_CHECKING:
    from torch import nn

    from gan_ablate.design.config import RunConfig

__all__ = ["build_discriminator", "build_generator"]


def build_generator(config: RunConfig) -> nn.Module:
    """Build the generator: (B, num_inputs_g) float32 → (B, C, S, S) float32 in [-1, 1]."""
    network: nn.Module
    match config.generator.kind:
        case "module":
            network = build_own_generator(config.generator, config.seed)
            if config.generator.initialised == "by_itself":
                return network
        case "mlp":
            network = build_mlp_generator(config, config.generator)
        case "dcgan":
            network = build_dcgan_generator(config, config.generator)
        case _:
            assert_never(config.generator)
    return initialise(network, config.init, config.seed, "generator")


def build_discriminator(config: RunConfig) -> nn.Module:
    """Build the discriminator: (B, C, S, S) float32 in [-1, 1] → (B,) float32 logits, positive for real.

    A conditional one has (B, 1 + num_classes): see ``step.select_logits``.
    """
    network: nn.Module
    is_ready = False
    match config.discriminator.kind:
        case "module":
            network = build_own_discriminator(config.discriminator, config.seed)
            is_ready = config.discriminator.initialised == "by_itself"
        case "mlp":
            network = build_mlp_discriminator(config, config.discriminator)
        case "dcgan":
            network = build_dcgan_discriminator(config, config.discriminator)
        case _:
            assert_never(config.discriminator)
    if not is_ready:
        network = initialise(network, config.init, config.seed, "discriminator")
    return normalise_spectrally(network, config.seed) if config.discriminator.spectral_norm else network
