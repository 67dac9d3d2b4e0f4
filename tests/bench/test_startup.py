from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.startup import Start, describe_starts, time_start


def test_ratios_are_taken_turn_by_turn() -> None:
    section = describe_starts({("run", "other"): [2.0, 4.0, 9.0], ("run", "this"): [1.0, 1.0, 9.0]}, 3)
    assert [cell.strip() for cell in section.splitlines()[-1].strip("|").split("|")] == [
        "run",
        "4",
        "1",
        "0.50 (0.25 to 1.00)",
    ]


@pytest.mark.slow
def test_a_command_that_fails_has_no_time(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="No such command"):
        time_start(Start("none", "nothing"), Path(sys.modules["bench"].__path__[0]).parent, tmp_path)
