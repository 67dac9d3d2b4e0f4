"""Embedded files: ten thousand training digits, the held-out digits, and the weights of the scoring classifiers."""

from __future__ import annotations

import hashlib
from importlib import resources

from gan_ablate.errors import UserError


def read_asset(name: str) -> tuple[bytes, str]:
    """Read an embedded file and its SHA-256.

    Raises:
        UserError: if its checksum is not the one in ``assets/SHA256SUMS``.
    """
    assets = resources.files("gan_ablate.assets")
    content = assets.joinpath(name).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if f"{sha256}  {name}" not in assets.joinpath("SHA256SUMS").read_text("ascii").splitlines():
        raise UserError(f"gan_ablate/assets/{name}: the checksum is {sha256[:12]}…, not the shipped one: reinstall")
    return content, sha256
