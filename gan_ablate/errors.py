"""Errors: exceptions for users, each a line that names what is wrong and what is valid, and how a process ended."""

from __future__ import annotations

import errno
import re
import signal

OUT_OF_MEMORY = "out of memory"
"""How a message begins that says so."""

_WORDS_OF_ALLOCATORS = ("allocate memory", "out of memory", "bad_alloc", "size calculation overflow")


_OPTIONS = {
    "name": "grid",
    "overrides": "set",
    "factors": "factor",
    "outcomes": "outcome",
    "baselines": "baseline",
    "blocks": "block",
    "checkpoint_sec": "checkpoint-every",
    "run_until_settled": "until settled",
}
"""Parameter → option, where their names differ in more than underscores."""
_MARKS = "\ue000", "\ue001", "\ue002"
"""Characters for private use, which stand around and between the two ways to name a parameter."""


def option(parameter: str, value: object = None) -> str:
    """Name a parameter and its value in the message of a ``UserError``.

    Python shows ``seeds=0``, the command line ``--seeds 0``; of a switch ``paired=False`` and ``--unpaired``.

    Args:
        parameter: its name in Python.
        value: what was given; by default the message names the parameter alone.
    """
    flag = f"--{_OPTIONS.get(parameter, parameter.replace('_', '-'))}"
    both = parameter, flag
    if isinstance(value, bool):
        both = f"{parameter}={value}", flag if value else f"--un{parameter}"
    elif value is not None:
        shown = value if isinstance(value, (int, float)) else str(value)
        both = f"{parameter}={shown!r}", f"{flag} {f'{value:g}' if isinstance(value, float) else value}"
    return _MARKS[1].join(both).join((_MARKS[0], _MARKS[2]))


class UserError(Exception):
    """Something the user gave cannot be used; the message says what, and what would be. The program exits with 2.

    ``option`` names parameters in the message.
    """

    def __str__(self) -> str:
        """Return the message with parameters as Python has them."""
        return self._name_parameters(0)

    @property
    def with_options(self) -> str:
        """The message with parameters as options of the command line."""
        return self._name_parameters(1)

    def _name_parameters(self, number: int) -> str:
        first, between, last = _MARKS
        named = re.compile(f"{first}([^{between}]*){between}([^{last}]*){last}")
        return named.sub(lambda both: both[1 + number], super().__str__())


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
