"""None"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from gan_ablate.errors import UserError
from gan_ablate.training import runtime as device
from gan_ablate.training import runtime as precision
from gan_ablate.training.runtime import EmulatedBFloat16, computing_in, find_device
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config


def test_the_cpu_is_always_there() -> None:
    assert find_device("cpu").type == "cpu"


@pytest.mark.parametrize(("num", "words"), [(0, "0 CUDA devices"), (1, "1 CUDA device"), (2, "2 CUDA devices")])
def test_a_gpu_that_is_not_there_is_refused(num: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: num)
    with pytest.raises(UserError, match=f"--device cuda:2: this machine has {words}; use cpu"):
        find_device("cuda:2")


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cuda:1000", "mps", "", "CUDA"])
def test_devices_of_other_kinds_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="not supported; valid: cpu, cuda, cuda:0, …"):
        find_device(name)


@pytest.mark.parametrize("largest", [2**62, 2**25])
def test_blocks_are_kept_by_new_and_by_old_libraries(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    """One that refuses the threshold asked for would stay at its own, and no longer move it."""
    thresholds: dict[int, int] = {}

    class Library:
        def mallopt(self, parameter: int, value: int) -> int:
            is_refused = parameter == device._M_MMAP_THRESHOLD and value > largest
            if not is_refused:
                thresholds[parameter] = value
            return int(not is_refused)

    monkeypatch.setattr(device, "_load_glibc", Library)
    device.keep_memory()
    assert thresholds == {
        device._M_MMAP_THRESHOLD: min(2**30, largest),
        device._M_TRIM_THRESHOLD: 2**30,
    }


def test_other_systems_libraries_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", loaded.append)
    device.keep_memory()
    device.release_memory()
    assert loaded == []


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without ``malloc_trim`` is none that these settings are for."""
    library = SimpleNamespace(mallopt=pytest.fail)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: library)
    assert device._load_glibc() is None
    device.keep_memory()
    device.release_memory()


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
            x_fake = trainer.generator(trainer.sample_latents("generator"))
            assert x_fake.dtype == trainer.discriminator(x_fake).dtype == torch.bfloat16
