from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gan_ablate.training import precision
from gan_ablate.training.precision import EmulatedBFloat16, computing_in
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config

SIZE = {"mlp": (28, 28), "dcgan-28": (28, 28), "dcgan-upsample": (32, 32)}

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(96, 40), (8, 96)),
    "conv2d": (lambda: nn.Conv2d(8, 16, 4, stride=2, padding=1), (4, 8, 8, 8)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), (4, 16, 4, 4)),
}


def output_and_gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Return a layer's output under autocast, and the gradients of its input and parameters."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    return [y.detach(), *torch.autograd.grad(y, (x, *layer.parameters()), y.detach())]


def rounded_once(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the same from bfloat16 operands, multiplied and added up in float64, rounded at the end."""
    fine = copy.deepcopy(layer).double()
    for parameter in fine.parameters():
        parameter.data = parameter.data.bfloat16().double()
    x = x.bfloat16().double().requires_grad_()
    y = fine(x)
    gradients = torch.autograd.grad(y, (x, *fine.parameters()), y.bfloat16().double())
    return [value.bfloat16() for value in (y.detach(), *gradients)]


@pytest.mark.parametrize("kind", LAYERS)
def test_emulated_layers_round_operands_and_results_and_nothing_between(kind: str) -> None:
    build, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer, x = build(), torch.randn(shape)
    with EmulatedBFloat16():
        emulated = output_and_gradients(layer, x)
    assert emulated[0].dtype == torch.bfloat16
    for a, b in zip(emulated, rounded_once(layer, x), strict=True):
        # Sums in float32 come out on the other side of a rounding now and then.
        assert (a == b).float().mean() > 0.98
        torch.testing.assert_close(a.float(), b.float(), rtol=2**-7, atol=1e-3)
    for a, b in zip(emulated, output_and_gradients(layer, x), strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=0.02, atol=0.02 * float(b.abs().max()))


def test_nothing_is_rounded_outside_autocast() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 4), torch.randn(3, 8)
    exact = layer(x)
    with EmulatedBFloat16():
        assert torch.equal(layer(x), exact)


def test_a_precision_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 8), torch.randn(5, 64)
    exact = layer(x)
    rounded = []
    for is_native in (True, False):
        monkeypatch.setattr(precision, "has_native_bf16", lambda is_native=is_native: is_native)
        with computing_in("bf16", "cpu"):
            rounded.append(layer(x))
        with computing_in("fp32", "cpu"):
            assert torch.equal(layer(x), exact)
    assert [y.dtype for y in rounded] == [torch.bfloat16] * 2
    torch.testing.assert_close(*rounded, rtol=2**-7, atol=1e-3)
    assert not torch.equal(rounded[0].float(), exact)


def test_every_network_comes_to_the_same_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that rounded less than the others would be another experiment."""
    monkeypatch.setattr(precision, "has_native_bf16", lambda: False)
    for preset in ("mlp", "dcgan-28", "dcgan-upsample"):
        trainer = Trainer(
            make_config(preset, precision="bf16", batch_size=4), torch.zeros(8, 1, *SIZE[preset], dtype=torch.uint8)
        )
        with computing_in("bf16", "cpu"):
            x_fake = trainer.generator(trainer.draw_latents("generator"))
            assert x_fake.dtype == trainer.discriminator(x_fake).dtype == torch.bfloat16
