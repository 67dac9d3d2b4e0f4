"""Layers: the linear, convolutional, norm, activation and dropout layers of every architecture.

The names matter: a parameter's initial values are drawn from a stream with its name, so a layer keeps its name
whichever switches are on around it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from gan_ablate.design.gan import Activation, NormKind, OutputActivation


class ChannelsLast(nn.Module):
    """The same (B, C, H, W) values, laid out channels last: the layout that convolutions are fast in and hand on."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, copied where it is laid out otherwise."""
        # One channel lies in memory alike in every layout, but a convolution goes by the strides, and only flattening
        # gives them anew.
        shape = (*x.shape[2:], x.shape[1])
        y: Tensor = x.permute(0, 2, 3, 1).flatten(1).unflatten(1, shape)
        return y.permute(0, 3, 1, 2)


class FlattenLinear(nn.Linear):
    """``nn.Linear`` on a flattened (B, C, H, W) map: the weight's columns are in the order of ``nn.Flatten``.

    It takes the columns to the map's channels-last order, instead of the map to theirs: the same sum, in another order.
    So the gradient leaves channels last as well; one that arrives in another layout than the activations takes every
    elementwise backward pass below it down a path that is thirty times slower.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_features)."""
        weight = self.weight.unflatten(1, x.shape[1:]).permute(0, 2, 3, 1).flatten(1)
        return functional.linear(x.permute(0, 2, 3, 1).flatten(1), weight, self.bias)


class MinibatchStd(nn.Module):
    """One feature more: each feature's standard deviation over the batch, on average (arXiv:1710.10196, section 3).

    It is the same number in every place of every image that is looked at together.

    Args:
        group: images that are looked at together, the i-th of every ``group``-th part of the batch, as in StyleGAN2's
            code (arXiv:1912.04958); None for the whole batch.
    """

    def __init__(self, group: int | None = None) -> None:
        super().__init__()
        self._group = group

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C + 1, …) of ``x``: (B, C, …); without an even split into groups, of the batch as one."""
        num = len(x) if self._group is None or len(x) % self._group else self._group
        if num == len(x):
            # The gradient of a root at zero would be infinite.
            std = (x.var(0, correction=0) + 1e-8).sqrt().mean()
            return torch.cat((x, std.expand(len(x), 1, *x.shape[2:])), 1)
        grouped = x.unflatten(0, (num, -1))
        stds = (grouped.var(0, correction=0) + 1e-8).sqrt().flatten(1).mean(1)
        shown = stds.repeat(num).view(-1, 1, *[1] * (x.ndim - 2)).expand(len(x), 1, *x.shape[2:])
        return torch.cat((x, shown), 1)


class PixelNorm(nn.Module):
    """Divides each place by the root mean square of its channels (arXiv:1710.10196, section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, …) of ``x``: (B, C, …)."""
        scale: Tensor = (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        return x * scale


class SelfAttention(nn.Module):
    """Adds to each place of a map what it sees at all others, times γ, which starts at 0 (SAGAN, arXiv:1805.08318).

    As in the paper, and unlike its authors' later code, keys and values are not pooled, and have an eighth of the
    channels. Convolutions have no bias.

    Args:
        channels: of the map, at least 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1, bias=False) for _ in range(3))
        self.output = nn.Conv2d(inner, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        # Equation 1: β_ji = softmax over i of f(x_i)ᵀ g(x_j). Equation 2: o_j = v(Σ_i β_ji h(x_i)).
        weights = (query.transpose(1, 2) @ key).softmax(dim=2)
        seen = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        # Equation 3: y_i = γ o_i + x_i.
        y: Tensor = ChannelsLast()(self.gamma * self.output(seen) + x)
        return y


class SumPool(nn.Module):
    """The sum of each channel over a map, as SNGAN's D ends (arXiv:1802.05957, table 4)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C) of ``x``: (B, C, H, W)."""
        return x.sum((2, 3))


class ScaledSigmoid(nn.Module):
    """A sigmoid, stretched from [0, 1] to [-1, 1] as images are."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 2σ(x) - 1."""
        return x.sigmoid().mul(2).sub(1)


class Dropout(nn.Dropout):
    """Dropout whose mask is cut from random 64-bit words, 16 bits an element, in a fifth of a Bernoulli draw's time.

    The rate is rounded to a multiple of 2⁻¹⁶ below 1, and what is kept is scaled by as much.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with elements set to zero in training, and as it is otherwise."""
        if not self.training or x.device.type != "cpu":  # on a GPU it is one fused operation
            return super().forward(x)
        num_dropped = min(round(self.p * 2**16), 2**16 - 1)  # of 2¹⁶ possible draws
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.int16)[: x.numel()].as_strided(x.shape, torch.empty_like(x).stride())
        return x * (draws >= num_dropped - 2**15).to(x.dtype).mul_(2**16 / (2**16 - num_dropped))


