"""Convolutions: the same sums as PyTorch's own, in less of a CPU's time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from gan_ablate.training.models.layers import ChannelsLast
from gan_ablate.training.runtime import has_amx

if TYPE_CHECKING:
    from collections.abc import Sequence


SMALL_SIDE = 8
"""A map of at most so many pixels a side is small."""
MANY_CHANNELS = 128
"""From so many on, copying patches costs less than it saves."""


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` with square kernels, faster in bfloat16 on a CPU; see ``convolve``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H', W') of ``x``: (B, in_channels, H, W)."""
        return convolve(x, self.weight, self.bias, self.stride[0], int(self.padding[0]))


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with square kernels, faster in bfloat16 on a CPU; see ``convolve_transposed``."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return (B, out_channels, H', W') of ``x``: (B, in_channels, H, W); ``output_size`` has to be None."""
        assert output_size is None
        return convolve_transposed(x, self.weight, self.bias, self.stride[0], int(self.padding[0]))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Return ``torch.nn.functional.conv2d``, faster where a CPU computes it in bfloat16.

    A kernel as large as its image is a matrix product. Where the output is small, the weight's gradient is one.

    Args:
        x: (B, in_channels, H, W) images.
        weight: (out_channels, in_channels, K, K).
        bias: (out_channels,).
        stride: in pixels, along both axes.
        padding: zeros on each side.
    """
    if _is_rounded(x) and padding == 0 and x.shape[2:] == weight.shape[2:]:
        y = functional.linear(x.permute(0, 2, 3, 1).flatten(1), weight.permute(0, 2, 3, 1).flatten(1), bias)
        return y[..., None, None]
    if _has_slow_gradient(weight, _output_sides(x, weight, stride, padding), x):
        return PatchedConvolution.of(x, weight, bias, stride, padding, is_transposed=False)
    return functional.conv2d(x, weight, bias, stride, padding)


def convolve_transposed(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Return ``torch.nn.functional.conv_transpose2d``, faster where a CPU computes it in bfloat16.

    Of a single pixel it is a matrix product. Where the images are small, the weight's gradient is one.

    Args:
        x: (B, in_channels, H, W) images.
        weight: (in_channels, out_channels, K, K).
        bias: (out_channels,).
        stride: in pixels, along both axes.
        padding: pixels that each side of the output loses.
    """
    if _is_rounded(x) and padding == 0 and x.shape[2:] == (1, 1):
        sides = weight.shape[2:]
        each = None if bias is None else bias.repeat(sides.numel())
        y = functional.linear(x.flatten(1), weight.permute(2, 3, 1, 0).flatten(0, 2), each)
        maps: Tensor = y.unflatten(1, (*sides, -1)).permute(0, 3, 1, 2)
        return maps
    if _has_slow_gradient(weight, x.shape[2:], x):
        return PatchedConvolution.of(x, weight, bias, stride, padding, is_transposed=True)
    return functional.conv_transpose2d(x, weight, bias, stride, padding)


