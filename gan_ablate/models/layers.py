"""The pieces that every architecture is made of: a layer, its norm, its activation and its dropout, under fixed names.

The names matter: a parameter's initial values are drawn from a stream with its name, so a layer keeps its name
whichever switches are on around it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, assert_never

from torch import nn

if TYPE_CHECKING:
    from gan_ablate.config import LeakyReLU, NormKind, ReLU


def build_block(
    layer: nn.Module, norm: nn.Module | None, activation: ReLU | LeakyReLU, *dropouts: nn.Module
) -> nn.Sequential:
    """Chain a layer with what follows it, leaving out what is None."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(layer=layer)
    if norm is not None:
        parts["norm"] = norm
    parts["activation"] = build_activation(activation)
    for dropout in dropouts:
        parts[type(dropout).__name__.lower()] = dropout
    return nn.Sequential(parts)


def build_activation(activation: ReLU | LeakyReLU) -> nn.Module:
    """Build a hidden layer's activation, in place where that is safe: after a layer or a norm it is."""
    match activation.kind:
        case "relu":
            return nn.ReLU(inplace=True)
        case "leaky_relu":
            return nn.LeakyReLU(activation.negative_slope, inplace=True)
        case _:
            assert_never(activation)


def build_norm(kind: NormKind, num_features: int, *, spatial: bool) -> nn.Module | None:
    """Build the norm of ``num_features`` units, or of as many channels if ``spatial``."""
    match kind:
        case "none":
            return None
        case "batch":
            return nn.BatchNorm2d(num_features) if spatial else nn.BatchNorm1d(num_features)
        case _:
            assert_never(kind)


def build_dropouts(rate: float, rate_2d: float = 0.0) -> list[nn.Module]:
    """Build the dropouts whose rate is not zero: of single activations, and of whole channels."""
    dropouts: list[nn.Module] = []
    if rate:
        dropouts.append(nn.Dropout(rate))
    if rate_2d:
        dropouts.append(nn.Dropout2d(rate_2d))
    return dropouts
