"""The command line, in this process."""

from __future__ import annotations

import sys

import pytest

from gan_ablate.cli import app as cli


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["gan-ablate", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
