"""Devices: check that one works on this machine, and set how its memory is allocated."""

from __future__ import annotations

import ctypes
import sys

import torch

from gan_ablate.design.validation import check_device_name
from gan_ablate.errors import UserError


def find_device(name: str) -> torch.device:
    """Return a device; a GPU is made the current one.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``…

    Raises:
        UserError: if it is not supported, or this machine has none.
    """
    check_device_name(name)
    device = torch.device(name)
    if device.type == "cuda":
        num = torch.cuda.device_count()
        if (device.index or 0) >= num:
            devices = "CUDA device" if num == 1 else "CUDA devices"
            raise UserError(f"--device {name}: this machine has {num} {devices}; use cpu")
        torch.cuda.set_device(device.index or 0)  # where events are recorded
    return device


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER = 2**30
_LARGEST_BEFORE_2_35 = 2**25


def keep_memory() -> None:
    """Make this process reuse freed blocks instead of handing them back and faulting them in again, page by page.

    It changes no result, only where memory comes from. Only glibc is known to need it; elsewhere nothing happens.
    """
    libc = _load_glibc()
    if libc is not None:
        # glibc before 2.35 refuses more than half of its largest heap, and would keep to its 128 KB.
        _ = libc.mallopt(_M_MMAP_THRESHOLD, _NEVER) or libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BEFORE_2_35)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def release_memory() -> None:
    """Hand back all freed blocks once, so that what the process holds afterwards is what it uses."""
    libc = _load_glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _load_glibc() -> ctypes.CDLL | None:
    """Return the C library, or None where it is another one."""
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "malloc_trim") else None
