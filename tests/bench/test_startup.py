from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.startup import HEADING, Start, describe_starts, read_section, replace_section, time_start

PAGE = f"# Speed\n\nText.\n\n{HEADING}\n\nOld.\n\n## Where a step goes\n\nThere.\n"


def test_a_section_takes_the_place_of_the_earlier_one() -> None:
    new = replace_section(PAGE, f"{HEADING}\n\nNew.\n")
    assert new == f"# Speed\n\nText.\n\n## Where a step goes\n\nThere.\n\n{HEADING}\n\nNew.\n"
    assert replace_section(new, f"{HEADING}\n\nNew.\n") == new


def test_a_section_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text(PAGE, "utf-8")
    assert read_section(tmp_path / "speed.md") == f"\n{HEADING}\n\nOld.\n"
    assert read_section(tmp_path / "none.md") == ""


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
