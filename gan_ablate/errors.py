"""Errors: exceptions for users, each a line that names what is wrong and what is valid, and how a process ended."""

from __future__ import annotations

import errno
import signal

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


def describe_exit(code: int | None) -> str:
    """Say how a process ended: ``exit code 1``, ``signal SIGTERM``, ``signal SIGRTMIN+3``.

    Args:
        code: its exit code; below zero, the number of the signal that ended it; None where it is unknown.
    """
    if code is None or code >= 0:
        return f"exit code {code}"
    name = _name_signal(-code)
    return f"signal {name}; out of memory?" if name == "SIGKILL" else f"signal {name}"


def _name_signal(number: int) -> str:
    """Name a signal as ``kill -l`` does; Python knows only the first and the last of the real-time signals."""
    known = {one.value: one.name for one in signal.Signals}
    first = getattr(signal, "SIGRTMIN", None)
    if number in known or first is None or number < first:
        return known.get(number, str(number))
    return f"SIGRTMIN+{number - first}"
