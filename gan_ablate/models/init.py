"""Initial weights: every parameter tensor from a stream of its own, named after it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

import torch
from torch import nn

from gan_ablate.seeding import stream_seed

if TYPE_CHECKING:
    from gan_ablate.config import DefaultInit, NormalInit


def initialise(network: nn.Sequential, init: NormalInit | DefaultInit, seed: int, role: str) -> nn.Sequential:
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
        if not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        weight_stream, bias_stream = (
            torch.Generator().manual_seed(stream_seed(seed, f"init/{role}/{prefix}.{name}"))
            for name in ("weight", "bias")
        )
        is_norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        match init.kind:
            case "normal":
                nn.init.normal_(module.weight, 1.0 if is_norm else 0.0, init.std, generator=weight_stream)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case "default":
                if is_norm:
                    continue  # ones and zeros already
                # torch.nn.Linear.reset_parameters: a = √5 makes the bound 1/√fan_in.
                nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=weight_stream)
                if module.bias is not None:
                    fan_in = module.weight[0].numel()
                    bound = 1 / math.sqrt(fan_in)
                    nn.init.uniform_(module.bias, -bound, bound, generator=bias_stream)
            case _:
                assert_never(init)
    return network
