"""The console that commands print to."""

from __future__ import annotations

from rich.console import Console


def open_console() -> Console:
    """Print what comes from outside, titles, labels and paths, as it is: brackets in it are no markup."""
    return Console(markup=False, emoji=False)
