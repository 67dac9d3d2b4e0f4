"""Exceptions for users: each is one line that names what is wrong and what is valid."""

from __future__ import annotations

import errno

OUT_OF_MEMORY = "out of memory"
"""How a message begins that says so."""

_WORDS_OF_ALLOCATORS = ("allocate memory", "out of memory", "bad_alloc", "size calculation overflow")


class UserError(Exception):
    """Something the user gave cannot be used; the message says what, and what would be. The program exits with 2."""


class RunFailedError(Exception):
    """At least one run of a grid ended with an error; the others are recorded. The program exits with 1."""


def is_out_of_memory(failure: BaseException) -> bool:
    """Whether something failed for want of memory: Python, NumPy, PyTorch on a CPU or a GPU, or the system."""
    if isinstance(failure, OSError):
        return failure.errno == errno.ENOMEM
    # PyTorch raises a plain RuntimeError where a CPU has no memory.
    is_refused = isinstance(failure, RuntimeError) and any(words in str(failure) for words in _WORDS_OF_ALLOCATORS)
    return isinstance(failure, MemoryError) or is_refused


def describe_out_of_memory(failure: BaseException) -> str:
    """Say that memory was too little, and what asked for it."""
    reason = str(failure).strip().partition("\n")[0]
    return f"{OUT_OF_MEMORY}{f' ({reason})' if reason else ''}; valid: fewer --jobs, or a smaller run"
