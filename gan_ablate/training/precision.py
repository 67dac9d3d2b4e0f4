"""Precision: the number formats that the layers of a run compute with, on any machine."""

from __future__ import annotations

import functools
import platform
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gan_ablate.design.run_fields import Precision

_LAYERS = (functional.linear, functional.conv2d, functional.conv_transpose2d)


@contextmanager
def computing_in(precision: Precision, device_type: str) -> Iterator[None]:
    """Make layers compute in a run's precision; weights, losses and updates stay in float32.

    ``bf16`` is PyTorch's autocast. A CPU that has no bfloat16 arithmetic would take about fifteen times as long for it
    as for float32, and comes to the same numbers by a shorter way, up to the order of sums.
    """
    with ExitStack() as stack:
        if precision == "bf16":
            stack.enter_context(torch.autocast(device_type, torch.bfloat16))
            if device_type == "cpu" and not has_native_bf16():
                stack.enter_context(EmulatedBFloat16())
        yield


@contextmanager
def reproducible_float32() -> Iterator[None]:
    """Let a GPU compute float32 as such, and convolutions the same way every time.

    By default its convolutions round to TF32, which is another precision, and may add up in whatever order threads end.
    """
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        cudnn = torch.backends.cudnn
        with cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@functools.cache
def has_native_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; oneDNN also accepts it where AVX-512 has to emulate it."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 (it has no public name)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


class EmulatedBFloat16(TorchFunctionMode):
    """Layers under autocast multiply values rounded to bfloat16, add up in float32 and round what comes out.

    This is what bfloat16 units do, forwards and, as the rounding is part of the graph, backwards.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call ``func``; if it is a layer, on rounded arguments."""
        kwargs = kwargs or {}
        if func not in _LAYERS or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            rounded = {name: _round(value) for name, value in kwargs.items()}
            return func(*map(_round, args), **rounded).bfloat16()


def _round(value: Any) -> Any:
    return value.bfloat16().float() if isinstance(value, Tensor) else value
