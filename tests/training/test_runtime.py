"""Devices, memory and precision of a process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gan_ablate.errors import UserError
from gan_ablate.training import runtime as device
from gan_ablate.training.runtime import computing_in, find_device
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config


def test_the_cpu_is_always_there() -> None:
    assert find_device("cpu").type == "cpu"


@pytest.mark.parametrize(("num", "words"), [(0, "0 CUDA devices"), (1, "1 CUDA device"), (2, "2 CUDA devices")])
def test_a_gpu_that_is_not_there_is_refused(num: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: num)
    with pytest.raises(UserError, match=f"device='cuda:2': this machine has {words}; use cpu"):
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


def test_layers_round_to_bfloat16_in_bf16_alone() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 8), torch.randn(5, 64)
    exact = layer(x)
    with computing_in("bf16", "cpu"):
        rounded = layer(x)
    with computing_in("fp32", "cpu"):
        assert torch.equal(layer(x), exact)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("preset", SIZE)
def test_every_network_computes_in_bfloat16(preset: str) -> None:
    """One that rounded less than the others would be another experiment."""
    trainer = Trainer(
        make_config(preset, precision="bf16", batch_size=4), torch.zeros(8, 1, *SIZE[preset], dtype=torch.uint8)
    )
    with computing_in("bf16", "cpu"):
        x_fake = trainer.generator(trainer.sample_latents("generator"))
        assert x_fake.dtype == trainer.discriminator(x_fake).dtype == torch.bfloat16
