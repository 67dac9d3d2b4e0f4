"""Sections of results/speed.md: each measurement writes its own, and leaves the others."""

from __future__ import annotations

import re
from pathlib import Path

CHANGES = "## Steps before and after a change"
LEFT_OUT = "## What was tried and left out"
START_UP = "## Start-up"


def replace_section(page: str, heading: str, section: str) -> str:
    """Put a section in the place of an earlier one of this heading, such as ``## Start-up``, or at the end."""
    rest = re.sub(_pattern(heading), "", page)
    return rest.rstrip() + "\n\n" + section


def read_section(page: Path, heading: str) -> str:
    """Return a page's section, or nothing where it has none."""
    found = re.search(_pattern(heading), page.read_text("utf-8")) if page.exists() else None
    return "" if found is None else "\n" + found[0].rstrip() + "\n"


def _pattern(heading: str) -> str:
    return rf"(?ms)^{re.escape(heading)}$.*?(?=^## |\Z)"
