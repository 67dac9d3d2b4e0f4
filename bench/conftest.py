"""Benchmarks are collected only when asked for: plain ``pytest`` spends no time on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tabulate import tabulate

RATIOS = pytest.StashKey[dict[str, dict[str, object]]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("benchmark_only") else True


@pytest.fixture
def ratios(pytestconfig: pytest.Config) -> dict[str, dict[str, object]]:
    """Rows of the table that is printed at the end, by subject."""
    return pytestconfig.stash.setdefault(RATIOS, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = [{"model": name, **row} for name, row in config.stash.get(RATIOS, {}).items()]
    if rows:
        terminalreporter.section("against the plain loop, in turns")
        terminalreporter.write_line(tabulate(rows, headers="keys", floatfmt=".3g"))