def build_output_activation(kind: OutputActivation) -> OrderedDict[str, nn.Module]:
    """Build what brings G's output to [-1, 1], under its name; nothing for ``none``."""
    match kind:
        case "tanh":
            return OrderedDict(tanh=nn.Tanh())
        case "sigmoid":
            return OrderedDict(sigmoid=ScaledSigmoid())
        case "none":
            return OrderedDict()
        case _:
            assert_never(kind)


def build_block(
    layer: nn.Module,
    norm: nn.Module | None,
    activation: Activation | None,
    *dropouts: nn.Module,
    is_norm_last: bool = False,
) -> nn.Sequential:
    """Chain a layer with what follows it, leaving out what is None."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(layer=layer)
    if norm is not None and not is_norm_last:
        parts["norm"] = norm
    if activation is not None:
        parts["activation"] = build_activation(activation)
    for dropout in dropouts:
        parts[type(dropout).__name__.lower()] = dropout
    if norm is not None and is_norm_last:
        parts["norm"] = norm
    return nn.Sequential(parts)


def build_minibatch_std(layer: nn.Module, activation: Activation, group: int | None) -> nn.Sequential:
    """Put the feature of ``MinibatchStd`` before a layer with an activation (arXiv:1710.10196, table 2).

    A last layer would add one number to all logits of a batch. No batch norm follows: it would take that feature, the
    same for all images of a batch, out again.
    """
    return nn.Sequential(OrderedDict(std=MinibatchStd(group), layer=layer, activation=build_activation(activation)))


def build_activation(activation: Activation, *, in_place: bool = True) -> nn.Module:
    """Build a hidden layer's activation.

    Args:
        activation: its kind.
        in_place: whether it may overwrite what it is given: after a layer or a norm it may, before a shortcut not.
    """
    match activation.kind:
        case "relu":
            return nn.ReLU(in_place)
        case "leaky_relu":
            return nn.LeakyReLU(activation.negative_slope, in_place)
        case "elu":
            return nn.ELU(activation.alpha, in_place)
        case "selu":
            return nn.SELU(in_place)
        case "silu":
            return nn.SiLU()
        case "gelu":
            return nn.GELU()
        case _:
            assert_never(activation)


def build_norm(
    kind: NormKind, num_features: int, eps: float = 1e-5, *, groups: int = 1, spatial: bool
) -> nn.Module | None:
    """Build the norm of a layer.

    Args:
        kind: of the norm.
        num_features: units of the layer, or channels if ``spatial``.
        eps: what joins the variance.
        groups: of group norm.
        spatial: whether the layer is convolutional.
    """
    match kind:
        case "none":
            return None
        case "batch":
            return nn.BatchNorm2d(num_features, eps) if spatial else nn.BatchNorm1d(num_features, eps)
        case "instance":
            return nn.InstanceNorm2d(num_features, eps, affine=True)
        case "layer":
            # All of an image together, with a scale and a shift for each channel.
            return nn.GroupNorm(1, num_features, eps)
        case "group":
            return nn.GroupNorm(groups, num_features, eps)
        case "pixel":
            return PixelNorm()
        case _:
            assert_never(kind)


def build_dropouts(rate: float, rate_2d: float = 0.0) -> list[nn.Module]:
    """Build the dropouts whose rate is not zero: of single activations, and of whole channels."""
    dropouts: list[nn.Module] = []
    if rate:
        dropouts.append(Dropout(rate))
    if rate_2d:
        dropouts.append(nn.Dropout2d(rate_2d))
    return dropouts
