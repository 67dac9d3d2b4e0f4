"""Saved generators: sample one in a separate process, which imports PyTorch alone and runs no code from the file."""

from __future__ import annotations

import functools
import json
import os
import pickle
import sys
import warnings
import zipfile
from typing import Any

import numpy as np
import torch

BATCH = 250

_REFUSED_EVENTS = frozenset(
    ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class RefusedError(Exception):
    """A file is no saved generator, or would run code."""


@torch.inference_mode()
def main(order: str) -> None:
    """Sample a generator, and write the images to an ``.npy`` file, (N, C, S, S) float32.

    Args:
        order: a JSON list: the generator's file, the ``.npy`` file, the number of images, the shape of one latent, the
            seed of the latents, and the device.
    """
    path, target, num_images, latent_shape, seed, device = json.loads(order)
    stream = torch.Generator().manual_seed(seed)
    latents = torch.randn(num_images, *latent_shape, generator=stream)
    generator = load_generator(path, target, torch.device(device))
    images: Any = None
    done = 0
    # An exported program may refuse a batch of one.
    parts = latents.split(BATCH) if num_images % BATCH != 1 else latents.tensor_split(num_images // BATCH + 1)
    for z in parts:
        batch = generator(z.to(device)).float().cpu().numpy()
        if images is None:
            images = np.lib.format.open_memmap(target, "w+", np.float32, (num_images, *batch.shape[1:]))
        images[done : done + len(z)] = batch
        done += len(z)
    images.flush()


def load_generator(path: str, target: str, device: torch.device) -> Any:
    """Load what ``torch.jit.save`` or ``torch.export.save`` wrote.

    Args:
        path: the generator's file.
        target: the file of the images; loading may write files in its folder only.
        device: the device that samples.

    Raises:
        RefusedError: if the file is of another kind, or holds more than tensors.
    """
    if not path.endswith(".pt2"):
        if not _has_script(path):
            raise RefusedError("no TorchScript; valid: torch.jit.trace(netG, z).save(PATH), or torch.export.save")
        return torch.jit.load(path, map_location=device).eval()
    from torch.export.passes import move_to_device_pass
    from torch.export.pt2_archive import PT2ArchiveReader

    with PT2ArchiveReader(path) as archive:
        if any("aotinductor" in name for name in archive.get_file_names()):
            raise RefusedError("it holds compiled code; valid: what torch.export.save writes")
    # Without these, torch.export.load unpickles any object, and SymPy evaluates any text in the place of a size.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    sys.addaudithook(functools.partial(_refuse_code, os.path.dirname(target)))  # noqa: PTH120 (text, as events have it)
    try:
        return move_to_device_pass(torch.export.load(path), device).module()
    except pickle.UnpicklingError:
        raise RefusedError("it holds a pickle of more than tensors, which may run code") from None


def _has_script(path: str) -> bool:
    """Whether a file holds TorchScript, and not a pickle that ``torch.save`` wrote."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _refuse_code(folder: str, event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse an audit event that only hidden code causes, such as changing a file outside a folder."""
    is_change = event in ("os.remove", "os.rename") or (event == "open" and (arguments[2] or 0) & _WRITES)
    is_outside = is_change and isinstance(arguments[0], str) and not arguments[0].startswith(folder)
    if event in _REFUSED_EVENTS or is_outside:
        raise PermissionError(f"it would run code when it is loaded: {event}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # TorchScript warns that it is deprecated
    try:
        main(sys.argv[1])
    except Exception as broken:  # a user's generator may raise anything
        print(str(broken).strip().partition("\n")[0][:300] or type(broken).__name__)
        sys.exit(1)
