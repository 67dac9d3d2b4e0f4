"""Models: build the two networks of a run, and initialise them from its seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import torch
from torch import nn
from torch.nn.utils import parametrize

from gan_ablate.errors import UserError
from gan_ablate.seeding import stream_seed
from gan_ablate.training.models.dcgan import (
    build_dcgan_discriminator,
    build_dcgan_generator,
    build_mlp_discriminator,
    build_mlp_generator,
)
from gan_ablate.training.models.resnet import build_resnet_discriminator, build_resnet_generator
from gan_ablate.training.user_code import build_user_discriminator, build_user_generator

if TYPE_CHECKING:
    from torch import Tensor

    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.gan import Init


__all__ = ["build_discriminator", "build_generator"]


def build_generator(config: RunConfig) -> nn.Module:
    """Build the generator: (B, num_inputs_g) float32 → (B, C, S, S) float32 in [-1, 1]."""
    network: nn.Module
    match config.generator.kind:
        case "module":
            network = build_user_generator(config.generator, config.seed)
            if config.generator.initialised == "by_itself":
                return network
        case "mlp":
            network = build_mlp_generator(config, config.generator)
        case "dcgan":
            network = build_dcgan_generator(config, config.generator)
        case "resnet":
            network = build_resnet_generator(config, config.generator)
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
            network = build_user_discriminator(config.discriminator, config.seed)
            is_ready = config.discriminator.initialised == "by_itself"
        case "mlp":
            network = build_mlp_discriminator(config, config.discriminator)
        case "dcgan":
            network = build_dcgan_discriminator(config, config.discriminator)
        case "resnet":
            network = build_resnet_discriminator(config, config.discriminator)
        case _:
            assert_never(config.discriminator)
    if not is_ready:
        network = initialise(network, config.init, config.seed, "discriminator")
    return normalise_spectrally(network, config.seed) if config.discriminator.spectral_norm else network


NUM_POWER_ITERATIONS = 15
"""With which PyTorch's spectral norm begins."""

_Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm
_Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def initialise(network: nn.Module, init: Init, seed: int, role: str) -> nn.Module:
    """Draw every parameter of ``network``, in place.

    Args:
        network: on the CPU, so that every device starts from the same values.
        init: the distribution to draw from.
        seed: the run's seed.
        role: ``"generator"`` or ``"discriminator"``.

    Returns:
        The same network.
    """
    for prefix, module in network.named_modules():
        if not isinstance(module, _Layer | _Norm):
            continue
        layer = _RandomInit.of(module, f"{role}: {prefix}")
        if layer is None:  # a norm without a scale
            continue
        weight_stream, bias_stream = (
            torch.Generator().manual_seed(stream_seed(seed, f"init/{role}/{prefix}.{name}"))
            for name in ("weight", "bias")
        )
        if isinstance(module, _Norm):
            if init.kind == "normal":  # ones and zeros already
                nn.init.normal_(layer.weight, init.norm_mean, init.std, generator=weight_stream)
        else:
            gain = math.sqrt(2) if ".residual." in f".{prefix}" else 1.0
            _sample_layer(layer, init, weight_stream, bias_stream, gain, is_linear=isinstance(module, nn.Linear))
        layer.put_back(module)
    return network


def _sample_layer(
    layer: _RandomInit,
    init: Init,
    weight_stream: torch.Generator,
    bias_stream: torch.Generator,
    gain: float,
    *,
    is_linear: bool,
) -> None:
    """Draw the weight and the bias of a linear or convolutional layer; ``gain`` is that of ``GlorotInit``."""
    match init.kind:
        case "normal":
            if init.linear == "default" and is_linear:
                layer.sample_default_weight(weight_stream)
            else:
                nn.init.normal_(layer.weight, 0.0, init.std, generator=weight_stream)
            if init.bias == "default":
                layer.sample_default_bias(bias_stream)
            elif layer.bias is not None:
                nn.init.zeros_(layer.bias)
        case "default":
            layer.sample_default_weight(weight_stream)
            layer.sample_default_bias(bias_stream)
        case "glorot":
            nn.init.xavier_uniform_(layer.weight, gain, generator=weight_stream)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        case _:
            assert_never(init)


def normalise_spectrally(network: nn.Module, seed: int) -> nn.Module:
    """Divide the weight of every layer by its largest singular value, in place (arXiv:1802.05957, algorithm 1).

    That is PyTorch's parametrization, with one step of the power iteration in every forward pass of training.

    Args:
        network: initialised.
        seed: the run's seed, of the vectors that the power iteration starts from.

    Returns:
        The same network.
    """
    with torch.random.fork_rng(devices=[]):
        for prefix, module in list(network.named_modules()):
            if isinstance(module, _Layer):
                torch.manual_seed(stream_seed(seed, f"spectral norm/{prefix}"))
                nn.utils.parametrizations.spectral_norm(module)
    return network


@dataclass(frozen=True)
class _RandomInit:
    """A layer's weight and bias, to be drawn in place.

    Where PyTorch computes one from other tensors, as under spectral or weight norm, it is a copy; putting it back sets
    those tensors to what gives it.
    """

    weight: Tensor
    bias: Tensor | None
    name: str
    computed: tuple[str, ...]

    @classmethod
    def of(cls, layer: nn.Module, name: str) -> _RandomInit | None:
        """Take a layer's tensors; None if it has no weight.

        Raises:
            UserError: if a user's layer computes one in a way of its own.
        """
        tensors: dict[str, Tensor | None] = {}
        own = dict(layer.named_parameters(recurse=False))
        computed = tuple(key for key in ("weight", "bias") if parametrize.is_parametrized(layer, key))
        for key in ("weight", "bias"):
            if key in computed:
                tensors[key] = getattr(layer, key).detach().clone()
            elif key in own or getattr(layer, key, layer) is None:
                tensors[key] = own.get(key)
            else:
                raise UserError(f'{name}.{key}: no parameter, init cannot draw it; valid: initialised = "by_itself"')
        weight = tensors["weight"]
        return None if weight is None else cls(weight, tensors["bias"], name, computed)

    def sample_default_weight(self, stream: torch.Generator) -> None:
        """Draw it as torch.nn.Linear.reset_parameters does: a = √5 makes the bound 1/√fan_in."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=stream)

    def sample_default_bias(self, stream: torch.Generator) -> None:
        """Draw it as torch.nn.Linear.reset_parameters does."""
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound, generator=stream)

    @torch.no_grad()
    def put_back(self, layer: nn.Module) -> None:
        """Set what a layer computes its weight or bias from."""
        for key in self.computed:
            try:
                setattr(layer, key, getattr(self, key))
            except (NotImplementedError, RuntimeError, ValueError) as refused:
                reason = str(refused).partition("\n")[0]
                raise UserError(
                    f"{self.name}.{key}: init cannot draw it through its parametrization ({reason}); "
                    'valid: initialised = "by_itself"'
                ) from None
            for _ in range(NUM_POWER_ITERATIONS):  # a spectral norm takes one at every look
                getattr(layer, key)
