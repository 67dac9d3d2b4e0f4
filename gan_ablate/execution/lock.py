"""Leases: lock a run's file, so that only one process at a time computes the run."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
