"""An image folder in, the list of its images and a name for its content out, without decoding any of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PREFIX = "folder:"
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def list_images(folder: Path, source: str = "--dataset") -> list[Path]:
    """List every image file below ``folder``, in an order that depends on the names alone.

    Args:
        folder: where to look.
        source: who named it, for the message.

    Raises:
        UserError: if the folder does not exist, or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f"{source} {PREFIX}{folder}: no such folder")
    images = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not images:
        raise UserError(f"{source} {PREFIX}{folder}: no image in it; valid: {', '.join(IMAGE_SUFFIXES)}")
    return sorted(images, key=lambda path: path.relative_to(folder).as_posix())


def folder_identity(folder: Path, source: str = "--dataset") -> str:
    """Name a folder by its content: ``folder:NAME@HASH``, the hash over relative paths and the files' bytes.

    So the folder may move without its runs being lost, and other images under the same path are another data set.
    """
    digest = hashlib.sha256()
    for path in list_images(folder, source):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return f"{PREFIX}{folder.resolve().name}@{digest.hexdigest()[:8]}"


def list_classes(folder: Path, images: Sequence[Path]) -> list[str]:
    """Name the classes of a folder's images: the folders directly below it, if each image lies in one of at least two.

    Args:
        folder: the data set.
        images: of it, from ``list_images``.

    Returns:
        The names in order, or none where the images have no classes.
    """
    names = {class_of(folder, path) for path in images}
    return sorted(names) if len(names) > 1 and "" not in names else []


def class_of(folder: Path, image: Path) -> str:
    """Name the folder directly below ``folder`` that an image lies in, or nothing where it lies in none."""
    parts = image.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""
