"""Tells the C library when to keep memory that PyTorch frees: every training step wants the same blocks again."""

from __future__ import annotations

import ctypes
import sys

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
