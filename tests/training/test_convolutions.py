from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from gan_ablate.training.models import convolutions
from gan_ablate.training.models.convolutions import (
    BilinearUpsampleConv2d,
    Conv2d,
    ConvTranspose2d,
    GreyConv2d,
    GreyConvTranspose2d,
    NearestUpsampleConv2d,
    PatchedConvolution,
    double_bilinearly,
)
from gan_ablate.training.runtime import has_amx

SHAPES = [(4, 2, 1, 8), (4, 2, 1, 7), (3, 1, 1, 5), (5, 2, 2, 9), (1, 1, 0, 4), (4, 1, 0, 4)]
"""Kernel, stride, padding and the side of the larger map; the last kernel is as large as its map."""


@pytest.fixture
def float64_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes the ways of bfloat16 in float64; returns the names of the layers that went by patches."""
    patched: list[str] = []
    apply = PatchedConvolution.apply

    def note(*args: Any) -> Any:
        patched.append("transposed" if args[-1] else "convolution")
        return apply(*args)

    monkeypatch.setattr(convolutions, "_is_rounded", lambda _: True)
    monkeypatch.setattr(convolutions, "has_amx", lambda: True)
    monkeypatch.setattr(convolutions, "MANY_CHANNELS", 1)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: torch.float64)
    monkeypatch.setattr(PatchedConvolution, "apply", note)
    return patched


def pytorchs_own(layer: nn.Conv2d | nn.ConvTranspose2d, x: torch.Tensor) -> torch.Tensor:
    own: type[nn.Module] = nn.ConvTranspose2d if isinstance(layer, nn.ConvTranspose2d) else nn.Conv2d
    y: torch.Tensor = own.forward(layer, x)
    return y


def make_layer(
    shape: tuple[int, int, int, int], *, is_transposed: bool, bias: bool = True
) -> tuple[nn.Conv2d | nn.ConvTranspose2d, torch.Tensor]:
    """Return a layer and its input, in float64."""
    torch.manual_seed(0)
    kernel, stride, padding, side = shape
    kind = ConvTranspose2d if is_transposed else Conv2d
    layer = kind(3, 2, kernel, stride, padding, bias=bias).double()
    if is_transposed:
        side = (side + 2 * padding - kernel) // stride + 1
    x = torch.randn(2, 3, side, side, dtype=torch.float64).to(memory_format=torch.channels_last)
    return layer, x.requires_grad_()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("is_transposed", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_in_bfloat16_are_pytorchs_and_so_are_their_gradients(
    shape: tuple[int, int, int, int], is_transposed: bool, bias: bool, float64_for_bfloat16: list[str]
) -> None:
    layer, x = make_layer(shape, is_transposed=is_transposed, bias=bias)
    y, expected = layer(x), pytorchs_own(layer, x)
    is_product = shape == SHAPES[-1]
    assert float64_for_bfloat16 == ([] if is_product else ["transposed" if is_transposed else "convolution"])
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    wanted, upstream = [x, *layer.parameters()], torch.randn_like(expected)
    firsts = [torch.autograd.grad(of, wanted, upstream, create_graph=True) for of in (y, expected)]
    for first, own in zip(*firsts, strict=True):
        torch.testing.assert_close(first, own, rtol=1e-12, atol=1e-12)
    # A gradient penalty: the gradient of a gradient.
    seconds = [torch.autograd.grad([g.square().sum() for g in each if g.requires_grad], wanted[:2]) for each in firsts]
    for second, own in zip(*seconds, strict=True):
        torch.testing.assert_close(second, own, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("is_transposed", [True, False])
def test_no_gradient_is_computed_that_nobody_wants(is_transposed: bool, float64_for_bfloat16: list[str]) -> None:
    layer, x = make_layer(SHAPES[0], is_transposed=is_transposed)
    layer.requires_grad_(False)
    layer(x).sum().backward()  # D in G's step
    with torch.no_grad():
        layer.requires_grad_(True)(x)
    assert float64_for_bfloat16 == []
    y = layer(x.detach())
    assert float64_for_bfloat16
    y.sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("is_transposed", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_in_float32_have_pytorchs_bits(shape: tuple[int, int, int, int], is_transposed: bool) -> None:
    layer, x = make_layer(shape, is_transposed=is_transposed)
    layer, x = layer.float(), x.detach().float()
    assert torch.equal(layer(x), pytorchs_own(layer, x))


@pytest.mark.parametrize(
    ("side", "channels", "amx", "is_patched"),
    [(16, 128, True, True), (18, 128, True, False), (16, 64, True, False), (16, 128, False, False)],
)
def test_patches_are_for_many_channels_and_small_maps_with_amx(
    side: int, channels: int, amx: bool, is_patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "has_amx", lambda: amx)
    down, up = Conv2d(4, channels, 4, 2, 1), ConvTranspose2d(channels, 4, 4, 2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        small = down(torch.zeros(1, 4, side, side))
        large = up(small.detach())
    assert (small.dtype, large.shape[-1]) == (torch.bfloat16, side)
    for y in (small, large):
        assert ("PatchedConvolution" in type(y.grad_fn).__name__) == is_patched


@pytest.mark.skipif(not has_amx(), reason="this processor has no AMX")
@pytest.mark.parametrize("is_transposed", [True, False])
def test_gradients_in_bfloat16_are_rounded_no_coarser_than_pytorchs(is_transposed: bool) -> None:
    torch.manual_seed(0)
    layer = (ConvTranspose2d if is_transposed else Conv2d)(128, 128, 4, 2, 1)
    side = 4 if is_transposed else 8
    x = torch.randn(16, 128, side, side).to(memory_format=torch.channels_last)
    exact = torch.autograd.grad(pytorchs_own(layer.double(), x.double()).square().sum(), layer.weight)[0]
    errors = []
    layer = layer.float()
    for forward in (layer, lambda x: pytorchs_own(layer, x)):
        with torch.autocast("cpu", torch.bfloat16):
            y = forward(x)
        (gradient,) = torch.autograd.grad(y.float().square().sum(), layer.weight)
        errors.append(float((gradient - exact).norm() / exact.norm()))
    assert errors[0] < 1.1 * errors[1] < 0.01


@pytest.mark.parametrize("size", [1, 2, 5])
def test_upsampling_folded_into_its_convolution_is_both_in_turn(size: int) -> None:
    folded = NearestUpsampleConv2d(3, 4, bias=True).double()
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    in_turn = functional.conv2d(
        functional.interpolate(x, scale_factor=2, mode="nearest"), folded.weight, folded.bias, padding=1
    )
    torch.testing.assert_close(folded(x), in_turn, rtol=1e-13, atol=1e-13)


def test_the_gradient_of_folded_upsampling_is_that_of_both_in_turn() -> None:
    folded = NearestUpsampleConv2d(2, 3, bias=False).double()
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    upsampled = functional.interpolate(x, scale_factor=2, mode="nearest")
    in_turn = functional.conv2d(upsampled, folded.weight, padding=1)
    weight = torch.randn_like(in_turn)
    inputs = (x, folded.weight)
    for actual, expected in zip(
        torch.autograd.grad((folded(x) * weight).sum(), inputs),
        torch.autograd.grad((in_turn * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("kernel", [3, 4])
def test_a_convolution_of_one_channel_is_pytorchs(kernel: int, is_frozen: bool) -> None:
    torch.manual_seed(0)
    layer = GreyConv2d(5, kernel, bias=True).double().requires_grad_(not is_frozen)
    x = torch.randn(3, 1, 12, 10, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(y, expected)
    wanted = [x] if is_frozen else [x, *layer.parameters()]
    upstream = torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad(y, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_convolution_to_one_channel_is_pytorchs(bias: bool) -> None:
    torch.manual_seed(0)
    layer = GreyConvTranspose2d(5, bias=bias).double()
    x = torch.randn(3, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), nn.ConvTranspose2d.forward(layer, x)
    torch.testing.assert_close(y, expected)
    wanted, upstream = [x, *layer.parameters()], torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad(y, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_bilinear_upsampling_is_both_in_turn() -> None:
    layer = BilinearUpsampleConv2d(2, 3, bias=True).double()
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    upsampled = nn.Upsample(scale_factor=2, mode="bilinear")(x)
    torch.testing.assert_close(layer(x), functional.conv2d(upsampled, layer.weight, layer.bias, padding=1))


def test_bilinear_upsampling_is_made_of_products_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = BilinearUpsampleConv2d(2, 3, bias=True).to("meta")
    monkeypatch.setattr("torch.autocast", lambda *_, **__: nullcontext())  # the stand-in device has none
    monkeypatch.setattr(functional, "interpolate", lambda *_, **__: pytest.fail("it adds up in any order there"))
    assert layer(torch.empty(2, 2, 4, 4, device="meta")).shape == (2, 3, 8, 8)


def test_products_interpolate_as_pytorch_does() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    gradients = []
    for doubled in (double_bilinearly(x), functional.interpolate(x, scale_factor=2, mode="bilinear")):
        weights = torch.arange(doubled.numel(), dtype=torch.float64).view(doubled.shape).sin()
        gradients.append(torch.autograd.grad((doubled * weights).sum(), x)[0])
        torch.testing.assert_close(doubled, double_bilinearly(x))
    torch.testing.assert_close(*gradients)
    rounded = x.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(double_bilinearly(rounded), functional.interpolate(rounded, scale_factor=2, mode="bilinear"))
        assert double_bilinearly(rounded.float()).dtype == torch.float32
    last = double_bilinearly(x.detach().float().contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
