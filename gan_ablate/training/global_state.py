"""Global state of PyTorch, NumPy and Python: their random streams and settings."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

SEEDING = {"torch": "torch.manual_seed", "numpy": "numpy.random.seed", "python": "random.seed"}
"""Random stream → what seeds it."""


def seed_streams(seed: int) -> None:
    """Seed PyTorch's, NumPy's and Python's streams."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (a user's code draws from this one)
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
    """Put each stream where ``read_streams`` found it."""
    torch.set_rng_state(streams["torch"])
    *keys, pos, has_gauss, cached = streams["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), int(pos), int(has_gauss), cached))  # noqa: NPY002
    version, *words, gauss = streams["python"].tolist()
    random.setstate((int(version), tuple(map(int, words)), None if np.isinf(gauss) else gauss))


@contextmanager
def keeping_streams() -> Iterator[None]:
    """Undo what is drawn from the streams, and how they are seeded."""
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
    """Refuse code that changes a setting of the process; the setting is put back.

    Args:
        code: what runs inside, for the message.

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
