from __future__ import annotations

import pandas as pd
import pytest

from gan_ablate.analysis.levels import find_level, read_levels
from gan_ablate.errors import UserError


@pytest.mark.parametrize(
    ("written", "names", "notes"),
    [
        (["w/o BN", "w/ BN", "SN & BN", "λ=10", "BN → IN"], ["w/o BN", "w/ BN", "SN & BN", "λ=10", "BN → IN"], []),
        ([" on ", "On", "off"], ["on", "on", "off"], ["f: 'On' read as 'on': they differ in case or spaces only"]),
        (["w/o BN", "w/oBN"], ["w/o BN"] * 2, ["f: 'w/oBN' read as 'w/o BN': they differ in case or spaces only"]),
        (["w/o\xa0BN", "w/o BN"], ["w/o BN", "w/o BN"], []),
        ([True, "true", False], ["True", "True", "False"], ["f: 'true' read as 'True': they differ in case or spa"]),
        (["2e-4", "0.0002", "2E-04"], ["2e-4"] * 3, ["f: '0.0002' and '2E-04' read as '2e-4': they are the same nu"]),
        ([1.0, 2.0], ["1", "2"], []),
        (["1.1", "1.10"], ["1.1", "1.10"], ["f: '1.1' and '1.10' stay apart, as they may be versions"]),
        (["True", "1", "0"], ["True", "1", "0"], ["f: 'True' and '1' count as 2 levels; if they mean the same"]),
        (["batch_norm", "batch-norm"], ["batch_norm", "batch-norm"], ["f: 'batch_norm' and 'batch-norm' count as 2"]),
        (["1", "-1", "1e1"], ["1", "-1", "1e1"], []),
        (["+BN", "-BN"], ["+BN", "-BN"], []),
    ],
)
def test_levels_are_merged_where_they_are_the_same_and_it_is_said(
    written: list[object], names: list[str], notes: list[str]
) -> None:
    column = pd.Series(written, range(1, len(written) + 1), dtype=object)
    found, said = read_levels(column, "f", "t")
    assert list(found) == names
    assert list(found.index) == list(column.index)
    assert len(said) == len(notes)
    for note, expected in zip(said, notes, strict=True):
        assert note.startswith(expected)


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("", "t: row 2: f is empty; valid: a level for every run"),
        ("a|b", r"t: row 2, f = 'a\|b': valid: at most 80 letters"),
        ("[a](b)", "row 2"),
        ("x" * 81, "row 2"),
    ],
)
def test_a_level_that_has_no_place_on_a_page_is_refused(level: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_levels(pd.Series(["a", level], [1, 2]), "f", "t")


def test_a_level_is_found_by_any_spelling_and_an_exact_one_wins() -> None:
    assert find_level("ON", ["off", "on"]) == "on"
    assert find_level("0.50", ["0.5", "0.50"]) == "0.50"
    assert find_level("0.500", ["0.5", "0.50"]) == "0.5"
    assert find_level("up", ["off", "on"]) is None
