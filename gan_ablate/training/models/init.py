"""Initial weights: every parameter tensor from a stream of its own, named after it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

import torch
from torch import nn

from gan_ablate.seeding import stream_seed

if TYPE_CHECKING:
    from gan_ablate.design.networks import DefaultInit, NormalInit


_Norm = nn.BatchNorm1d | nn.BatchNorm2d
_Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def initialise(network: nn.Module, init: NormalInit | DefaultInit, seed: int, role: str) -> nn.Module:
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
        if not isinstance(module, _Layer | _Norm) or module.weight is None:  # a norm without a scale has none
            continue
        weight_stream, bias_stream = (
            torch.Generator().manual_seed(stream_seed(seed, f"init/{role}/{prefix}.{name}"))
            for name in ("weight", "bias")
        )
        match init.kind:
            case "normal" if isinstance(module, _Norm):
                nn.init.normal_(module.weight, init.norm_mean, init.std, generator=weight_stream)
            case "normal":
                if init.linear == "default" and isinstance(module, nn.Linear):
                    _initialise_weight_by_default(module, weight_stream)
                else:
                    nn.init.normal_(module.weight, 0.0, init.std, generator=weight_stream)
                if init.bias == "default":
                    _initialise_bias_by_default(module, bias_stream)
                elif module.bias is not None:
                    nn.init.zeros_(module.bias)
            case "default":
                if not isinstance(module, _Norm):  # ones and zeros already
                    _initialise_weight_by_default(module, weight_stream)
                    _initialise_bias_by_default(module, bias_stream)
            case _:
                assert_never(init)
    return network


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


def _initialise_weight_by_default(module: _Layer, stream: torch.Generator) -> None:
    # torch.nn.Linear.reset_parameters: a = √5 makes the bound 1/√fan_in.
    nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=stream)


def _initialise_bias_by_default(module: _Layer, stream: torch.Generator) -> None:
    if module.bias is not None:
        bound = 1 / math.sqrt(module.weight[0].numel())
        nn.init.uniform_(module.bias, -bound, bound, generator=stream)
