"""Signals: end a command cleanly on Ctrl-C, SIGTERM or a closed terminal, and name the signal that ended a process."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


class _TerminatedError(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does; its number."""


def listen() -> None:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _terminate)


def _terminate(number: int, _: object) -> NoReturn:
    raise _TerminatedError(number)


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


@contextmanager
def stoppable(console: Console) -> Iterator[None]:
    """Say that the same command goes on, where this one is stopped, and leave as the system expects it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        console.print("Stopped. The same command goes on where it was.")
        number = stop.args[0] if isinstance(stop, _TerminatedError) else signal.SIGINT
        raise typer.Exit(128 + number) from None
