"""Saved generators: sample one, in a separate process that imports PyTorch alone.

It neither unpickles nor starts anything: what a user's script saved may come from elsewhere.
"""

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
    """A file is no saved generator, or would do more than hold one."""


@torch.inference_mode()
def main(order: str) -> None:
    """Sample a generator and write what it gives, (N, C, S, S) float32, as an array.

    Args:
        order: JSON of the generator's file, the array's, the number of images, the shape of one latent, the seed of the
            latents and the device.
    """
    path, target, num_images, latent_shape, seed, device = json.loads(order)
    stream = torch.Generator().manual_seed(seed)
    latents = torch.randn(num_images, *latent_shape, generator=stream)
    generator = load_generator(path, target, torch.device(device))
    images: Any = None
    done = 0
    # Programs of torch.export are not made for a batch of one.
    parts = latents.split(BATCH) if num_images % BATCH != 1 else latents.tensor_split(num_images // BATCH + 1)
    for z in parts:
        drawn = generator(z.to(device)).float().cpu().numpy()
        if images is None:
            images = np.lib.format.open_memmap(target, "w+", np.float32, (num_images, *drawn.shape[1:]))
        images[done : done + len(z)] = drawn
        done += len(z)
    images.flush()


def load_generator(path: str, target: str, device: torch.device) -> Any:
    """Load a program of TorchScript or torch.export.

    Raises:
        RefusedError: if it is none, or needs more than tensors.
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
    # Otherwise torch.export.load unpickles whatever it meets, and SymPy evaluates what should be a size.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    sys.addaudithook(functools.partial(_refuse_code, os.path.dirname(target)))  # noqa: PTH120 (text, as events have it)
    try:
        return move_to_device_pass(torch.export.load(path), device).module()
    except pickle.UnpicklingError:
        raise RefusedError("it holds a pickle of more than tensors, which may run code") from None


def _has_script(path: str) -> bool:
    """Whether a file holds TorchScript: what torch.save writes is a pickle, which is not loaded."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _refuse_code(folder: str, event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what only code that hides in a file does, such as changing files outside a folder."""
    is_change = event in ("os.remove", "os.rename") or (event == "open" and (arguments[2] or 0) & _WRITES)
    is_outside = is_change and isinstance(arguments[0], str) and not arguments[0].startswith(folder)
    if event in _REFUSED_EVENTS or is_outside:
        raise PermissionError(f"it would run code when it is loaded: {event}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that TorchScript is on its way out is no news to whoever uses it
    try:
        main(sys.argv[1])
    except Exception as broken:  # a user's saved program may raise anything
        print(str(broken).strip().partition("\n")[0][:300] or type(broken).__name__)
        sys.exit(1)
