"""Measure the machine's peak: the best rates of matrix products and of convolutions with their gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn import functional

from gan_ablate.training.runtime import keep_memory

NUM_REPETITIONS = 7


@dataclass(frozen=True)
class Peak:
    """The best measured rates, in GFLOP per second.

    Attributes:
        num_threads: used.
        precision: ``fp32`` or ``bf16``.
        matmul: of square matrices.
        convolution: of 3×3, 4×4 stride-2 and transposed convolutions, channels last, with both their gradients.
    """

    num_threads: int
    precision: str
    matmul: float
    convolution: float


@contextmanager
def threads(num: int) -> Iterator[None]:
    """Let PyTorch compute with ``num`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_peak(num_threads: int, precision: str) -> Peak:
    """Measure both rates."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    keep_memory()
    with threads(num_threads):
        matmul = max(_rate(*_matmul(size, dtype)) for size in (512, 1024, 2048))
        convolution = max(
            _rate(*_convolution(channels, side, kind, dtype))
            for channels, side in ((64, 32), (128, 16), (256, 16))
            for kind in ("3×3", "4×4 stride 2", "transposed")
        )
    return Peak(num_threads, precision, matmul, convolution)


def _matmul(size: int, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return lambda: a @ b, 2 * size**3


def _convolution(channels: int, side: int, kind: str, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    kernel = 3 if kind == "3×3" else 4
    x = torch.randn(64, channels, side, side).to(dtype, memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, channels, kernel, kernel).to(dtype, memory_format=torch.channels_last)
    weight.requires_grad_()
    layer = functional.conv_transpose2d if kind == "transposed" else functional.conv2d
    stride = 1 if kind == "3×3" else 2
    y = layer(x, weight, stride=stride, padding=1)
    gradient = torch.randn_like(y)
    smaller = min(x.shape[-1], y.shape[-1])
    macs = 64 * channels**2 * kernel**2 * smaller**2

    def work() -> object:
        return torch.autograd.grad(layer(x, weight, stride=stride, padding=1), (x, weight), gradient)

    return work, 3 * 2 * macs


def _rate(work: Callable[[], object], flop: float) -> float:
    work()
    seconds = []
    for _ in range(NUM_REPETITIONS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return flop / min(seconds) / 1e9
