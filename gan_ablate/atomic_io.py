"""Files: atomic writing, checksums that show damage, leases that lock a file, and the embedded files."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


_DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_DIGEST_BYTES = hashlib.sha256().digest_size


def is_disk_failure(failure: Exception) -> bool:
    """Whether something failed because a disk is full, or may not be written to."""
    return isinstance(failure, OSError) and failure.errno in _DISK_FAILURES


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: to a temporary neighbour, synced, then renamed into place.

    A link stays, and the file that it leads to is written. A device or a pipe, such as ``/dev/null``, is written to.

    Raises:
        OSError: if it cannot be written; what was there before still is.
    """
    whole = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(whole)
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_sealed(path: Path, content: bytes) -> None:
    """Write bytes atomically with their SHA-256 behind them, for ``read_sealed``.

    Raises:
        OSError: as ``write_atomically`` does.
    """
    write_atomically(path, content + hashlib.sha256(content).digest())


_SEAL = b'{"sha256": "%s",\n'
_SEAL_START, _SEAL_BYTES = b'{"sha256": "', len(_SEAL % (b"0" * 64))


def seal_json(text: str) -> bytes:
    """Put a JSON object's SHA-256 into it, as its first member: on a line of its own, of all that follows the line.

    Args:
        text: an object with at least one member.
    """
    rest = text.strip().removeprefix("{").lstrip().encode("utf-8") + b"\n"
    return _SEAL % hashlib.sha256(rest).hexdigest().encode("ascii") + rest


def check_seal(content: bytes, *, is_due: bool = False) -> None:
    """Check the SHA-256 that ``seal_json`` has put into a JSON object.

    Args:
        content: of the file.
        is_due: whether there has to be one; records and plans of older versions have none.

    Raises:
        ValueError: if it is another one's, or missing.
    """
    if is_due and not content.startswith(_SEAL_START):
        raise ValueError("it has no checksum")
    if content.startswith(_SEAL_START):
        line, rest = content[:_SEAL_BYTES], content[_SEAL_BYTES:]
        if line != _SEAL % hashlib.sha256(rest).hexdigest().encode("ascii"):
            raise ValueError("it does not match its checksum")


def read_sealed(path: Path) -> bytes:
    """Read what ``write_sealed`` wrote.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not what was written.
    """
    content = path.read_bytes()
    content, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("it does not match its checksum")
    return content


def user_cache() -> Path | None:
    """Return this program's folder among what the user's programs may forget, or None where the user has no home."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(given) if given else Path.home() / ".cache"
    except RuntimeError:
        return None
    return cache / "gan-ablate"


_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system says that knows no locks."""


@contextmanager
def lease(path: Path) -> Iterator[bool]:
    """Hold a lock of the operating system on a file, if nobody else does.

    The system gives it up when its holder ends, however that happens, so no clock has a part in it. On NFS it holds
    between machines from version 4 on, and before where the lock daemon runs; on a file system without locks everyone
    gets the lease, and two commands may compute the same run, each whole, the later one staying.

    Args:
        path: of the lock; it is made, and stays.

    Yields:
        Whether the lease is had.

    Raises:
        OSError: if the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Its fallback would leave a file behind when its holder is killed, which a clock then has to judge.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except OSError as refused:
        if refused.errno not in _NO_LOCKS:
            raise
    try:
        yield True
    finally:
        lock.release()


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
