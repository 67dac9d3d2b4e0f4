"""The device that computes: found on this machine, or refused."""

from __future__ import annotations

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
