from __future__ import annotations

from pathlib import Path

from bench.sections import START_UP, read_section, replace_section

PAGE = f"# Speed\n\nText.\n\n{START_UP}\n\nOld.\n\n## Where a step goes\n\nThere.\n"


def test_a_section_takes_the_place_of_the_earlier_one() -> None:
    new = replace_section(PAGE, START_UP, f"{START_UP}\n\nNew.\n")
    assert new == f"# Speed\n\nText.\n\n## Where a step goes\n\nThere.\n\n{START_UP}\n\nNew.\n"
    assert replace_section(new, START_UP, f"{START_UP}\n\nNew.\n") == new


def test_a_section_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text(PAGE, "utf-8")
    assert read_section(tmp_path / "speed.md", START_UP) == f"\n{START_UP}\n\nOld.\n"
    assert read_section(tmp_path / "none.md", START_UP) == ""
