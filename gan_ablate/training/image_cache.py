"""The image cache: a file of decoded images that all processes of a machine map into memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

LAYOUT = 2
"""Raised when files are written, or images decoded, in another way."""

Arrays = dict[str, "Tensor"]


def find_decoded(cache: Path, key: str) -> Arrays | None:
    """Map what was kept under a key, or return None where nothing was, or not what was written.

    Args:
        cache: the results folder's cache.
        key: what the images depend on.
    """
    return read_decoded(_folder(cache, key))


def read_decoded(folder: Path) -> Arrays | None:
    """Map what was kept in a folder, or return None where nothing was, or not what was written."""
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        # Copy on write: processes share the pages as long as nobody writes to them, and nobody does.
        arrays = {name: torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in meta["arrays"]}
    except Exception:  # whatever NumPy and JSON raise on a damaged file: it is made anew
        return None
    return arrays if meta.get("sha256") == checksum(arrays) else None


def keep_decoded(cache: Path, key: str, arrays: Arrays) -> Arrays:
    """Write arrays under a key, whole or not at all, and map them; on a disk that takes none, return them as they are.

    Args:
        cache: the results folder's cache.
        key: what they depend on.
        arrays: name → tensor.
    """
    folder = _folder(cache, key)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
            for name, tensor in arrays.items():
                np.save(Path(temporary) / f"{name}.npy", tensor.contiguous().numpy())
            meta = {"arrays": list(arrays), "sha256": checksum(arrays), "key": key}
            (Path(temporary) / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")
            if folder.exists():  # damaged, or another process was faster
                known = find_decoded(cache, key)
                if known is not None:
                    return known
                shutil.rmtree(folder, ignore_errors=True)
            Path(temporary).replace(folder)
            Path(temporary).mkdir()  # which the context wants to remove
    except OSError:
        return find_decoded(cache, key) or arrays
    return find_decoded(cache, key) or arrays


def checksum(arrays: Arrays) -> str:
    """SHA-256 of all arrays, shapes included."""
    digest = hashlib.sha256()
    for name, tensor in arrays.items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _folder(cache: Path, key: str) -> Path:
    return cache / "images" / hashlib.sha256(f"{LAYOUT}/{key}".encode("utf-8", "backslashreplace")).hexdigest()[:16]
