"""Source files in, a name for their content out: what was run is known by it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_SOURCE_BYTES = 100_000_000


def list_source_files(origin: Path) -> list[Path]:
    """List what a module's code is: its file, or all of its package's where it is one's ``__init__.py``."""
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def name_files(folder: Path, files: Sequence[Path], stem: str) -> str:
    """Name files by their content and their places below a folder: ``STEM@HASH``.

    Raises:
        UserError: if one cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(dict.fromkeys(files)):
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        try:
            if path.stat().st_size > MAX_SOURCE_BYTES:
                raise UserError(f"{path}: larger than {MAX_SOURCE_BYTES:,} bytes; valid: name source files")
            content = path.read_bytes()
        except OSError as unreadable:
            raise UserError(f"{path}: {unreadable.strerror or unreadable}") from None
        digest.update(f"{name}\0{len(content)}\n".encode("utf-8", "surrogateescape") + content)
    return f"{stem}@{digest.hexdigest()[:8]}"
