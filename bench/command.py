"""Run a function as a command line: its parameters are the options, and what is wrong is said in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from gan_ablate.errors import UserError


def run(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's options; exit with 2 where an option is not valid.

    Args:
        main: whose parameters carry ``typer.Option`` or ``typer.Argument``.
    """
    try:
        build_app(main)()
    except UserError as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        sys.exit(2)


def build_app(main: Callable[..., None]) -> typer.Typer:
    """Build the program of one command."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(help=main.__doc__)(main)
    return app
