"""Signals in, a command that ends cleanly out: Ctrl-C, a scheduler's SIGTERM, a terminal that closes."""

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


@contextmanager
def stoppable(console: Console) -> Iterator[None]:
    """Say that the same command goes on, where this one is stopped, and leave as the system expects it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        console.print("Stopped. The same command goes on where it was.")
        number = stop.args[0] if isinstance(stop, _TerminatedError) else signal.SIGINT
        raise typer.Exit(128 + number) from None
