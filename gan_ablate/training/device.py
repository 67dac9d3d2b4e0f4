"""The device that computes: its name checked without PyTorch, and the device itself on this machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    import torch


def check_device_name(name: str) -> None:
    """Refuse a device of a kind that is not supported, without loading PyTorch.

    Raises:
        UserError: if it is neither the CPU nor a CUDA device.
    """
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise UserError(f"--device {shorten(name)}: not supported; valid: cpu, cuda, cuda:0, …")


def find_device(name: str) -> torch.device:
    """Return a device; a GPU is made the current one.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``…

    Raises:
        UserError: if it is not supported, or this machine has none.
    """
    import torch  # seconds that commands which only plan need not pay

    check_device_name(name)
    device = torch.device(name)
    if device.type == "cuda":
        num = torch.cuda.device_count()
        if (device.index or 0) >= num:
            devices = "CUDA device" if num == 1 else "CUDA devices"
            raise UserError(f"--device {name}: this machine has {num} {devices}; use cpu")
        torch.cuda.set_device(device.index or 0)  # where events are recorded
    return device
