"""The runtime of a process: its device, its precision, and the global state of PyTorch, NumPy and Python."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import random
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gan_ablate.design.validation import check_device_name
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from gan_ablate.design.run_fields import Precision


def find_device(name: str) -> torch.device:
    """Return a device; a GPU becomes the current one.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``…

    Raises:
        UserError: if the device is not supported, or this machine does not have it.
    """
    check_device_name(name)
    device = torch.device(name)
    if device.type == "cuda":
        num = torch.cuda.device_count()
        if (device.index or 0) >= num:
            devices = "CUDA device" if num == 1 else "CUDA devices"
            raise UserError(f"{option('device', name)}: this machine has {num} {devices}; use cpu")
        torch.cuda.set_device(device.index or 0)  # the one on which events are recorded
    return device


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER = 2**30
_LARGEST_BEFORE_2_35 = 2**25


def keep_memory() -> None:
    """Make this process reuse freed blocks of memory instead of returning them and faulting them in again by page.

    Results do not change. Only glibc needs it; with other C libraries the function does nothing.
    """
    libc = _load_glibc()
    if libc is not None:
        # glibc before 2.35 refuses more than half of its largest heap, and would keep to its 128 KB.
        _ = libc.mallopt(_M_MMAP_THRESHOLD, _NEVER) or libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BEFORE_2_35)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def release_memory() -> None:
    """Return all freed blocks to the system, so that the process then holds only the memory that it uses."""
    libc = _load_glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _load_glibc() -> ctypes.CDLL | None:
    """Return glibc, or None where the C library is another one."""
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "malloc_trim") else None


NO_BF16 = (
    "precision = bf16: this processor has no bfloat16 arithmetic; "
    "valid: fp32, or a machine with AVX-512 BF16, AMX or a GPU"
)


NO_TF32 = "precision = tf32: only NVIDIA GPUs have it, from Ampere on (RTX 30, A100); valid: fp32, bf16"

TF32_CAPABILITY = 8, 0
"""The compute capability of the first GPUs with TF32."""


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that a device does not have.

    A CPU without bfloat16 would emulate it, at about fifteen times the time of float32. Where there is no TF32, PyTorch
    would compute in float32 and say nothing.

    Raises:
        UserError: naming the machines that have it.
    """
    if precision == "bf16" and device.type == "cpu" and not has_native_bf16():
        raise UserError(NO_BF16)
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < TF32_CAPABILITY):
        raise UserError(NO_TF32)


@functools.cache
def has_native_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; oneDNN also accepts it where AVX-512 has to emulate it."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 (it has no public name)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


@functools.cache
def has_amx() -> bool:
    """Whether the CPU multiplies whole tiles of bfloat16 (Intel's AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def computing_in(precision: Precision, device_type: str) -> AbstractContextManager[object]:
    """Make layers compute in a run's precision, by PyTorch's autocast; weights, losses and updates stay in float32."""
    return torch.autocast(device_type, torch.bfloat16) if precision == "bf16" else nullcontext()


def rounding_to(precision: Precision) -> AbstractContextManager[None]:
    """Let a GPU round to TF32 what it multiplies in a step of such a run, its gradients' products, too."""
    return reproducible_float32(allow_tf32=True) if precision == "tf32" else nullcontext()


@contextmanager
def reproducible_float32(*, allow_tf32: bool = False) -> Iterator[None]:
    """Make a GPU compute float32 without TF32, and convolutions with the same bits every time.

    By default a GPU's convolutions round to TF32, and add up in the order in which threads end.

    Args:
        allow_tf32: whether convolutions and matrix products may round to TF32 after all.
    """
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allow_tf32
    try:
        cudnn = torch.backends.cudnn
        with cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=allow_tf32):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


SEEDING = {"torch": "torch.manual_seed", "numpy": "numpy.random.seed", "python": "random.seed"}
"""Random stream → the function that seeds it."""


def seed_streams(seed: int) -> None:
    """Seed PyTorch's, NumPy's and Python's streams."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (user code samples from this one)
    random.seed(seed)


def read_streams() -> dict[str, Tensor]:
    """Return the position of each stream on the CPU, as tensors."""
    _, keys, *position = np.random.get_state(legacy=True)  # noqa: NPY002
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*map(int, keys), *position], dtype=torch.float64),
        "python": torch.tensor([version, *words, np.inf if gauss is None else gauss], dtype=torch.float64),
    }


def set_streams(streams: Mapping[str, Tensor]) -> None:
    """Put each stream back to the position that ``read_streams`` returned."""
    torch.set_rng_state(streams["torch"])
    *keys, pos, has_gauss, cached = streams["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), int(pos), int(has_gauss), cached))  # noqa: NPY002
    version, *words, gauss = streams["python"].tolist()
    random.setstate((int(version), tuple(map(int, words)), None if np.isinf(gauss) else gauss))


@contextmanager
def keeping_streams() -> Iterator[None]:
    """Put the streams back, after the block, where they were before it."""
    before = read_streams()
    try:
        yield
    finally:
        set_streams(before)


class _Setting(NamedTuple):
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _attribute(owner: Any, name: str, path: str) -> _Setting:
    return _Setting(f"{path}.{name}", lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


_SETTINGS = (
    _Setting("torch.set_default_dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting(  # naming the CPU would leave every call of PyTorch a detour
        "torch.set_default_device",
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    _Setting("torch.set_num_threads", torch.get_num_threads, torch.set_num_threads),
    _Setting(
        "torch.use_deterministic_algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    _Setting("torch.set_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled),
    _Setting("torch.autograd.set_detect_anomaly", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    _Setting(
        "torch.set_float32_matmul_precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    *(
        _attribute(torch.backends.cudnn, name, "torch.backends.cudnn")
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    ),
    _Setting("os.chdir", os.getcwd, os.chdir),
)


@contextmanager
def refusing_settings(code: str) -> Iterator[None]:
    """Refuse code that changes a setting of the process, and put the setting back.

    Args:
        code: name of the code inside, for the message.

    Raises:
        UserError: naming the setting, and its value before and after.
    """
    before = [setting.read() for setting in _SETTINGS]
    changes: list[str] = []
    try:
        yield
    finally:
        for setting, old in zip(_SETTINGS, before, strict=True):
            new = setting.read()
            if new != old:
                setting.write(old)
                changes.append(f"{setting.name} = {new} (it was {old})")
    if changes:
        raise UserError(f"{code}: sets {', '.join(changes)} for all that this process trains; valid: without that")