def _is_rounded(x: Tensor) -> bool:
    """Whether a CPU computes a layer in bfloat16."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def _has_slow_gradient(weight: Tensor, sides: Sequence[int], x: Tensor) -> bool:
    """Whether oneDNN takes long for a weight's gradient.

    With AMX it runs at a tenth of its best rate where the smaller of both maps has few pixels a side. Without AMX a
    matrix product is no faster.

    Args:
        weight: whose first axis has the channels of that map.
        sides: of that map.
        x: the layer's input.
    """
    is_small = max(sides) <= SMALL_SIDE and len(weight) >= MANY_CHANNELS
    return is_small and weight.requires_grad and torch.is_grad_enabled() and _is_rounded(x) and has_amx()


def _output_sides(x: Tensor, weight: Tensor, stride: int, padding: int) -> list[int]:
    """Return the sides of a convolution's output."""
    pairs = zip(x.shape[2:], weight.shape[2:], strict=True)
    return [(side + 2 * padding - kernel) // stride + 1 for side, kernel in pairs]


class PatchedConvolution(torch.autograd.Function):
    """A convolution, transposed or not, whose weight's gradient is one matrix product.

    It is that of the smaller map with the patches of the larger one: the sums of a convolution, in another order. They
    are rounded once, too.
    """

    @classmethod
    def of(
        cls, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, *, is_transposed: bool
    ) -> Tensor:
        """Convolve in the precision of autocast."""
        dtype = torch.get_autocast_dtype("cpu")
        tensors = (tensor if tensor is None else tensor.to(dtype) for tensor in (x, weight, bias))
        y: Tensor = cls.apply(*tensors, stride, padding, is_transposed)
        return y

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, is_transposed: bool
    ) -> Tensor:
        """Return what PyTorch's own returns."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.is_transposed = stride, padding, is_transposed
        layer = functional.conv_transpose2d if is_transposed else functional.conv2d
        return layer(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``x``, ``weight`` and ``bias``, through which gradients flow on."""
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            if ctx.is_transposed:
                of_x = functional.conv2d(gradient, weight, None, ctx.stride, ctx.padding)
            else:
                of_x = conv2d_input(x.shape, weight, gradient, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            small, large = (x, gradient) if ctx.is_transposed else (gradient, x)
            patches = _cut_patches(large, weight.shape[-1], ctx.stride, ctx.padding)
            product = small.permute(0, 2, 3, 1).flatten(0, 2).T @ patches
            of_weight = product.unflatten(1, (*weight.shape[2:], -1)).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None, None


def _cut_patches(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Return the patches that a convolution of (B, C, H, W) images sees: (B·H'·W', K·K·C)."""
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, *[padding] * 4))
    return padded.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)


class NearestUpsampleConv2d(nn.Conv2d):
    """Nearest-neighbour ×2, then a 3×3 convolution with padding 1, as one 4×4 stride-2 transposed convolution.

    Copied pixels meet several taps of the kernel, whose sum is one tap on the pixel itself: along one axis, output 2i
    is w0·x[i-1] + (w1 + w2)·x[i] and output 2i + 1 is (w0 + w1)·x[i] + w2·x[i+1]. A transposed convolution of stride 2
    and padding 1 has x[i+1], x[i], x[i] and x[i-1] at its taps 0 to 3, and the same zeros beyond the border. It takes
    four multiplications a pixel where the other takes nine.
    """

    spread: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        along_axis = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        self.register_buffer("spread", torch.kron(along_axis, along_axis), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, 2H, 2W)."""
        # In the parameter's own precision: sums of taps are where rounding would start to matter.
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight.permute(1, 0, 2, 3).flatten(2) @ self.spread.T
        return convolve_transposed(x, weight.unflatten(2, (4, 4)), self.bias, stride=2, padding=1)


class BilinearUpsampleConv2d(nn.Conv2d):
    """Bilinear ×2, then a 3×3 convolution with padding 1."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, 2H, 2W)."""
        # A GPU adds up the gradient of ``interpolate`` in whatever order threads end.
        if x.device.type != "cpu":
            return super().forward(double_bilinearly(x))
        return super().forward(functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))


def double_bilinearly(x: Tensor) -> Tensor:
    """Return (B, C, 2H, 2W), as bilinear ``interpolate`` does with ``align_corners=False``, as two matrix products.

    Output 2i is ¼·x[i-1] + ¾·x[i] along an axis, output 2i + 1 is ¾·x[i] + ¼·x[i+1]; beyond the border is the border.
    """
    height, width = x.shape[2:]
    with torch.autocast(x.device.type, enabled=False):
        y = x if x.dtype == torch.float64 else x.float()  # it rounds once, at the end
        y = _doubling(width, y) @ y.permute(0, 2, 3, 1)  # as they lie, channels last
        y = _doubling(height, y) @ y.flatten(2)
        doubled: Tensor = y.unflatten(2, (2 * width, x.shape[1])).permute(0, 3, 1, 2).to(x.dtype)
    return doubled


def _doubling(side: int, like: Tensor) -> Tensor:
    """Return the (2 side, side) matrix of ``double_bilinearly``."""
    place = (torch.arange(2 * side, device=like.device) + 0.5).div(2).sub(0.5).clamp(0, side - 1)
    distance = (place[:, None] - torch.arange(side, device=like.device)).abs()
    return (1 - distance).clamp(min=0).to(like.dtype)


def _adds_up_exactly(x: Tensor) -> bool:
    """Whether patches can be added up outside a convolution: on a CPU, and in no coarser precision than within."""
    return x.device.type == "cpu" and not _is_rounded(x)


class GreyConv2d(nn.Conv2d):
    """A stride-2 convolution of one channel; its images' gradient is one matrix product, if that alone is wanted.

    A CPU's convolutions compute in blocks of channels, of which one channel fills little; for the weights' gradient
    they are fast enough. As a 1×1 convolution of patches the sums are the same.
    """

    def __init__(self, out_channels: int, kernel_size: int, *, bias: bool) -> None:
        super().__init__(1, out_channels, kernel_size, stride=2, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H', W') of ``x``: (B, 1, H, W)."""
        weight = self.weight  # once: under spectral norm, each look takes a step of the power iteration
        if weight.requires_grad or not _adds_up_exactly(x):
            return functional.conv2d(x, weight, self.bias, stride=2, padding=1)
        sides = _output_sides(x, weight, stride=2, padding=1)
        patches = functional.unfold(x, self.kernel_size, padding=1, stride=2).unflatten(2, sides)
        return functional.conv2d(ChannelsLast()(patches), weight.flatten(1)[..., None, None], self.bias)


class GreyConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution to one channel: one matrix product yields all patches, which are then added up.

    These are the same sums, and faster for the same reason as ``GreyConv2d``.
    """

    def __init__(self, in_channels: int, *, bias: bool) -> None:
        super().__init__(in_channels, 1, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return (B, 1, 2H, 2W)."""
        if not _adds_up_exactly(x):
            return super().forward(x, output_size)
        height, width = x.shape[2:]
        patches = functional.linear(x.permute(0, 2, 3, 1).flatten(1, 2), self.weight.flatten(1).T)
        y = functional.fold(patches.transpose(1, 2), (2 * height, 2 * width), 4, padding=1, stride=2)
        return y if self.bias is None else y + self.bias
